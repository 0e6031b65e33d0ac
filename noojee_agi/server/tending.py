"""What the drain process does beside the drain: former spools, and legs that ended without a word."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError
from noojee_agi.sync import housekeeping

logger = logging.getLogger(__name__)

_SILENT_LEGS_SECONDS = 60.0
_FAILED_LEGS_SECONDS = 3600.0
_WAIT_SECONDS = 5.0


class Tending:
    """In a thread, of which there is one, and waited for for some seconds: a former disk may hang.

    legs_were_closed: called in that thread.
    """

    def __init__(self, legs_were_closed: Callable[[], None]) -> None:
        self._legs_were_closed = legs_were_closed
        self._thread: threading.Thread | None = None
        self._failure: NoojeeError | OSError | None = None
        self._problems: list[str] = []
        self._silent_legs_at = 0.0
        self._failed_legs_at = 0.0

    def run_if_due(self, store: Store, config: Config, is_last: bool) -> None:
        """Once a minute. Raises NoojeeError and OSError, also those of the time before."""
        if time.monotonic() <= self._silent_legs_at:
            return
        if not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, args=(store, config, is_last), daemon=True)
            self._thread.start()
            self._thread.join(_WAIT_SECONDS)
        failure, self._failure = self._failure, None
        if failure:
            raise failure

    def _run(self, store: Store, config: Config, is_last: bool) -> None:
        """A problem that stays is told once."""
        now = time.monotonic()
        since = housekeeping.NONE
        self._silent_legs_at = now + _SILENT_LEGS_SECONDS  # also when it fails
        if now > self._failed_legs_at:
            self._failed_legs_at = now + _FAILED_LEGS_SECONDS
            since = housekeeping.LATELY
        try:
            done = housekeeping.run(store, config, is_last, since)
        except (NoojeeError, OSError) as exc:
            self._failure = exc
            return
        if done.closed:
            self._legs_were_closed()
        for problem in done.problems:
            if problem not in self._problems:
                logger.error(problem)
        self._problems = done.problems
