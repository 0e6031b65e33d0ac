"""Short recorded calls through one Asterisk, as many at once as a test wants, and what their dialplan saw."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from lab import processes
from lab.asterisk import PrivateAsterisk
from lab.site import Site
from lab.waiting import wait_until

# The line answers late: by then the command that started the call has ended and left the processor.
LINE = """
[line]
exten => 410,1,Wait(0.3)
 same => n,Answer()
 same => n,Milliwatt()
"""
# A call's extension is TAG*SECONDS. Its context says whose recording it is: the site's. No call sets ENV():
# a child that Asterisk forks in that instant for another AGI() inherits the C library's lock of the
# environment, and waits for it for ever in setenv() (res_agi.c launch_script).
CONTEXT = """
[{context}]
exten => _[a-z].,1,Set(apiKey={key})
 same => n,Set(tag=${{CUT(EXTEN,*,1)}})
 same => n,Set(before=${{STRFTIME(,,%s.%6q)}})
 same => n,AGI({program},,${{tag}},Fred)
 same => n,Set(after=${{STRFTIME(,,%s.%6q)}})
 same => n,Set(FILE({calls},,,al,u)=${{tag}}|${{before}}|${{after}}|${{RECORDING_STATUS}}|${{RECORDING_ID}}|\
${{RECORDING_FILE}})
 same => n,Wait(${{CUT(EXTEN,*,2)}})
 same => n,Hangup()
"""
TALK_SECONDS = 0.8  # with audio from one side only, MixMonitor drops the first half second
OVER_SECONDS = 60.0


@dataclass(frozen=True)
class Call:
    """What the dialplan saw; held: the milliseconds in AGI()."""

    tag: str
    held: float
    status: str
    leg_id: str
    file: str


class Traffic:
    """The calls of one site."""

    def __init__(self, site: Site, context: str) -> None:
        self.site = site
        self.context = context
        self._calls_file = site.folder / "calls"
        self._numbers = itertools.count(1)
        self._program = site.folder / "start_record"
        words = ["env", f"NOOJEE_AGI_CONF={site.conf}", str(site.agi_directory / "start_record.py")]
        self._program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        self._program.chmod(0o755)

    @property
    def dialplan(self) -> str:
        """Its context in extensions.conf."""
        return CONTEXT.format(
            context=self.context, program=self._program, key=self.site.key, calls=self._calls_file
        )

    def use(self, asterisk: PrivateAsterisk) -> None:
        """Let the calls go through this Asterisk, whose extensions.conf has LINE and the dialplan."""
        self.asterisk = asterisk

    def start(self, count: int = 1, seconds: float = TALK_SECONDS) -> list[str]:
        """So many calls at once, which stay for that long after their AGI(); their tags."""
        tags = [f"{self.context}{next(self._numbers)}" for _ in range(count)]
        for tag in tags:
            self.asterisk.originate("410@line", f"{tag}*{seconds:.3f}@{self.context}")
        return tags

    def start_at_once(self, count: int, seconds: float = TALK_SECONDS) -> list[str]:
        """The same, really at once: by call files."""
        tags = [f"{self.context}{next(self._numbers)}" for _ in range(count)]
        self.asterisk.originate_at_once(("410@line", f"{tag}*{seconds:.3f}@{self.context}") for tag in tags)
        return tags

    def place(self, count: int = 1, seconds: float = TALK_SECONDS) -> list[Call]:
        """The same, and wait until they have hung up. Work in the background may go on."""
        tags = self.start(count, seconds)
        calls = self.wait_until_held(tags)
        self.asterisk.wait_quiet(OVER_SECONDS)
        return calls

    def wait_until_held(self, tags: Iterable[str], all_but: int = 0) -> list[Call]:
        """Those of these calls that AGI() has let go, once they are all, or all but so many."""
        wanted = set(tags)

        def there() -> list[Call] | None:
            calls = [call for call in self.calls() if call.tag in wanted]
            return calls if len(calls) >= len(wanted) - all_but else None

        return wait_until(there, OVER_SECONDS, f"{len(wanted) - all_but} calls to come out of AGI()")

    @contextmanager
    def flowing(self, count: int, at_once: int = 4) -> Iterator[Future[None]]:
        """So many calls while the block runs, each as soon as fewer than `at_once` are in AGI().

        Done when all are out of AGI(), which the end of the block waits for.
        """
        with ThreadPoolExecutor(1) as placing:
            flow = placing.submit(self._flow, count, at_once)
            yield flow
        flow.result()

    def _flow(self, count: int, at_once: int) -> None:
        tags: list[str] = []
        for _ in range(count):
            tags += self.start()
            if len(tags) >= at_once:
                self.wait_until_held(tags, all_but=at_once - 1)
        self.wait_until_held(tags)

    def calls(self) -> list[Call]:
        """All calls so far whose AGI() has returned."""
        if not self._calls_file.exists():
            return []
        return [_call(line) for line in self._calls_file.read_text().splitlines()]

    def wait_until_idle(self, limit: float = 60.0) -> None:
        """Until all calls are over and every program that they have started is gone."""

        def idle() -> bool:
            return processes.members(self.asterisk.pid) == [self.asterisk.pid] and not self.site.processes()

        wait_until(self.asterisk.has_closed, OVER_SECONDS, "the end of all recordings")
        wait_until(idle, limit, "the programs of all calls to end")


def _call(line: str) -> Call:
    tag, before, after, status, leg_id, file = line.split("|")
    return Call(tag, (float(after) - float(before)) * 1000, status, leg_id, file)
