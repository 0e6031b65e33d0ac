"""Under load our FastAGI server is ahead of the peers' servers, side by side in one run."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from bench import load, places
from bench.load import Turn, Turns
from bench.servers import OURS

ATTEMPTS = range(3)  # other work on the machine may spoil a run; who is behind is so in all of them
ROUNDS, CALLS = 2, 400
CONNECTIONS = (8, 64)
PEERS = ("pystrix", "pyst2")

pytestmark = pytest.mark.alone

Run = Callable[[int], Turns]


@pytest.fixture(scope="module")
def run() -> Run:
    """The n-th whole measurement; made when it is first asked for."""

    @functools.cache
    def measure(_attempt: int) -> Turns:
        with places.make() as where:
            turns = load.measure(where, ROUNDS, CALLS, CONNECTIONS)
        print(load.text(turns))
        return turns

    return measure


@pytest.mark.parametrize("at_once", CONNECTIONS)
@pytest.mark.parametrize("peer", PEERS)
def test_takes_more_calls_a_second(run: Run, peer: str, at_once: int) -> None:
    assert any(
        _of(run(n), OURS, at_once, _per_second) > _of(run(n), peer, at_once, _per_second) for n in ATTEMPTS
    )


@pytest.mark.parametrize("at_once", CONNECTIONS)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("figure", [lambda turn: turn.median, lambda turn: turn.p99], ids=["median", "p99"])
def test_keeps_them_for_less_time(run: Run, figure: Callable[[Turn], float], peer: str, at_once: int) -> None:
    assert any(_of(run(n), OURS, at_once, figure) < _of(run(n), peer, at_once, figure) for n in ATTEMPTS)


def _per_second(turn: Turn) -> float:
    return turn.per_second


def _of(turns: Turns, name: str, at_once: int, figure: Callable[[Turn], float]) -> float:
    return load.median(turns[at_once, name], figure)
