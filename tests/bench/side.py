"""One private Asterisk with an installation of noojee-agi, and the calls that are placed there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import spooled
from lab.asterisk import PrivateAsterisk
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until

from bench import processor, ways
from bench.ways import Held, Way

CALL_SECONDS = 60.0
STILL_SECONDS = 0.15  # longer than the server's drain process waits for further events before it works
STILL_USES = 0.003  # seconds meanwhile: a process that waits may still look at its clock
OPTIONS = {"log.level": "info"}


@dataclass(frozen=True)
class Hold:
    """One call, in milliseconds: how long it was held, how long after the start of that MixMonitor began.

    cpu: what all processes have used for the call, what nobody waits for included.
    """

    milliseconds: float
    recording_after: float | None
    cpu: float


class Side:
    """One Asterisk and its site; served, if it has a server."""

    def __init__(self, private: PrivateAsterisk, site: Site, served: Served | None) -> None:
        self.site = site
        self.has_database = True
        self._asterisk = private
        self._served = served

    def configure(self, options: Mapping[str, str]) -> None:
        """noojee_agi.conf, on top of what is always there; a server reads it at once."""
        if self._served:
            self._served.configure(options)
            self._served.reload()
        else:
            self.site.configure({**OPTIONS, **options})

    def catch_up(self) -> None:
        """Wait until the database, which is there again, has all that waited for it."""
        self.has_database = True

        def is_done() -> bool:
            self.site.cli(
                "sync", may_fail=True
            )  # a drain that is still waiting for what is gone may be in the way
            return self._is_idle()

        wait_until(is_done, CALL_SECONDS, "the end of the backlog")

    def call(self, way: Way) -> Hold:
        """Place one call, and wait until nothing of it runs any more."""
        used = self._cpu_seconds()
        log = self._place(way, 1, lambda: self._asterisk.originate(ways.LINE, f"{way.extension}@hold"))
        used = self._cpu_seconds() - used + processor.seconds_of_orphans()
        (held,) = _recorded(log, way)
        begin = next(ways.begins(log), None)
        recording_after = None if begin is None else (begin - held.before) * 1000
        return Hold(held.milliseconds, recording_after, used * 1000)

    def per_second(self, way: Way, count: int) -> float:
        """How many are through in a second when so many come at once: first before to last after."""
        calls = [(ways.LINE, f"{way.extension}@hold")] * count
        log = self._place(way, count, lambda: self._asterisk.originate_at_once(calls))
        processor.seconds_of_orphans()
        held = _recorded(log, way)
        return count / (max(each.after for each in held) - min(each.before for each in held))

    def cpu_of_calls(self, way: Way, count: int, per_second: float) -> tuple[float, int]:
        """What all processes use for so many calls at that rate, until nothing is left to do; in seconds.

        Also how many of the calls were not recorded. It waits with as little work as can be, since somebody
        measures the whole machine meanwhile.
        """
        used, log_begun, begun = self._cpu_seconds(), self._log_file.stat().st_size, time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begun + number / per_second - time.monotonic()))
            self._asterisk.originate_at_once([(ways.LINE, f"{way.extension}@hold")])
        self._wait_until_over(way, count, log_begun)
        wait_until(self._is_idle, CALL_SECONDS, "the end of all background work")
        wait_until(lambda: not self._legs_at_work(), CALL_SECONDS, "the end of all legs in the database")
        processor.wait_until_still(self._servers, CALL_SECONDS)
        used = self._cpu_seconds() - used + processor.seconds_of_orphans()
        return used, _missing(ways.held(self._log(log_begun)), way)

    def rest(self) -> None:
        """Wait until no call is up and nothing of ours works: with a database, until nothing waits for it."""
        self._asterisk.wait_quiet(CALL_SECONDS)
        if self.has_database:
            wait_until(self._is_idle, CALL_SECONDS, "the end of all background work")
        else:  # what runs only waits, as a drain does for a database that does not answer
            processor.wait_until_still(self._ours, CALL_SECONDS, STILL_SECONDS, STILL_USES)

    def _place(self, way: Way, count: int, originate: Callable[[], None]) -> str:
        """What the log says of these calls."""
        begun = self._log_file.stat().st_size
        originate()
        self._wait_until_over(way, count, begun)
        self.rest()
        return self._log(begun)

    def _wait_until_over(self, way: Way, count: int, begun: int) -> None:
        """Until the log, from there on, tells of so many calls, and of the files of those that record."""

        def is_over() -> bool:
            log = self._log(begun)
            held = ways.held(log)
            return len(held) == count and ways.count_ends(log) >= len([*filter(way.has_recorded, held)])

        wait_until(is_over, CALL_SECONDS, f"the end of {count} calls: {way.name}")

    @property
    def _log_file(self) -> Path:
        return self._asterisk.folder / "log/full"

    def _log(self, begun: int) -> str:
        with self._log_file.open("rb") as file:
            file.seek(begun)
            return file.read().decode(errors="replace")

    def _servers(self) -> list[int]:
        return [self._asterisk.pid, *([self._served.pid] if self._served else [])]

    def _cpu_seconds(self) -> float:
        return processor.seconds(self._servers())

    def _is_idle(self) -> bool:
        """Whether no program of ours runs and nothing waits for the database."""
        return not self.site.processes() and spooled.is_empty(self.site.recordings_directory)

    def _legs_at_work(self) -> list[str]:
        return [leg["id"] for leg in self.site.legs() if leg["status"] == "recording"]

    def _ours(self) -> list[int]:
        return [*self.site.processes(), *self._servers()[1:]]


def _recorded(log: str, way: Way) -> list[Held]:
    """The calls of this log, each of which must have done what its way is for."""
    held = ways.held(log)
    assert not _missing(held, way), f"{way.name} has not recorded {_missing(held, way)} of {len(held)}: {log}"
    assert len([*ways.begins(log)]) == (len(held) if way.records else 0), log
    return held


def _missing(held: list[Held], way: Way) -> int:
    """How many of the calls should have been recorded, and were not."""
    return sum(not way.has_recorded(each) for each in held) if way.records else 0
