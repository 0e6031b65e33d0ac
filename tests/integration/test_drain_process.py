"""The server's process for the database, alone: what goes wrong in it is told, and told once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.site import Site
from lab.waiting import wait_until

from integration.recorder import forked
from noojee_agi.config import Config
from noojee_agi.errors import StoreUnavailable
from noojee_agi.server.counters import Counters
from noojee_agi.server.drain_process import DrainProcess
from noojee_agi.sync import housekeeping, renew_snapshot

AWAY = "sqlite:////nonexistent/folder/noojee.db"


@pytest.fixture
def known(tmp_path: Path) -> Config:
    return Config.load(str(Site(tmp_path / "site").conf))


@pytest.fixture
def pipe() -> Iterator[Callable[[], tuple[int, int]]]:
    """Makes pipes in which nobody waits."""
    with contextlib.ExitStack() as stack:

        def make() -> tuple[int, int]:
            ends = os.pipe2(os.O_NONBLOCK)
            for end in ends:
                stack.callback(os.close, end)
            return ends

        yield make


@pytest.fixture
def counters() -> Counters:
    return Counters(1)


@pytest.fixture
def drain_process(known: Config, counters: Counters) -> DrainProcess:
    """One that is not running, and has no pipes."""
    return DrainProcess(lambda: known, known, -1, -1, counters, [])


def test_a_snapshot_that_cannot_be_renewed_is_one_line_for_each_trouble(
    drain_process: DrainProcess, known: Config, counters: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        drain_process.use(known._replace(database_url=AWAY))
        for _ in range(3):
            drain_process._renew_snapshot()
        assert counters.report()["snapshot_trouble_since"]
        drain_process.use(known)
        drain_process._renew_snapshot()
        assert not counters.report()["snapshot_trouble_since"]

    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 2
    assert all(error.startswith("the snapshot cannot be renewed") for error in errors)


def test_what_nobody_foresaw_in_the_snapshot_s_thread_ends_the_process(
    known: Config, counters: Counters, pipe: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the server starts another, which it does for one that is killed, too."""

    def fail(*_: object) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(renew_snapshot, "run", fail)
    (events, _), (questions, ask), (lifeline, _) = pipe(), pipe(), pipe()
    os.write(ask, b"?")
    child = forked(lambda: DrainProcess(lambda: known, known, events, questions, counters, []).run(lifeline))

    def ended() -> tuple[int, int] | None:
        found = os.waitpid(child, os.WNOHANG)
        return found if found[0] else None

    try:
        _, status = wait_until(ended, 60, "the end of the drain process")
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    assert os.waitstatus_to_exitcode(status) == 1


def test_what_fails_beside_the_drain_is_not_tried_each_time(
    drain_process: DrainProcess, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All failed legs of a week, each 5 s."""
    tried = []

    def fail(*arguments: object) -> None:
        tried.append(arguments)
        raise StoreUnavailable("the database is away")

    monkeypatch.setattr(housekeeping, "run", fail)

    for _ in range(3):
        drain_process._drain(is_last=False)

    assert len(tried) == 1
    assert counters.report()["troubles"] == 1


def test_a_spool_that_cannot_be_read_is_named_and_ends_nothing(
    drain_process: DrainProcess, known: Config, counters: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    Path(known.spool_directory).write_text("a file where the folder should be")

    drain_process._drain(is_last=False)

    assert counters.report()["trouble_since"]
    (error,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert error.startswith("the spool cannot be read, tried again each 5 s: ")
    assert known.spool_directory in error


def test_a_file_that_is_closed_while_the_database_is_away_wakes_nobody(
    drain_process: DrainProcess, known: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be tried again nine times a second, since nobody reads then what inotify tells."""
    waited: list[tuple[list[int], float]] = []

    def wait(descriptors: list[int], lifeline: int, seconds: float) -> bool:
        waited.append((descriptors, seconds))
        drain_process.use(known._replace(database_url=AWAY))
        return len(waited) < 3

    monkeypatch.setattr("noojee_agi.server.drain_process._wait", wait)
    monkeypatch.setattr("noojee_agi.server.drain_process._empty", lambda pipe: False)
    monkeypatch.setattr("noojee_agi.server.drain_process.os.nice", lambda by: 0)
    monkeypatch.setattr("noojee_agi.server.sighup.on_sighup", lambda load, use: None)
    monkeypatch.setattr(drain_process, "_keep_snapshot", lambda lifeline: None)

    drain_process.run(-1)

    watched, away = waited[0], waited[1:]
    assert len(watched[0]) == 2
    assert away == [([-1], 5.0)] * 2
