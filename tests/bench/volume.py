"""What ten million legs cost: the same work on a full database and on a nearly empty one.

python -m bench.volume (in tests/) prints the table. The two take turns. All that is asked for is in the
machine's memory if there is enough of it, as on any machine whose database is in use.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.postgresql import PrivatePostgreSQL

from bench import bases, places, table
from bench.bases import Base

MANY, FEW = 10_000_000, 500
ROUNDS = 7
WORK: Mapping[str, Callable[[Base], float]] = {
    "drain, one event": Base.drain,
    "recordings --tag --json": Base.recordings_by_tag,
    "the query of that alone": Base.query_by_tag,
    "recordings --uniqueid --json": Base.recordings_by_uniqueid,
    "the query of that alone ": Base.query_by_uniqueid,
    "recordings --limit 50 --json": Base.recordings_newest,
    "the query of that alone  ": Base.query_newest,
    "legs that record now": Base.open_legs,
}


@dataclass(frozen=True)
class Costs:
    """Milliseconds of each work: with few legs, and with many."""

    few: Mapping[str, Sequence[float]]
    many: Mapping[str, Sequence[float]]


def measure(few: Base, many: Base, rounds: int = ROUNDS) -> Costs:
    """The two in turns, after a round that does not count."""
    costs: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for number in range(rounds + 1):
        for name, work in WORK.items():
            for base, of_base in zip((few, many), costs, strict=True):
                spent = work(base)
                if number:
                    of_base.setdefault(name, []).append(spent)
    return Costs(*costs)


def ratio(costs: Costs, name: str) -> float:
    """Of the medians: many legs to few."""
    return statistics.median(costs.many[name]) / statistics.median(costs.few[name])


def text(costs: Costs, few: Base, many: Base) -> str:
    """The result for people."""
    rows = [
        (
            name.strip(),
            f"{statistics.median(costs.few[name]):.2f}",
            f"{statistics.median(costs.many[name]):.2f}",
            f"{ratio(costs, name):.2f}",
        )
        for name in costs.few
    ]
    return table.text(("ms", f"{few.legs} legs", f"{many.legs} legs", "÷"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.volume", description=__doc__)
    parser.add_argument("--legs", type=int, default=MANY, help=f"of the full database ({MANY})")
    parser.add_argument("--disk", type=Path, help=f"where the databases lie ({places.DISK})")
    parser.add_argument("--postgresql", action="store_true", help="then the same legs in PostgreSQL, too")
    given = parser.parse_args()
    with places.make(given.disk) as where:
        few, many = bases.make(where, "few", FEW), bases.make(where, "many", given.legs)
        print(text(measure(few, many), few, many), flush=True)
        if given.postgresql:
            with PrivatePostgreSQL(where.memory / "postgresql", fsync=True) as postgresql:
                few, many = (bases.make_copy(where, each, postgresql) for each in (few, many))
                print(f"\nPostgreSQL\n\n{text(measure(few, many), few, many)}")


if __name__ == "__main__":
    main()
