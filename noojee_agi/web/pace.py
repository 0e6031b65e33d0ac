"""Who has shown no right key is answered one after the other: no flood of his takes all of a processor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_SECONDS = 0.005
_LONGEST_SECONDS = 5.0  # so many may wait; those beyond them would only hold more connections


class Pace:
    """now: the clock, in seconds. pause: waits so many seconds."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._now = now
        self._pause = pause
        self._next_at = 0.0

    async def turn(self) -> None:
        now = self._now()
        turn_at = max(now, self._next_at)
        if turn_at - now > _LONGEST_SECONDS:
            return
        self._next_at = turn_at + _SECONDS
        if turn_at > now:
            await self._pause(turn_at - now)
