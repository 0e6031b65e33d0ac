"""What the server's processes count, in memory that they share."""

import mmap
import threading
import time
from bisect import bisect_left

from noojee_agi.session.session import ACTIONS
from noojee_agi.web.readings import Counted, Histogram

# Of each worker; `failed` are sessions that ended with a status of 500 or more, and calls sent away.
RUNNING, FAILED = range(2)
# Of each program of a worker: its sessions by status, and how long they held their callers. What the network
# names beside our programs is one of OTHER, so that nobody outside can make this grow.
OTHER = "other"
PROGRAMS = (*ACTIONS, OTHER)
STATUSES = (200, 400, 401, 403, 404, 409, 500, 503, 507)
HOLD_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DRAIN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_FAILURE = 500
_HOLDS = len(STATUSES)
_HOLD_SUM = _HOLDS + len(HOLD_SECONDS) + 1
_PER_PROGRAM = _HOLD_SUM + 1
_PROGRAMS = 2
_PER_WORKER = _PROGRAMS + len(PROGRAMS) * _PER_PROGRAM
# Where the cells of each begin: a program's in a worker's, a status's in a program's.
_ROWS = {program: _PROGRAMS + number * _PER_PROGRAM for number, program in enumerate(PROGRAMS)}
_COLUMNS = {status: column for column, status in enumerate(STATUSES)}
_OTHER_ROW, _FAILURE_COLUMN = _ROWS[OTHER], _COLUMNS[_FAILURE]
# Of the drain process, and whether the server ends; times in seconds of time.time(), 0 is never.
_DRAINED_AT, _TROUBLE_SINCE, _TROUBLES, _SNAPSHOT_TROUBLE_SINCE, _SEES_ENDS, _ENDING, _DRAINS = range(7)
_DRAIN_SUM = _DRAINS + len(DRAIN_SECONDS) + 1
_OF_DRAIN = _DRAIN_SUM + 1
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

    def add_session(self, worker: int, program: str, status: int, seconds: float) -> None:
        """One that has ended, and held its caller for so long."""
        cells, row = self._cells, _OF_DRAIN + worker * _PER_WORKER + _ROWS.get(program, _OTHER_ROW)
        with self._lock:
            cells[row + _COLUMNS.get(status, _FAILURE_COLUMN)] += 1
            cells[row + _HOLDS + bisect_left(HOLD_SECONDS, seconds)] += 1
            cells[row + _HOLD_SUM] += seconds
        if status >= _FAILURE:
            self.add(worker, FAILED)

    def add_drain(self, seconds: float) -> None:
        """One that has stored something."""
        self._cells[_DRAINS + bisect_left(DRAIN_SECONDS, seconds)] += 1
        self._cells[_DRAIN_SUM] += seconds

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

    def end(self) -> None:
        """From now on it does not: the server ends, and the drain process with it."""
        self._cells[_ENDING] = True

    def sees_ends(self) -> bool:
        return bool(self._cells[_SEES_ENDS] and not self._cells[_ENDING])

    def report(self) -> dict[str, float]:
        """All of it, for `noojee-agi check`; times in seconds of time.time()."""
        return {
            "began_at": self._began_at,
            "sessions": sum(self._sessions().values()),
            "running": self._sum(RUNNING),
            "failed": self._sum(FAILED),
            "drained_at": self._cells[_DRAINED_AT],
            "trouble_since": self._cells[_TROUBLE_SINCE],
            "troubles": self._cells[_TROUBLES],
            "snapshot_trouble_since": self._cells[_SNAPSHOT_TROUBLE_SINCE],
            "sees_ends": float(self.sees_ends()),
        }

    def counted(self) -> Counted:
        """The same for /metrics, and more."""
        drains = Histogram(DRAIN_SECONDS, self._cells[_DRAINS:_DRAIN_SUM].tolist(), self._cells[_DRAIN_SUM])
        holds = {program: self._holds(row) for program, row in _ROWS.items()}
        return Counted(self._sessions(), self._sum(RUNNING), holds, drains, self._cells[_DRAINED_AT])

    def _sessions(self) -> dict[tuple[str, str], float]:
        return {
            (program, str(status)): self._sum(row + column)
            for program, row in _ROWS.items()
            for status, column in _COLUMNS.items()
        }

    def _holds(self, row: int) -> Histogram:
        counts = [self._sum(row + cell) for cell in range(_HOLDS, _HOLD_SUM)]
        return Histogram(HOLD_SECONDS, counts, self._sum(row + _HOLD_SUM))

    def _begins(self, trouble: int) -> bool:
        """Whether this trouble is new; from now on it is not."""
        is_new = not self._cells[trouble]
        if is_new:
            self._cells[trouble] = time.time()
        return is_new

    def _sum(self, what: int) -> float:
        return sum(self._cells[_OF_DRAIN + what :: _PER_WORKER])
