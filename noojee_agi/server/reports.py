"""What comes of a worker's sessions: counted, logged, and told to the drain process."""

from __future__ import annotations

import contextlib
import os

from noojee_agi import log
from noojee_agi.actions.result import Report
from noojee_agi.actions.start_record import OK
from noojee_agi.server.counters import Counters


class Reports:
    """Of the worker of this number. events: a pipe in which each byte tells of new events."""

    def __init__(self, numbers: Counters, worker: int, events: int) -> None:
        self._numbers = numbers
        self._worker = worker
        self._events = events

    def count(self, what: int, number: int) -> None:
        self._numbers.add(self._worker, what, number)

    def add(self, report: Report, asked_by: str = "") -> None:
        """Of a session whose caller waits no more. asked_by: for the log, where it was no call."""
        result, seconds = report.result, report.milliseconds / 1000
        self._numbers.add_session(self._worker, report.program, result.status, seconds)
        log.session(report, asked_by)
        if result.leg_id or result.status == OK:
            self.tell_of_events()

    def tell_of_events(self) -> None:
        tell(self._events)


def tell(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):  # it has been told often enough
        os.write(pipe, b"!")
