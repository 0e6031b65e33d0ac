"""A session's straight-line code on an event loop: it runs in a greenlet, and while it waits, others go on.

Each function here is called within a session, and switches to the loop; the loop switches back.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar, cast

from greenlet import getcurrent, greenlet

from noojee_agi.asterisk.stream import poll
from noojee_agi.server.loop import Loop

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[], None]

_LOOK_SECONDS = 0.05
_NOTHING = "nothing"
_MOST_IDLE = 64


class Waiting(greenlet):
    """A session, then the next, and what it waits for. deadline: of the event, by time.monotonic()."""

    def __init__(self, loop: Loop, run: Callable[[Work], None]) -> None:
        super().__init__(run)
        self.deadline = 0.0
        self.number = 0  # of its sessions
        self._loop = loop
        self._read_from = -1  # the descriptor of which the loop tells
        self._for: object = _NOTHING

    def for_event(self, descriptor: int, event: int, seconds: float) -> bool:
        """As stream.Wait."""
        if event == select.POLLOUT:
            return self._for_room(descriptor, seconds)
        if self._read_from != descriptor:
            self.stop_reading()
            self._loop.watch(descriptor, select.EPOLLIN, self._is_readable)
            self._read_from = descriptor
        return self._until(event, seconds)

    def stop_reading(self) -> None:
        """Before the descriptor is closed, or is somebody else's."""
        if self._read_from >= 0:
            self._loop.unwatch(self._read_from)
            self._read_from = -1

    def give_up(self) -> None:
        """Whatever event it waits for, its time is over; any session may say so of another.

        Only the loop switches: a session that ends goes back to the loop, and not to who has switched to it.
        """
        self._loop.call_soon(partial(self._is_given_up, self.number))

    def _is_given_up(self, number: int) -> None:
        if self.number == number and self._for in (select.POLLIN, select.POLLOUT):
            self.switch(False)

    def _for_room(self, descriptor: int, seconds: float) -> bool:
        if poll(descriptor, select.POLLOUT, 0):
            return True
        if self._read_from == descriptor:
            self.stop_reading()
        self._loop.watch(descriptor, select.EPOLLOUT, self._is_writable)
        try:
            return self._until(select.POLLOUT, seconds)
        finally:
            self._loop.unwatch(descriptor)

    def _until(self, event: int, seconds: float) -> bool:
        self.deadline = time.monotonic() + seconds
        return bool(self.switch_to_loop(event))

    def switch_to_loop(self, event: object) -> object:
        """Until somebody switches back."""
        assert self.parent is not None
        self._for = event
        try:
            return self.parent.switch()
        finally:
            self._for = _NOTHING

    def _is_readable(self) -> None:
        if self._for == select.POLLIN:
            self.switch(True)
        else:  # it does something else: what comes meanwhile stays in the kernel
            self.stop_reading()

    def _is_writable(self) -> None:
        if self._for == select.POLLOUT:
            self.switch(True)


def current() -> Waiting:
    """The session that calls."""
    return cast(Waiting, getcurrent())


def wait_for_event(descriptor: int, event: int, seconds: float) -> bool:
    """As stream.Wait."""
    return current().for_event(descriptor, event, seconds)


class _Alone:
    """What nobody foresaw ends one session, and no other."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> bool:
        if isinstance(failure, Exception):
            logger.error("a session has failed", exc_info=failure)
        return isinstance(failure, Exception)


class Sessions:
    """All that run on one loop. threads: how many may block at the same time."""

    def __init__(self, loop: Loop, threads: int) -> None:
        self._loop = loop
        self._threads = ThreadPoolExecutor(threads, "blocking")
        self._running: set[Waiting] = set()
        self._idle: list[Waiting] = []  # a greenlet that is used again has its stack already
        self._looks = False

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, work: Work) -> None:
        """Run work as far as it goes without waiting; the rest later."""
        session = self._idle.pop() if self._idle else Waiting(self._loop, self._run)
        session.number += 1
        self._running.add(session)
        if not self._looks:
            self._looks = True
            self._loop.call_later(_LOOK_SECONDS, self._look)
        session.switch(work)

    def _run(self, work: Work) -> None:
        """In a greenlet: one session after the other."""
        session = current()
        assert session.parent is not None
        while True:
            with _Alone():
                work()
            session.stop_reading()
            self._running.discard(session)
            if len(self._idle) >= _MOST_IDLE:
                return
            self._idle.append(session)
            work = session.parent.switch()

    def pause(self, seconds: float) -> None:
        """As time.sleep."""
        session = current()
        self._loop.call_later(seconds, session.switch)
        session.switch_to_loop(seconds)

    def in_thread(self, work: Callable[[], T]) -> T:
        """Do what may block in a thread; the session waits for it, and nobody else."""
        session = current()
        future = self._threads.submit(work)
        future.add_done_callback(lambda _: self._loop.call_from_thread(session.switch))
        session.switch_to_loop(future)
        return future.result()

    def _look(self) -> None:
        """For those whose time is over."""
        now = time.monotonic()
        for session in [each for each in self._running if each.deadline < now]:
            session.give_up()
        self._looks = bool(self._running)
        if self._looks:
            self._loop.call_later(_LOOK_SECONDS, self._look)
