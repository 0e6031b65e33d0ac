"""What processes have used of the processor, those included that have outlived who started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lab import processes
from lab.waiting import wait_until

STILL_SECONDS = 0.25  # longer than a server's drain waits for further events before it works
STILL_USES = 0.005  # seconds meanwhile: a process that waits may still look at its clock
_TICKS = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # with a process id, the clock that clock_getcpuclockid(3) would return
_SET_CHILD_SUBREAPER = 36  # prctl(2)


def seconds(targets: Iterable[int]) -> float:
    """What these processes and their descendants have used until now, with children that have ended."""
    return sum(_seconds(process) for target in targets for process in tree(target))


def wait_until_still(targets: Sequence[int], limit: float) -> None:
    """Until these processes and their descendants only wait themselves, for clients or for the clock."""

    def is_still() -> bool:
        used = seconds(targets)
        time.sleep(STILL_SECONDS)
        return seconds(targets) - used < STILL_USES

    wait_until(is_still, limit, "processes that do nothing any more")


def tree(process: int) -> list[int]:
    """It and its descendants."""
    return [process, *(each for child in processes.children(process) for each in tree(child))]


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Meanwhile every orphan among our descendants, such as a drain in the background, becomes our child.

    Nobody else could say what it has used, once it has ended.
    """
    _adopt(True)
    try:
        yield
    finally:
        _adopt(False)
        seconds_of_orphans()


def seconds_of_orphans() -> float:
    """What the children have used that have ended and were never asked for, with their descendants.

    It may be called only while all processes run that we have started ourselves and still want to wait for.
    """
    total = 0.0
    with contextlib.suppress(ChildProcessError):
        while (ended := os.wait4(-1, os.WNOHANG))[0]:
            total += ended[2].ru_utime + ended[2].ru_stime
    return total


def _adopt(on: bool) -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (on, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _seconds(process: int) -> float:
    """That of its threads, ended or not, and of the children that it has waited for."""
    try:
        own = time.clock_gettime(~process << 3 | _CPUCLOCK_SCHED)
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # it has just ended: its parent has the time
    return own + sum(map(int, words[13:15])) / _TICKS  # cutime and cstime of proc(5)
