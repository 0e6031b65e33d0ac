"""Waits for a condition with a limit, in place of a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02
PATIENCE = 4  # asking takes a fifth of a processor at most: the rest is for what is waited for
LONGEST_SECONDS = 0.25


def wait_until(
    condition: Callable[[], T | None],
    limit: float = 20.0,
    what: str = "the condition",
    instead: Callable[[], object] = str,
    pause: float = POLL_SECONDS,
) -> T:
    """Return the first true value of condition; AssertionError when there is none in `limit` seconds.

    instead: what there is then, for the error's message. pause: seconds between two questions, or more.
    """
    end = time.monotonic() + limit
    while True:
        asked = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now >= end:
            raise AssertionError(f"waited {limit:g} seconds in vain for {what}: {instead()}")
        time.sleep(max(pause, min(PATIENCE * (now - asked), LONGEST_SECONDS)))
