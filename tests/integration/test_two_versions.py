"""During an upgrade the programs are new and the server is old; on the way back, the other way round."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lab import former, processes
from lab.served import Served
from lab.site import PROGRAMS, Site
from lab.waiting import wait_until
from unit.fakes import FakeAsterisk

from integration.piped import Piped
from noojee_agi.recordings import spool

_numbers = itertools.count(1)


class Versions(NamedTuple):
    """Where the server's programs are, and those that calls start."""

    server: Path
    calls: Path


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return former.install(tmp_path_factory.mktemp("former") / "venv")


@pytest.fixture(params=["old server", "new server"])
def versions(request: pytest.FixtureRequest, old: Path) -> Versions:
    return Versions(old, PROGRAMS) if request.param == "old server" else Versions(PROGRAMS, old)


@pytest.fixture
def served(versions: Versions, tmp_path: Path) -> Iterator[Served]:
    with Served(Site(tmp_path / "site", programs=versions.server)) as running:
        yield running


class Recorded(NamedTuple):
    """A call that was told 200."""

    asterisk: FakeAsterisk
    seconds: float

    @property
    def leg_id(self) -> str:
        return self.asterisk.answers()["RECORDING_ID"]


def record(site: Site, command: list[str]) -> Recorded:
    asterisk = FakeAsterisk(apiKey=site.key)
    asterisk.environment["agi_uniqueid"] = f"1762420502.{next(_numbers)}"
    with Piped(asterisk, [*command, "", "INV-22"], site.environment) as program:
        seconds = program.run()
    asterisk.check()
    answers = asterisk.answers()
    assert (program.stderr, answers["RECORDING_STATUS"]) == ("", "200"), (answers, site.log())
    assert asterisk.running() == [answers["RECORDING_FILE"]]
    return Recorded(asterisk, seconds)


def record_by_server(served: Served, command: list[str]) -> Recorded:
    """A call whose session the server does: a program whose server is too busy to take it does it itself."""

    def handed_over() -> Recorded | None:
        before = served.status()["sessions"]
        recorded = record(served.site, command)
        with contextlib.suppress(AssertionError):  # it is counted when the program has ended
            wait_until(lambda: served.status()["sessions"] == before + 1, 2)
            return recorded
        hang_up(recorded)
        return None

    return wait_until(handed_over, 60, "a session to be handed over", served.site.log)


def hang_up(recorded: Recorded) -> None:
    """MixMonitor closes its file, and runs the command that it was given, if it was given one."""
    for mixmonitor in recorded.asterisk.mixmonitors:
        mixmonitor.end()
        if mixmonitor.command:
            subprocess.run(mixmonitor.command.split(), env={}, check=True, timeout=60)


def ended(site: Site, recorded: Recorded) -> dict[str, Any]:
    """Its leg, once the database says that it has ended, which the server's version knows to read."""

    def legs() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = json.loads(site.cli("recordings", "--id", recorded.leg_id, "--json"))
        return told

    def found() -> dict[str, Any] | None:
        return next((leg for leg in legs() if leg["status"] not in ("recording", "failed")), None)

    return wait_until(found, 60, f"the end of {recorded.leg_id}", lambda: (legs(), site.log()[-2000:]))


def test_a_session_is_handed_over(served: Served, versions: Versions) -> None:
    recorded = record_by_server(served, [str(versions.calls / "start_record.py")])
    hang_up(recorded)

    assert ended(served.site, recorded)["tag"] == "INV-22"


def test_the_text_of_a_program_may_be_newer_than_the_python_that_runs_it(
    served: Served, versions: Versions
) -> None:
    """As when the link is replaced between the kernel's look at the first line and Python's at the rest."""
    program = [str(versions.server / "python"), str(versions.calls / "start_record.py")]

    recorded = record_by_server(served, program)
    hang_up(recorded)

    assert ended(served.site, recorded)["tag"] == "INV-22"


@contextmanager
def frozen(workers: Callable[[], list[int]]) -> Iterator[None]:
    pids = workers()
    processes.send(signal.SIGSTOP, pids)
    try:
        yield
    finally:
        processes.send(signal.SIGCONT, pids)


def test_what_a_program_notes_itself_the_server_takes_in(served: Served, versions: Versions) -> None:
    """A busy server takes no session, and its drain process finds the event that the program has written."""
    with frozen(served.workers):
        recorded = record(served.site, [str(versions.calls / "start_record.py")])
    hang_up(recorded)

    assert ended(served.site, recorded)["tag"] == "INV-22"
    assert not list((served.site.recordings_directory / ".spool/rejected").glob("*"))


def test_a_call_ends_with_the_version_that_it_began_with(served: Served, versions: Versions) -> None:
    """Begun without a server, so MixMonitor has the program's own finish_record.py to run."""
    served.stop()
    recorded = record(served.site, [str(versions.calls / "start_record.py")])
    served.start()
    (mixmonitor,) = recorded.asterisk.mixmonitors
    assert mixmonitor.command.startswith(f"{versions.calls}/finish_record.py ")
    hang_up(recorded)

    assert ended(served.site, recorded)["tag"] == "INV-22"


def test_a_call_that_one_server_began_is_closed_by_the_next(
    served: Served, versions: Versions, tmp_path: Path
) -> None:
    """The upgrade's restart, and the database upgraded before it."""
    site = served.site
    first, second = (record(site, [str(versions.calls / "start_record.py")]) for _ in range(2))
    site.programs = PROGRAMS
    site.cli("db", "upgrade")

    served.stop()
    hang_up(first)
    served.start()
    hang_up(second)

    for recorded in (first, second):
        assert ended(site, recorded)["tag"] == "INV-22"
    assert not list((site.recordings_directory / ".spool/rejected").glob("*"))


def test_the_end_of_a_call_that_a_server_began_is_told_to_the_next_by_the_former_program(
    served: Served, versions: Versions
) -> None:
    """Of a format whose end the server does not see in the file: its own finish_record.py is named."""
    served.configure({"recordings.format": "gsm"})
    served.reload()
    recorded = record_by_server(served, [str(versions.calls / "start_record.py")])
    (mixmonitor,) = recorded.asterisk.mixmonitors
    assert mixmonitor.command.startswith(f"{versions.server}/finish_record.py ")

    served.stop()
    served.site.programs = versions.calls
    served.site.cli("db", "upgrade", may_fail=True)  # the former version does not know this schema
    served.start()
    hang_up(recorded)
    if versions.server == PROGRAMS:  # so it waits until the newer one is back
        waits = spool.count(str(served.site.recordings_directory / ".spool"))
        # Unless the server was too busy to take it, and the program has drained it itself.
        assert waits == 1 or served.site.legs("--id", recorded.leg_id)[0]["status"] != "recording"
        served.stop()
        served.site.programs = PROGRAMS
        served.start()

    assert ended(served.site, recorded)["tag"] == "INV-22"
