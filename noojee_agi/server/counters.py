"""What the server's processes count, in memory that they share."""

import mmap
import threading
import time

# Of each worker; `failed` are sessions that ended with a status of 500 or more, and calls sent away.
SESSIONS, RUNNING, FAILED = range(3)
_PER_WORKER = 3
# Of the drain process: times in seconds of time.time(), 0 is never.
_DRAINED_AT, _TROUBLE_SINCE, _TROUBLES, _SNAPSHOT_TROUBLE_SINCE, _SEES_ENDS = range(5)
_OF_DRAIN = 5
_DOUBLE = 8


class Counters:
    """Made before the processes are forked; each worker has its own slot, so none waits for another."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._began_at = time.time()
        self._cells = memoryview(mmap.mmap(-1, (_OF_DRAIN + workers * _PER_WORKER) * _DOUBLE)).cast("d")
        self._lock = threading.Lock()

    def add(self, worker: int, what: int, number: int = 1) -> None:
        with self._lock:
            self._cells[_OF_DRAIN + worker * _PER_WORKER + what] += number

    def set(self, worker: int, what: int, number: int) -> None:
        self._cells[_OF_DRAIN + worker * _PER_WORKER + what] = number

    def drained(self) -> None:
        """The drain process has brought in what was there."""
        self._cells[_DRAINED_AT] = time.time()
        self._cells[_TROUBLE_SINCE] = 0

    def in_trouble(self) -> bool:
        """The drain process could not; whether that is new."""
        is_new = self._begins(_TROUBLE_SINCE)
        self._cells[_TROUBLES] += is_new
        return is_new

    def snapshot_renewed(self) -> None:
        self._cells[_SNAPSHOT_TROUBLE_SINCE] = 0

    def snapshot_in_trouble(self) -> bool:
        """It could not be renewed; whether that is new."""
        return self._begins(_SNAPSHOT_TROUBLE_SINCE)

    def set_sees_ends(self, does: bool) -> None:
        """Whether the drain process sees the end of each recording that begins from now on."""
        self._cells[_SEES_ENDS] = does

    def sees_ends(self) -> bool:
        return bool(self._cells[_SEES_ENDS])

    def report(self) -> dict[str, float]:
        """All of it, for `noojee-agi check`; times in seconds of time.time()."""
        return {
            "began_at": self._began_at,
            "sessions": self._sum(SESSIONS),
            "running": self._sum(RUNNING),
            "failed": self._sum(FAILED),
            "drained_at": self._cells[_DRAINED_AT],
            "trouble_since": self._cells[_TROUBLE_SINCE],
            "troubles": self._cells[_TROUBLES],
            "snapshot_trouble_since": self._cells[_SNAPSHOT_TROUBLE_SINCE],
            "sees_ends": self._cells[_SEES_ENDS],
        }

    def _begins(self, trouble: int) -> bool:
        """Whether this trouble is new; from now on it is not."""
        is_new = not self._cells[trouble]
        if is_new:
            self._cells[trouble] = time.time()
        return is_new

    def _sum(self, what: int) -> float:
        return sum(self._cells[_OF_DRAIN + what :: _PER_WORKER])
