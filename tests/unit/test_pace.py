"""The pace of answers to those who show no key."""

from __future__ import annotations

import asyncio
import time

from noojee_agi.web.pace import Pace


async def turns(count: int) -> list[float]:
    """When each had its turn, of those who came at one moment."""
    pace, begun = Pace(), time.monotonic()

    async def turn() -> float:
        await pace.turn()
        return time.monotonic() - begun

    return sorted(await asyncio.gather(*[turn() for _ in range(count)]))


def test_they_come_one_after_the_other() -> None:
    found = asyncio.run(turns(100))
    assert found[0] < 0.1
    assert found[-1] >= 0.99 * 0.005 * 99


def test_one_alone_waits_for_nothing() -> None:
    async def twice() -> float:
        pace = Pace()
        await pace.turn()
        await asyncio.sleep(0.01)
        begun = time.monotonic()
        await pace.turn()
        return time.monotonic() - begun

    assert asyncio.run(twice()) < 0.004


def test_those_for_whom_it_would_take_too_long_do_not_wait() -> None:
    found = asyncio.run(turns(1101))
    assert found[98] < 1
    assert 4.9 < found[-1] < 10
