"""Who hears little gets it as fast as who hears all: the rule costs less than the legs themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping

import pytest

from bench import listening
from bench.listening import Costs, House
from bench.places import Places

ATTEMPTS = range(5)  # other work on the machine may spoil a run
LEGS, ROUNDS = 20_000, 1

pytestmark = pytest.mark.postgresql

Run = Callable[[str, str, int], Costs]


@pytest.fixture(scope="module")
def houses(is_long: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, House]]:
    folder = tmp_path_factory.mktemp("listening")
    with listening.houses(Places(folder, folder), listening.LEGS if is_long else LEGS) as both:
        yield both


@pytest.fixture(scope="module")
def run(houses: Mapping[str, House]) -> Run:
    """The n-th measurement of this work in this database; made when it is first asked for."""

    @functools.cache
    def measure(database: str, work: str, _attempt: int) -> Costs:
        costs = listening.measure(houses[database], ROUNDS, [work])
        print(f"{database}\n\n{listening.text(costs)}")
        return costs

    return measure


@pytest.mark.parametrize("listener", [name for name in listening.LISTENERS if name != listening.EVERYTHING])
@pytest.mark.parametrize("work", listening.WORK)
@pytest.mark.parametrize("database", ["SQLite", "PostgreSQL"])
def test_to_list_as_an_account_costs_no_more_than_twice_as_much(
    run: Run, tell: Callable[[str], None], database: str, work: str, listener: str
) -> None:
    ratios = []
    for attempt in ATTEMPTS:
        ratios.append(listening.ratio(run(database, work, attempt), work, listener))
        if ratios[-1] <= 2:
            break

    tell(f"{database}, {work}, as {listener}: {ratios[-1]:.2f} of that without --as")
    assert ratios[-1] <= 2
