"""Whatever a session waits for, another one on the same event loop goes to its end meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noojee_agi.actions import channel_lock
from noojee_agi.actions.result import Report
from noojee_agi.server.waiting import Sessions
from noojee_agi.session import session
from unit.fakes import FakeAsterisk, Site

LIMIT_SECONDS = 30.0


class Worker:
    """One loop; sessions that end are listed by their tag."""

    def __init__(self, site: Site) -> None:
        self.loop = asyncio.new_event_loop()
        self.sessions = Sessions(self.loop, 1)
        self.site = site
        self.ended: list[str] = []
        self.reports: dict[str, Report] = {}

    def begin(self, asterisk: FakeAsterisk, tag: str) -> None:
        def work() -> None:
            surroundings = self.site.surroundings._replace(
                pause=self.sessions.pause, in_thread=self.sessions.in_thread
            )
            call = session.Invocation("start_record", ["", tag])
            self.reports[tag] = session.run(asterisk.streams(), lambda channel: call, surroundings)
            self.ended.append(tag)

        self.sessions.begin(work)

    def finish(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """meanwhile: done once, when all sessions wait."""
        deadline = time.monotonic() + LIMIT_SECONDS

        def look() -> None:
            if not self.sessions or time.monotonic() > deadline:
                self.loop.stop()
            else:
                self.loop.call_later(0.001, look)

        self.loop.call_soon(meanwhile)
        self.loop.call_later(0.001, look)
        self.loop.run_forever()
        assert not self.sessions


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """Nobody may sleep there."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"the whole loop sleeps for {seconds} s")

    made = Worker(Site(tmp_path))
    monkeypatch.setattr(time, "sleep", sleep)
    yield made
    made.loop.close()


def another() -> FakeAsterisk:
    """A channel of another call."""
    environment = {**FakeAsterisk().environment, "agi_uniqueid": "1762420502.99"}
    return FakeAsterisk(environment, **{"CHANNEL(linkedid)": "1762420502.99"})


def assert_recorded(worker: Worker, *tags: str) -> None:
    assert worker.ended == list(tags)
    assert [(tag, worker.reports[tag].result.status, worker.reports[tag].failure) for tag in tags] == [
        (tag, 200, None) for tag in tags
    ]


def test_while_asterisk_has_not_created_the_file_yet(worker: Worker) -> None:
    slow = FakeAsterisk()
    slow.creates_files = False
    worker.begin(slow, "slow")
    worker.begin(another(), "quick")

    worker.finish(lambda: Path(slow.mixmonitors[0].file).touch())

    assert_recorded(worker, "quick", "slow")


def test_during_the_frame_without_a_mixmonitor(worker: Worker) -> None:
    again = FakeAsterisk()
    worker.begin(again, "first")
    worker.begin(again, "second")
    worker.begin(another(), "quick")

    worker.finish()

    assert_recorded(worker, "first", "quick", "second")


def test_while_somebody_else_has_the_lock_of_its_conversation(worker: Worker) -> None:
    worker.site.configure(manager_username="noojee")
    waiting = FakeAsterisk()
    with contextlib.ExitStack() as stack:
        stack.enter_context(channel_lock.of(worker.site.config.state_directory, "1762420501.76", time.sleep))
        worker.begin(waiting, "waiting")
        worker.begin(another(), "quick")

        worker.finish(stack.close)

    assert_recorded(worker, "quick", "waiting")
