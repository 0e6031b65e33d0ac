"""No caller waits for the database, whatever it does: shares of what a healthy one takes in the same run."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from bench import conditions, places, sides
from bench.conditions import CONDITIONS, HEALTHY, Holds
from bench.ways import FASTAGI, HANDED_OVER, PLAIN, Way

ATTEMPTS = range(3)  # other work on the machine may spoil a run; who waits does so in all of them
CALLS = 4
NOISE = 1.3
WAYS = (PLAIN, HANDED_OVER, FASTAGI)

pytestmark = [pytest.mark.asterisk, pytest.mark.alone]

Run = Callable[[int], Holds]


@pytest.fixture(scope="module")
def run() -> Run:
    """The n-th whole measurement; made when it is first asked for."""

    @functools.cache
    def measure(_attempt: int) -> Holds:
        with places.make() as where, sides.running(where) as running:
            holds = conditions.measure(running, turns=1, calls=CALLS, ways=WAYS)
        print(conditions.text(holds))
        return holds

    return measure


@pytest.mark.parametrize("condition", [name for name in CONDITIONS if name != HEALTHY])
@pytest.mark.parametrize("way", WAYS, ids=[way.extension for way in WAYS])
def test_a_database_that_is_away_holds_no_call(run: Run, way: Way, condition: str) -> None:
    assert any(conditions.ratio(run(n), condition, way) <= NOISE for n in ATTEMPTS)
