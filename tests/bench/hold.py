"""How long each way into a recording holds the call, side by side on two real Asterisks of one run.

python -m bench.hold (in tests/) prints the table. The ways take turns, and nothing of the last call runs any
more when the next one comes, so what disturbs the machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import places, sides, table
from bench.side import Hold
from bench.sides import Sides
from bench.ways import NOTHING, STRAIGHTFORWARD, WAYS, Way

ROUNDS = 40
WARM_UP_ROUNDS = 1
BURSTS = 3
CALLS_AT_ONCE = 40


@dataclass(frozen=True)
class Holds:
    """By the ways' names: each call, and how many a second were through when many came at once."""

    calls: Mapping[str, Sequence[Hold]]
    per_second: Mapping[str, Sequence[float]]


def of(running: Sides, rounds: int = ROUNDS, bursts: int = BURSTS, ways: Sequence[Way] = WAYS) -> Holds:
    """These ways' holds on what runs already, after warm-up rounds that do not count."""
    calls: dict[str, list[Hold]] = {way.name: [] for way in ways}
    for _ in range(WARM_UP_ROUNDS + rounds):
        for way in ways:
            calls[way.name].append(running.of(way).call(way))
    per_second: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(bursts):
        for way in ways:
            per_second[way.name].append(running.of(way).per_second(way, CALLS_AT_ONCE))
    return Holds({name: of_way[WARM_UP_ROUNDS:] for name, of_way in calls.items()}, per_second)


def median(calls: Sequence[Hold]) -> float:
    """In milliseconds."""
    return statistics.median(hold.milliseconds for hold in calls)


def p99(calls: Sequence[Hold]) -> float:
    """In milliseconds; with fewer than a hundred calls it is the longest."""
    return sorted(hold.milliseconds for hold in calls)[int(len(calls) * 0.99)]


def until_recording(calls: Sequence[Hold]) -> float:
    """Median milliseconds from the AGI's beginning until MixMonitor's; of a way that records."""
    return statistics.median(hold.recording_after for hold in calls if hold.recording_after is not None)


def text(holds: Holds) -> str:
    """The result for people."""
    rounds = len(holds.calls[NOTHING.name])
    head = (
        "held in AGI(), ms",
        "median",
        "99 %" if rounds >= 100 else f"longest of {rounds}",
        "until MixMonitor began",
        "share of straightforward",
        "share of nothing",
        "CPU ms a call",
        f"calls a second, {CALLS_AT_ONCE} at once",
    )
    rows = []
    for way in (way for way in WAYS if way.name in holds.calls):
        calls, per_second = holds.calls[way.name], holds.per_second[way.name]
        held = median(calls)
        rows.append(
            (
                way.name,
                f"{held:.1f}",
                f"{p99(calls):.1f}",
                f"{until_recording(calls):.1f}" if way.records else "-",
                f"{held / median(holds.calls[STRAIGHTFORWARD.name]):.3f}",
                f"{held / median(holds.calls[NOTHING.name]):.2f}",
                f"{statistics.fmean(hold.cpu for hold in calls):.0f}",
                f"{statistics.median(per_second):.0f}" if per_second else "-",
            )
        )
    return table.text(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hold", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"calls of each way ({ROUNDS})")
    rounds = parser.parse_args().rounds
    with places.make() as where, sides.running(where) as running:
        print(text(of(running, rounds)))


if __name__ == "__main__":
    main()
