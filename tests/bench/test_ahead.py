"""Under load our FastAGI server beside the peers' servers, in turns in one run: medians over the rounds.

The goal is to be ahead of all of them, and one that is missed stays the goal: the figures say so. What fails
is to fall behind whom we are ahead of, or clearly behind what we have beside the others; while others work on
the machine, the latter alone.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import pytest
from lab.unavailable import LabUnavailable

from bench import load, machine, places
from bench.load import Turn, Turns
from bench.servers import CEILING, OURS, PEERS

ATTEMPTS = 5  # while the first rounds leave it open, further ones count with them
ROUNDS, CALLS = 3, 300
CONNECTIONS = (1, 8, 64)
GOAL = 1.0
PANORAMISK = "panoramisk"
THREADED = ("pystrix", "pyst2")
FIGURES = (load.per_second, load.held_median, load.held_p99)
AHEAD = [
    (figure, peer, at_once)
    for figure in FIGURES
    for peer in THREADED
    for at_once in (8, 64)
    if (figure, at_once) != (load.held_p99, 8)
]
# Where we are not ahead on a machine that does nothing else, and the floor for each figure: on such a one we
# had 0.5 to 0.9 of panoramisk's rate and median, and 0.3 to 0.5 in the slowest percent. No noise brings each
# of the rounds below half of that. For a call, panoramisk needs a quarter to a third
# of the processor that we do, the drain included.
BEHIND = [
    *((figure, PANORAMISK, at_once) for figure in FIGURES for at_once in CONNECTIONS),
    *((load.cpu, PANORAMISK, at_once) for at_once in (8, 64)),
    *((figure, peer, 1) for figure in FIGURES for peer in THREADED),
    *((load.held_p99, peer, 8) for peer in THREADED),
]
FLOORS: dict[Callable[[Turn], float], float] = {
    load.per_second: 1 / 4,
    load.held_median: 1 / 4,
    load.held_p99: 1 / 8,
    load.cpu: 1 / 5,
}

pytestmark = [pytest.mark.alone, pytest.mark.timeout(600)]

Tell = Callable[[str], None]
Figure = Callable[[Turn], float]
Run = Callable[[int], Turns]


@pytest.fixture(scope="module")
def run() -> Run:
    """The n-th measurement; made when it is first asked for."""

    @functools.cache
    def measure(_attempt: int) -> Turns:
        with places.in_memory() as where:
            turns = load.measure(where, ROUNDS, CALLS, CONNECTIONS)
        print(load.text(turns))
        return turns

    return measure


def name_of(value: object) -> str:
    return str(getattr(value, "__name__", value))


@pytest.mark.parametrize(("figure", "peer", "at_once"), AHEAD, ids=name_of)
def test_we_are_ahead(run: Run, figure: Figure, peer: str, at_once: int, tell: Tell) -> None:
    """Where others work, what is left for our processes and for the peer's only one is no longer the same."""
    shares: list[float] = []
    at_rest: list[float] = []
    for attempt in range(ATTEMPTS):
        shares += load.shares(run(attempt), at_once, OURS, peer, figure)
        at_rest.append(load.at_rest(run(attempt)))
        wanted = GOAL if statistics.median(at_rest) <= machine.AT_REST else FLOORS[figure]
        if statistics.median(shares) > wanted:
            break
    tell(_said(shares, figure, peer, at_once))
    assert statistics.median(shares) > wanted, (shares, at_rest)


@pytest.mark.parametrize(("figure", "peer", "at_once"), BEHIND, ids=name_of)
def test_we_do_not_fall_further_behind(run: Run, figure: Figure, peer: str, at_once: int, tell: Tell) -> None:
    shares = load.shares(run(0), at_once, OURS, peer, figure)
    tell(_said(shares, figure, peer, at_once))
    assert max(shares) >= FLOORS[figure], shares


@pytest.mark.parametrize("at_once", CONNECTIONS)
def test_no_call_fails(run: Run, at_once: int) -> None:
    assert load.failures(run(0)[at_once, OURS]) == {}


@pytest.mark.parametrize("at_once", CONNECTIONS)
def test_the_client_can_do_more_than_any_server(run: Run, at_once: int, tell: Tell) -> None:
    turns = run(0)
    if (at_once, CEILING) not in turns:
        raise LabUnavailable("there is no C compiler: install gcc")
    ceiling = load.median(turns[at_once, CEILING], load.per_second)
    fastest = max(load.median(turns[at_once, name], load.per_second) for name in (OURS, *PEERS))
    tell(
        f"FastAGI, {at_once} at once: the client itself could do {ceiling / fastest:.1f} times as many calls"
    )
    assert ceiling > fastest


def _said(shares: list[float], figure: Figure, peer: str, at_once: int) -> str:
    """In the words of the goal."""
    share = statistics.median(shares)
    verdict = "reached" if share > GOAL else "missed"
    name = figure.__name__
    return f"FastAGI, {at_once} at once, {name}: {share:.2f} of {peer}; goal more than {GOAL:g}: {verdict}"
