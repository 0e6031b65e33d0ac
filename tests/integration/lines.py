"""The lines of ours that some work goes through, and its death at one of them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from integration.recorder import exit_code, forked

Line = tuple[str, int]


class Lines:
    """Counts how often each line of noojee_agi is come to."""

    def __init__(self) -> None:
        self.counts: dict[Line, int] = {}

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        if f"{os.sep}noojee_agi{os.sep}" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.come_to((frame.f_code.co_filename, frame.f_lineno))
        return self.trace

    def come_to(self, line: Line) -> None:
        self.counts[line] = self.counts.get(line, 0) + 1


class _KillAt(Lines):
    """Kills this process when it comes to this line for that time."""

    def __init__(self, line: Line, times: int) -> None:
        super().__init__()
        self._line, self._times = line, times

    def come_to(self, line: Line) -> None:
        super().come_to(line)
        if self.counts.get(self._line) == self._times:
            os.kill(os.getpid(), signal.SIGKILL)


def traced(trace: Any, work: Callable[[], object]) -> None:
    """In a process that ends with work."""
    sys.settrace(trace)
    work()
    sys.settrace(None)


def lines_of(work: Callable[[], object], report: Path) -> dict[Line, int]:
    """What work goes through, in a process of its own, and how often. report: a file that is made."""

    def count() -> None:
        lines = Lines()
        traced(lines.trace, work)
        report.write_text(json.dumps([[*line, count] for line, count in lines.counts.items()]))

    assert exit_code(forked(count)) == 0
    return {(file, line): count for file, line, count in json.loads(report.read_text())}


def first_and_last(counts: dict[Line, int]) -> list[tuple[Line, int]]:
    """Of each line, the first and the last time that it is come to."""
    return [(line, times) for line, count in counts.items() for times in sorted({1, count})]


def killed_at(line: Line, times: int, work: Callable[[], object]) -> int:
    """The exit code of a process that does work, and dies when it comes to that line for that time."""
    return exit_code(forked(lambda: traced(_KillAt(line, times).trace, work)))
