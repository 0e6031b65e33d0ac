"""Who has shown no right key is answered one after the other: no flood of his takes all of a processor."""

from __future__ import annotations

import asyncio
import time

_SECONDS = 0.005
_LONGEST_SECONDS = 5.0  # so many may wait; those beyond them would only hold more connections


class Pace:
    def __init__(self) -> None:
        self._next_at = 0.0

    async def turn(self) -> None:
        now = time.monotonic()
        turn_at = max(now, self._next_at)
        if turn_at - now > _LONGEST_SECONDS:
            return
        self._next_at = turn_at + _SECONDS
        if turn_at > now:
            await asyncio.sleep(turn_at - now)
