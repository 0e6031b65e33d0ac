"""What the whole machine has worked, whoever did it."""

from __future__ import annotations

import os
import time
from pathlib import Path

AT_REST = 0.2  # processors: when others have more than that, what is left for us says nothing of us
_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE, _IO_WAIT, _STEAL, _COUNTED = 3, 4, 7, 8  # proc(5), /proc/stat; guests count as user already


def busy_seconds() -> float:
    """Of all processors since the start of the machine: neither idle nor taken by another machine."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1 : 1 + _COUNTED]
    return sum(int(word) for at, word in enumerate(words) if at not in (_IDLE, _IO_WAIT, _STEAL)) / _TICKS


def load_at_rest(seconds: float) -> float:
    """How many processors are busy, on the average of that time, without us."""
    begun, busy = time.monotonic(), busy_seconds()
    time.sleep(seconds)
    return (busy_seconds() - busy) / (time.monotonic() - begun)
