"""[recordings] keep_days: once a day the audio that is older goes."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

from noojee_agi.config import Config
from noojee_agi.database.queries import Filter
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import recording
from noojee_agi.sync import opening, purge

logger = logging.getLogger(__name__)

_EACH_SECONDS = 86400.0
_AGAIN_SECONDS = 3600.0
_PAUSE_SECONDS = 1.0  # between the batches: drains need the same lock


class Purging:
    """In a thread of its own, which may be ended at any moment: the first time may take hours."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._due_at = 0.0

    def run_if_due(self, config: Config) -> None:
        is_at_work = self._thread is not None and self._thread.is_alive()
        if config.recordings_keep_days and not is_at_work and time.monotonic() >= self._due_at:
            self._due_at = time.monotonic() + _EACH_SECONDS
            self._thread = threading.Thread(target=self._run, args=(config,), daemon=True)
            self._thread.start()

    def _run(self, config: Config) -> None:
        days = config.recordings_keep_days
        wanted = Filter(started_to=recording.now() - timedelta(days=days))
        try:
            store = opening.open_database(config)
            done = purge.run(store, config, wanted, f"keep_days = {days}", _let_others_work)
        except (NoojeeError, OSError) as exc:
            self._due_at = time.monotonic() + _AGAIN_SECONDS
            logger.error("old recordings cannot be purged, tried again in an hour: %s", exc)
            return
        if done.purged:
            logger.info("%d recordings purged, %d bytes: older than %d days", done.purged, done.bytes, days)
        for file, why in done.left_alone.items():
            logger.error("%s is not purged: %s", file, why)


def _let_others_work(count: int) -> None:
    time.sleep(_PAUSE_SECONDS)
