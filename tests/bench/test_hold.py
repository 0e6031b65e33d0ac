"""The plain way's goals: shares of what the alternatives take in the same run, never seconds."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from bench import hold
from bench.hold import PLAIN, STRAIGHTFORWARD, Holds

ATTEMPTS = range(3)  # other work on the machine may spoil a run; too slow a program fails in all of them
ROUNDS = 9

pytestmark = [pytest.mark.asterisk, pytest.mark.alone]

Run = Callable[[int], Holds]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The n-th whole measurement; made when it is first asked for."""

    @functools.cache
    def measure(attempt: int) -> Holds:
        holds = hold.measure(tmp_path_factory.mktemp(f"run{attempt}"), ROUNDS)
        print(hold.table(holds))
        return holds

    return measure


def test_plain_holds_the_call_for_a_fifth_of_straightforward_at_most(run: Run) -> None:
    ratios = (hold.median(run(n)[PLAIN.name]) / hold.median(run(n)[STRAIGHTFORWARD.name]) for n in ATTEMPTS)
    assert any(ratio <= 1 / 5 for ratio in ratios)


def test_plain_records_in_a_third_of_the_time_that_straightforward_needs_at_most(run: Run) -> None:
    ratios = (
        hold.until_recording(run(n)[PLAIN.name]) / hold.until_recording(run(n)[STRAIGHTFORWARD.name])
        for n in ATTEMPTS
    )
    assert any(ratio <= 1 / 3 for ratio in ratios)
