"""The goals of each way: shares of what the alternatives take in the same run, never seconds."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from bench import hold, places
from bench.hold import Holds
from bench.ways import FASTAGI, HANDED_OVER, NOTHING, PLAIN, STRAIGHTFORWARD, Way

ATTEMPTS = range(3)  # other work on the machine may spoil a run; too slow a program fails in all of them
ROUNDS = 7
# The goal is 1/5, and a hundred calls of the bench come to 0.19 (README). Amid other tests all that is short
# suffers more than what it is compared with.
FASTAGI_GOAL = 1 / 4

pytestmark = [pytest.mark.asterisk, pytest.mark.alone]

Run = Callable[[int], Holds]


@pytest.fixture(scope="module")
def run() -> Run:
    """The n-th whole measurement; made when it is first asked for."""

    @functools.cache
    def measure(attempt: int) -> Holds:
        with places.make() as where:
            holds = hold.measure(where, ROUNDS, bursts=0)
        print(hold.text(holds))
        return holds

    return measure


@pytest.mark.parametrize(
    ("way", "goal", "alternative"),
    [(PLAIN, 1 / 5, STRAIGHTFORWARD), (HANDED_OVER, 1.5, NOTHING), (FASTAGI, FASTAGI_GOAL, NOTHING)],
    ids=["plain", "handed_over", "fastagi"],
)
def test_holds_the_call_for_this_share_of_the_alternative_at_most(
    run: Run, way: Way, goal: float, alternative: Way
) -> None:
    shares = (hold.best(run(n).calls[way.name]) / hold.best(run(n).calls[alternative.name]) for n in ATTEMPTS)
    assert any(share <= goal for share in shares)


def test_plain_records_in_a_third_of_the_time_that_straightforward_needs_at_most(run: Run) -> None:
    shares = (
        hold.until_recording(run(n).calls[PLAIN.name])
        / hold.until_recording(run(n).calls[STRAIGHTFORWARD.name])
        for n in ATTEMPTS
    )
    assert any(share <= 1 / 3 for share in shares)
