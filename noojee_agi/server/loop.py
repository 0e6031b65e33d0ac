"""The event loop of a worker: epoll(7), timers, and what threads have done.

asyncio's would do; this one has less to do for each event, and its timers are exact below a millisecond.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import time
from collections import deque
from collections.abc import Callable

Callback = Callable[[], object]

_SHORT_SECONDS = 0.001  # epoll_wait(2) counts in milliseconds
_LONGEST_SECONDS = 3600.0


class Loop:
    """Calls back, one after the other, in the thread that runs it; another may only call call_from_thread().

    What a callback raises ends the loop.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callback] = {}
        self._soon: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Callback]] = []
        self._number = itertools.count()  # of timers: those of one moment go in their order
        self._runs = False
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._bell, select.EPOLLIN, self._silence)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._bell)

    def watch(self, descriptor: int, event: int, callback: Callback) -> None:
        """Call back whenever there is this event, or an error, until unwatch(). Raises OSError."""
        self._epoll.register(descriptor, event)
        self._watched[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        """Before it is closed."""
        if self._watched.pop(descriptor, None):
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)

    def call_soon(self, callback: Callback) -> None:
        """After what has come until now."""
        self._soon.append(callback)

    def call_later(self, seconds: float, callback: Callback) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._number), callback))

    def call_from_thread(self, callback: Callback) -> None:
        self._soon.append(callback)
        os.eventfd_write(self._bell, 1)

    def run_forever(self) -> None:
        """Until stop()."""
        self._runs = True
        while self._runs:
            for descriptor, _ in self._come():
                if callback := self._watched.get(descriptor):
                    callback()
            self._be_in_time()
            # Only now: what ends here may leave its descriptor to another, of which nothing has come yet.
            for _ in range(len(self._soon)):
                self._soon.popleft()()

    def stop(self) -> None:
        self._runs = False

    def _come(self) -> list[tuple[int, int]]:
        """What has come; when there is nothing, and nothing else to do, it is waited for."""
        if self._soon:
            return self._epoll.poll(0)
        seconds = self._timers[0][0] - time.monotonic() if self._timers else _LONGEST_SECONDS
        if 0 < seconds < _SHORT_SECONDS:
            select.select([self._epoll], [], [], seconds)
            seconds = 0
        return self._epoll.poll(max(seconds, 0))

    def _be_in_time(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._soon.append(heapq.heappop(self._timers)[2])

    def _silence(self) -> None:
        os.eventfd_read(self._bell)
