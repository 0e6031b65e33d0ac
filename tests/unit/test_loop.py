"""The event loop: in time, in order, and woken by other threads."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from noojee_agi.server.loop import Loop

LIMIT_SECONDS = 5.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    made.call_later(LIMIT_SECONDS, made.stop)
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("seconds", [0.0, 0.0002, 0.003, 0.02])
def test_a_timer_is_never_early(loop: Loop, seconds: float) -> None:
    begun = time.monotonic()
    loop.call_later(seconds, loop.stop)

    loop.run_forever()

    assert seconds <= time.monotonic() - begun < LIMIT_SECONDS


def test_timers_go_by_their_time_and_then_in_their_order(loop: Loop) -> None:
    done: list[str] = []
    for seconds, name in ((0.02, "late"), (0.0, "first"), (0.0, "second")):
        loop.call_later(seconds, partial(done.append, name))
    loop.call_later(0.03, loop.stop)

    loop.run_forever()

    assert done == ["first", "second", "late"]


def test_what_a_callback_asks_for_comes_after_what_was_there(loop: Loop) -> None:
    done: list[str] = []

    def first() -> None:
        done.append("first")
        loop.call_soon(third)

    def third() -> None:
        done.append("third")
        loop.stop()

    loop.call_soon(first)
    loop.call_soon(lambda: done.append("second"))

    loop.run_forever()

    assert done == ["first", "second", "third"]


def test_another_thread_wakes_a_loop_that_has_nothing_to_do(loop: Loop) -> None:
    begun = time.monotonic()
    threading.Timer(0.02, loop.call_from_thread, [loop.stop]).start()

    loop.run_forever()

    assert time.monotonic() - begun < LIMIT_SECONDS


def test_a_descriptor_is_watched_until_it_is_not(loop: Loop, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    seen: list[bytes] = []

    def look() -> None:
        seen.append(os.read(reading, 1))
        if len(seen) == 2:
            loop.unwatch(reading)
            loop.call_later(0.01, loop.stop)

    loop.watch(reading, select.EPOLLIN, look)
    os.write(writing, b"abc")

    loop.run_forever()

    assert seen == [b"a", b"b"]


def test_what_was_never_watched_may_be_unwatched(loop: Loop, pipe: tuple[int, int]) -> None:
    loop.unwatch(pipe[0])


def test_a_descriptor_that_is_closed_too_early_does_no_harm(loop: Loop) -> None:
    reading, writing = os.pipe()
    loop.watch(reading, select.EPOLLIN, loop.stop)
    os.close(reading)
    loop.unwatch(reading)
    loop.call_soon(loop.stop)

    loop.run_forever()

    os.close(writing)
