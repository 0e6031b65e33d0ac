"""The recordings' disk hangs: no caller waits without a limit, in no way in, and nothing is lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from lab import network_call, spooled
from lab.hung_disk import HungDisk, hung_disk
from lab.network_call import NetworkCall
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until
from unit.fakes import FakeAsterisk, MixMonitor

from integration.piped import Piped
from noojee_agi.actions import start_record
from noojee_agi.recordings import disk

THREADS = 4
CALLS = 3 * THREADS
TOO_LONG = 20.0  # all waits that follow each other are far shorter, and each call alone would wait for ever


@pytest.fixture
def hanging() -> Iterator[HungDisk]:
    with hung_disk() as found:
        yield found


@pytest.fixture
def site(tmp_path: Path, hanging: HungDisk) -> Site:
    return Site(tmp_path / "site")


def on(hanging: HungDisk) -> Mapping[str, str]:
    return {"recordings.directory": str(hanging.path), "server.threads": str(THREADS)}


def run(site: Site, asterisk: FakeAsterisk, program: str = "start_record") -> float:
    """The seconds that Asterisk waits for it."""
    with Piped(asterisk, [str(site.agi_directory / f"{program}.py")], site.environment) as piped:
        seconds = piped.run()
    asterisk.check()
    return seconds


def channel(site: Site) -> FakeAsterisk:
    return FakeAsterisk(apiKey=site.key)


@contextlib.contextmanager
def nobody(site: Site, options: Mapping[str, str]) -> Iterator[None]:
    site.configure({**options, "server.listen": ""})
    yield


@contextlib.contextmanager
def server(site: Site, options: Mapping[str, str]) -> Iterator[None]:
    with Served(site, options):
        yield


WAYS = pytest.mark.parametrize("serves", [nobody, server])
Serves = Callable[[Site, Mapping[str, str]], contextlib.AbstractContextManager[None]]


@WAYS
def test_a_start_is_503_in_time_and_works_again(site: Site, hanging: HungDisk, serves: Serves) -> None:
    with serves(site, on(hanging)):
        asterisk = channel(site)
        hanging.hang()

        seconds = run(site, asterisk)

        assert asterisk.answers()["RECORDING_STATUS"] == "503"
        assert "disk does not answer" in asterisk.log[0]
        assert asterisk.mixmonitors == []
        assert seconds < TOO_LONG
        hanging.answer()
        wait_until(lambda: run(site, again := channel(site)) and again.running(), 10, "a recording")


@WAYS
def test_a_disk_that_hangs_when_mixmonitor_has_begun_stops_nothing(
    site: Site, hanging: HungDisk, serves: Serves
) -> None:
    """StopMixMonitor would make the call itself wait for the disk: Asterisk may record when it can."""
    with serves(site, on(hanging)):
        asterisk = channel(site)
        asterisk.creates_files = False

        def hang(mixmonitor: MixMonitor) -> None:
            hanging.hang()

        asterisk.before_mixmonitor = hang

        seconds = run(site, asterisk)

        assert asterisk.answers()["RECORDING_STATUS"] == "503"
        assert asterisk.answers()["RECORDING_ID"] != ""
        assert asterisk.executed("StopMixMonitor") == []
        assert seconds < start_record.FILE_SEEN_WITHIN_SECONDS + TOO_LONG
        hanging.answer()


@WAYS
def test_a_stop_is_503_and_asterisk_is_not_told_to_wait(
    site: Site, hanging: HungDisk, serves: Serves
) -> None:
    with serves(site, on(hanging)):
        asterisk = channel(site)
        run(site, asterisk)
        assert asterisk.running()
        hanging.hang()

        seconds = run(site, asterisk, "stop_record")

        assert asterisk.answers()["RECORDING_STATUS"] == "503"
        assert asterisk.running(), "it goes on"
        assert seconds < TOO_LONG
        hanging.answer()


def test_without_a_server_no_process_is_left_behind(site: Site, hanging: HungDisk) -> None:
    with nobody(site, on(hanging)):
        hanging.hang()

        run(site, channel(site))

        wait_until(lambda: not site.processes(), 10, "the end of all programs")
        assert " start_record 503 " in site.log()
        hanging.answer()


def place_refused(served: Served) -> float:
    """The seconds that a call waits for its 503."""
    begun = time.monotonic()
    assert network_call.place(served.port, served.site.key).status == "503"
    return time.monotonic() - begun


def test_more_fastagi_calls_than_threads_are_all_503_and_none_is_lost(
    site: Site, hanging: HungDisk, tell: Callable[[str], None]
) -> None:
    with Served(site, on(hanging)) as served, contextlib.ExitStack() as stack:
        assert network_call.place(served.port, site.key).status == "200"
        hanging.hang()
        calls = [stack.enter_context(NetworkCall(served.port, site.key)) for _ in range(CALLS)]
        begun = time.monotonic()

        network_call.finish_together(calls, TOO_LONG)

        tell(
            f"{CALLS} calls beside a hung disk, {THREADS} threads: 503 after {time.monotonic() - begun:.1f} s"
        )
        assert [call.status for call in calls] == ["503"] * CALLS
        slow = [place_refused(served) > disk.LIMIT_SECONDS for _ in range(5)]
        assert sum(slow) < len(served.workers()), "each process finds out once that the disk hangs"
        hanging.answer()
        wait_until(lambda: network_call.place(served.port, site.key).status == "200", 10, "a recording")
        wait_until(lambda: spooled.is_empty(hanging.path), 20, "an empty spool")
        assert {leg["status"] for leg in site.legs()} <= {"recording", "empty", "failed"}
