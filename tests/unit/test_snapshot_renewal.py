"""Sessions that wait for a newer snapshot: together, never longer than a second, and no queue of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from noojee_agi.config import Config
from noojee_agi.recordings import recording
from noojee_agi.recordings.snapshot import Snapshot
from noojee_agi.server import snapshot_renewal
from noojee_agi.server.snapshot_renewal import SnapshotRenewal
from noojee_agi.server.waiting import Sessions
from noojee_agi.session import background

MANY = 50
LONG_SECONDS = 10.0


class Asking:
    """Sessions of one loop; we are the drain process, and `snapshot` is what it has written."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.sessions = Sessions(self.loop, 1)
        self.snapshot: Snapshot | None = None
        self.questions = 0
        self.waits: list[float] = []
        self._renew = SnapshotRenewal(self.loop, lambda path: self.snapshot, self._ask)

    def _ask(self) -> None:
        self.questions += 1

    def begin(self, count: int) -> None:
        """So many sessions ask at once."""

        def ask() -> None:
            begun = time.monotonic()
            self._renew(Config())
            self.waits.append(time.monotonic() - begun)

        for _ in range(count):
            self.sessions.begin(ask)

    def answer(self) -> None:
        self.snapshot = Snapshot("", frozenset(), recording.now())

    def run(self, is_over: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds

        def look() -> None:
            if is_over() or time.monotonic() > deadline:
                self.loop.stop()
            else:
                self.loop.call_later(0.001, look)

        look()
        self.loop.run_forever()

    def finish(self) -> None:
        self.run(lambda: not self.sessions)
        assert not self.sessions


@pytest.fixture
def asking() -> Iterator[Asking]:
    made = Asking()
    yield made
    made.loop.close()


@pytest.fixture
def _long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for so long that a busy machine answers within half of it."""
    monkeypatch.setattr(snapshot_renewal, "READ_WITHIN_SECONDS", LONG_SECONDS)


@pytest.mark.usefixtures("_long_patience")
def test_everybody_waits_for_a_database_that_answers(asking: Asking) -> None:
    asking.begin(MANY)
    assert (asking.questions, asking.waits) == (MANY, [])
    asking.answer()
    asking.finish()

    assert len(asking.waits) == MANY
    assert max(asking.waits) < LONG_SECONDS / 2


@pytest.mark.usefixtures("_long_patience")
def test_what_was_read_before_somebody_asked_is_no_answer_for_him(asking: Asking) -> None:
    asking.begin(1)
    asking.snapshot = Snapshot("", frozenset(), recording.now() - timedelta(seconds=1))
    asking.run(lambda: bool(asking.waits), 0.25)
    assert asking.waits == []

    asking.answer()
    asking.finish()

    assert asking.waits[0] < LONG_SECONDS / 2


def test_nobody_waits_longer_than_a_second_and_nobody_just_after_that(asking: Asking) -> None:
    asking.begin(MANY)
    asking.finish()
    assert min(asking.waits) >= background.READ_WITHIN_SECONDS

    asked = asking.questions
    asking.begin(MANY)

    assert (asking.questions, len(asking.waits)) == (asked, 2 * MANY)
    assert not asking.sessions
