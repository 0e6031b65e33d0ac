"""Before a wrong key is refused, the drain process reads the database; sessions wait for it together."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial

from noojee_agi.config import Config
from noojee_agi.recordings import recording, snapshot
from noojee_agi.recordings.snapshot import Snapshot
from noojee_agi.server import waiting
from noojee_agi.server.loop import Loop
from noojee_agi.server.waiting import Waiting
from noojee_agi.session.background import READ_WITHIN_SECONDS

_LOOK_SECONDS = 0.005


class SnapshotRenewal:
    """One for each loop. ask: tells the drain process that a newer snapshot is wanted.

    Called with the configuration in a session, it waits for one second at most. After a question without an
    answer nobody asks for some seconds: the database is away, and what is known must do.
    """

    def __init__(
        self,
        loop: Loop,
        load: Callable[[str], Snapshot | None],
        ask: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._load = load
        self._ask = ask
        self._ask_again_at = 0.0
        self._waiting: dict[Waiting, tuple[datetime, float]] = {}  # since when, and until time.monotonic()

    def __call__(self, config: Config) -> None:
        now = time.monotonic()
        if now < self._ask_again_at:
            return
        self._ask()
        if not self._waiting:
            self._loop.call_later(_LOOK_SECONDS, partial(self._look, config.snapshot_file))
        session = waiting.current()
        self._waiting[session] = (recording.now(), now + READ_WITHIN_SECONDS)
        session.switch_to_loop(self)

    def _look(self, path: str) -> None:
        """Who came before the database was read knows enough now."""
        known, now = self._load(path), time.monotonic()
        for session, (since, until) in list(self._waiting.items()):
            is_answered = known is not None and known.read_at >= since
            if not is_answered and now >= until:
                self._ask_again_at = now + snapshot.FRESH_SECONDS
            if is_answered or now >= until:
                del self._waiting[session]
                session.switch()
        if self._waiting:
            self._loop.call_later(_LOOK_SECONDS, partial(self._look, path))
