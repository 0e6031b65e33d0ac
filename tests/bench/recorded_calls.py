"""What a recorded call costs the whole machine on a real Asterisk: MixMonitor alone, and our ways beside it.

python -m bench.recorded_calls (in tests/) prints the table. The ways take turns; a turn is over when
nothing is left to do, in the database either.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench import machine, places, sides, table
from bench.places import Places
from bench.sides import Sides
from bench.ways import FASTAGI, HANDED_OVER, MIXMONITOR, NOTHING, Way

CALLS, PER_SECOND, ROUNDS = 400, 40.0, 3
WAYS = (MIXMONITOR, FASTAGI, HANDED_OVER, NOTHING)
GOAL = 2.0  # FastAGI's, in MixMonitors
REST_SECONDS = 2.0


@dataclass(frozen=True)
class Cost:
    """Of a call in one turn, in milliseconds of a processor.

    machine: all that was done on the machine, without what it does at rest. processes: what Asterisk, our
    server and all that they started have used: less than that, but the same when others work there, too.
    at_rest: how many processors were busy before the turn. failed: calls that were not recorded.
    """

    machine: float
    processes: float
    at_rest: float
    failed: int


Costs = Mapping[str, Sequence[Cost]]


def measure(where: Places, rounds: int = ROUNDS, calls: int = CALLS, per_second: float = PER_SECOND) -> Costs:
    """Every way's turns by its name, after a call that does not count. Raises LabUnavailable."""
    with sides.running(where) as running:
        for way in WAYS:
            running.of(way).call(way)
        turns = [(way, take_turn(running, way, calls, per_second)) for _ in range(rounds) for way in WAYS]
    return {way.name: [cost for each, cost in turns if each is way] for way in WAYS}


def take_turn(running: Sides, way: Way, calls: int, per_second: float) -> Cost:
    """Place the calls."""
    at_rest = machine.load_at_rest(REST_SECONDS)
    begun, busy, own = time.monotonic(), machine.busy_seconds(), time.process_time()
    used, failed = running.of(way).cpu_of_calls(way, calls, per_second)
    ours = time.process_time() - own
    of_calls = machine.busy_seconds() - busy - ours - at_rest * (time.monotonic() - begun)
    return Cost(of_calls / calls * 1000, used / calls * 1000, at_rest, failed)


def of_machine(cost: Cost) -> float:
    return cost.machine


def of_processes(cost: Cost) -> float:
    return cost.processes


NAMES: Mapping[Callable[[Cost], float], str] = {
    of_machine: "the whole machine",
    of_processes: "its processes",
}


def median(costs: Costs, way: Way, figure: Callable[[Cost], float]) -> float:
    """In milliseconds, over the rounds."""
    return statistics.median(map(figure, costs[way.name]))


def ratio(costs: Costs, way: Way, figure: Callable[[Cost], float], to: Way = MIXMONITOR) -> float:
    """How many calls of the other way one of this way costs."""
    return median(costs, way, figure) / median(costs, to, figure)


def failures(costs: Costs, way: Way) -> int:
    """Calls that were not recorded, in all rounds."""
    return sum(cost.failed for cost in costs[way.name])


def rested(costs: Costs) -> bool:
    """Whether nobody else worked on the machine."""
    return all(cost.at_rest <= machine.AT_REST for of_way in costs.values() for cost in of_way)


def judged(costs: Costs) -> Callable[[Cost], float]:
    """The whole machine's figure; that of the processes when others have worked on the machine."""
    return of_machine if rested(costs) else of_processes


def text(costs: Costs) -> str:
    """The result for people."""
    figure, processors = judged(costs), os.cpu_count() or 1
    head = (
        "recorded call",
        f"CPU ms of {NAMES[figure]}",
        "÷ MixMonitor alone",
        "full at, calls a second",
        "of MixMonitor alone",
        f"CPU ms of {NAMES[of_processes]}",
        "÷ MixMonitor alone",
        "CPUs busy at rest",
        "failed",
    )
    rows = [
        (
            way.name,
            f"{median(costs, way, figure):.1f}",
            f"{ratio(costs, way, figure):.1f}",
            f"{processors * 1000 / median(costs, way, figure):.0f}",
            f"{1 / ratio(costs, way, figure):.2f}",
            f"{median(costs, way, of_processes):.1f}",
            f"{ratio(costs, way, of_processes):.1f}",
            f"{statistics.median(cost.at_rest for cost in costs[way.name]):.2f}",
            f"{failures(costs, way)}",
        )
        for way in WAYS
    ]
    return f"{table.text(head, rows)}\n\n{verdict(costs)}"


def verdict(costs: Costs) -> str:
    """In the words of the goal."""
    figure = judged(costs)
    share = ratio(costs, FASTAGI, figure)
    reached = "reached" if share <= GOAL else "missed"
    return (
        f"a call recorded over FastAGI costs {share:.1f} times the processor of MixMonitor alone"
        f" (of {NAMES[figure]}); goal {GOAL:g}: {reached}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.recorded_calls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each way ({ROUNDS})")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"calls of a turn ({CALLS})")
    parser.add_argument("--per-second", type=float, default=PER_SECOND, help=f"the rate ({PER_SECOND:g})")
    given = parser.parse_args()
    with places.in_memory() as where:
        print(text(measure(where, given.rounds, given.calls, given.per_second)))


if __name__ == "__main__":
    main()
