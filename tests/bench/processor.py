"""What processes have used of the processor, those included that have outlived who started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from lab import processes

STILL_SECONDS = 0.25  # longer than a server's drain waits for further events before it works
STILL_USES = 0.005  # seconds meanwhile: a process that waits may still look at its clock
_LOOKS = 4  # meanwhile, and no more: somebody may measure the whole machine
_TICKS = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # with a process id, the clock that clock_getcpuclockid(3) would return
_SET_CHILD_SUBREAPER = 36  # prctl(2)


def seconds(targets: Iterable[int]) -> float:
    """What these processes and their descendants have used until now, with children that have ended."""
    return sum(map(_seconds, processes.with_descendants(targets)))


def wait_until_still(
    targets: Callable[[], Sequence[int]],
    limit: float,
    still: float = STILL_SECONDS,
    uses: float = STILL_USES,
) -> None:
    """Until these processes, the same for so long, and their descendants only wait themselves."""
    end = time.monotonic() + limit
    found = targets()
    since, used = time.monotonic(), seconds(found)
    while time.monotonic() - since < still:
        assert time.monotonic() < end, (
            f"waited {limit:g} seconds in vain for processes that do nothing any more"
        )
        time.sleep(still / _LOOKS)
        found_now = targets()
        used_now = seconds(found_now)
        if found_now != found or used_now - used >= uses:
            found, since, used = found_now, time.monotonic(), used_now


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
