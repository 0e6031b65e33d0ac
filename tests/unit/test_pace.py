"""The pace of answers to those who show no key."""

from __future__ import annotations

import asyncio

import pytest

from noojee_agi.web.pace import Pace


class Clock:
    """Stands still; waits: how long each had to wait who had to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    async def pause(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(lambda: clock.now, clock.pause)


def come(pace: Pace, count: int) -> None:
    for _ in range(count):
        asyncio.run(pace.turn())


def test_those_who_come_at_one_moment_come_one_after_the_other(clock: Clock, pace: Pace) -> None:
    come(pace, 4)

    assert clock.waits == pytest.approx([0.005, 0.010, 0.015])


def test_who_comes_later_waits_for_nothing(clock: Clock, pace: Pace) -> None:
    come(pace, 1)
    clock.now += 0.006
    come(pace, 1)

    assert clock.waits == []


def test_those_for_whom_it_would_take_too_long_do_not_wait(clock: Clock, pace: Pace) -> None:
    come(pace, 1200)

    assert len(clock.waits) == 1000
    assert max(clock.waits) == pytest.approx(5.0)


def test_in_real_time_they_wait_as_well() -> None:
    real = Pace()

    async def three() -> float:
        begun = asyncio.get_running_loop().time()
        await asyncio.gather(*[real.turn() for _ in range(3)])
        return asyncio.get_running_loop().time() - begun

    assert asyncio.run(three()) > 0.009
