"""What a recorded call costs in processor beside MixMonitor alone, in turns in one run on a real Asterisk.

The goal, twice MixMonitor's, is missed, and the figures say so. What fails is to cost more than it did,
in Pythons that do nothing: what disturbs one disturbs the other, and MixMonitor alone is hardly disturbed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lab.unavailable import LabUnavailable

from bench import places, recorded_calls
from bench.recorded_calls import WAYS, Costs
from bench.ways import FASTAGI, HANDED_OVER, NOTHING, Way

ROUNDS, CALLS = 3, 400

pytestmark = [pytest.mark.asterisk, pytest.mark.alone, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def costs(is_long: bool) -> Costs:
    if not is_long:
        pytest.skip("takes minutes: run with --long")
    with places.in_memory() as where:
        measured = recorded_calls.measure(where, ROUNDS, CALLS)
    print(recorded_calls.text(measured))
    return measured


# Counted: 0.24 and 1.1; with a program for each end of a recording it was 1.1 to 1.5 and 2.7 to 3.7.
@pytest.mark.parametrize(("way", "limit"), [(FASTAGI, 0.5), (HANDED_OVER, 2)], ids=["fastagi", "handed_over"])
def test_a_recorded_call_does_not_cost_more_of_the_processor_than_it_did(
    costs: Costs, way: Way, limit: float
) -> None:
    assert recorded_calls.ratio(costs, way, recorded_calls.of_processes, NOTHING) <= limit


@pytest.mark.parametrize("way", WAYS, ids=[way.extension for way in WAYS])
def test_every_call_is_recorded(costs: Costs, way: Way) -> None:
    if not recorded_calls.rested(costs):
        raise LabUnavailable("others work on this machine, which may be too slow for so many calls a second")
    assert recorded_calls.failures(costs, way) == 0


def test_the_goal_is_told(costs: Costs, tell: Callable[[str], None]) -> None:
    tell(recorded_calls.verdict(costs))
