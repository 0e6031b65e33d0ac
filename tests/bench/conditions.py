"""Whether a caller waits longer when the database is away, locked, silent or full, side by side in one run.

python -m bench.conditions (in tests/) prints the table. The conditions take turns as the ways do, and the
Python that does nothing shows what the machine did meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sqlite3
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

from lab.postgresql import free_port
from sqlalchemy import make_url

from bench import places, sides, table
from bench.side import Side
from bench.sides import Sides
from bench.ways import FASTAGI, HANDED_OVER, NOTHING, PLAIN, Way

TURNS = 5
CALLS_OF_A_TURN = 4
HEALTHY = "healthy"
WAYS = (PLAIN, HANDED_OVER, FASTAGI, NOTHING)

Condition: TypeAlias = Callable[[Sides], AbstractContextManager[None]]
# Milliseconds by condition and way.
Holds: TypeAlias = Mapping[tuple[str, str], Sequence[float]]


@contextlib.contextmanager
def healthy(_running: Sides) -> Iterator[None]:
    """The database is there."""
    yield


@contextlib.contextmanager
def stopped(running: Sides) -> Iterator[None]:
    """PostgreSQL's port is closed."""
    with _elsewhere(running, free_port()):
        yield


@contextlib.contextmanager
def locked(running: Sides) -> Iterator[None]:
    """Somebody has begun to write into SQLite, and does not end."""
    with contextlib.ExitStack() as stack:
        for side in running.both:
            other = sqlite3.connect(make_url(side.site.database_url).database or "", isolation_level=None)
            stack.enter_context(contextlib.closing(other))
            other.execute("BEGIN EXCLUSIVE")
            side.has_database = False
        yield
    _catch_up(running.both)


@contextlib.contextmanager
def silent(running: Sides) -> Iterator[None]:
    """PostgreSQL's port takes connections, and nobody ever says a word."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
    with _elsewhere(running, listener.getsockname()[1]), listener:
        yield


CONDITIONS: Mapping[str, Condition] = {
    HEALTHY: healthy,
    "stopped": stopped,
    "locked": locked,
    "silent": silent,
}


def full(url: str) -> Condition:
    """This database, which has many legs; both sites use it."""

    @contextlib.contextmanager
    def condition(running: Sides) -> Iterator[None]:
        for side in running.both:
            side.configure({"database.url": url})
            side.site.cli("apikey", "set", text=side.site.key + "\n")
        yield
        for side in running.both:
            side.configure({})
            side.rest()

    return condition


def measure(
    running: Sides,
    turns: int = TURNS,
    calls: int = CALLS_OF_A_TURN,
    ways: Sequence[Way] = WAYS,
    conditions: Mapping[str, Condition] = CONDITIONS,
) -> Holds:
    """So many calls of each way in each turn of each condition, after a first call that does not count."""
    holds: dict[tuple[str, str], list[float]] = {}
    for way in ways:
        running.of(way).call(way)
    for _ in range(turns):
        for name, condition in conditions.items():
            with condition(running):
                for way in [way for _ in range(calls) for way in ways]:
                    milliseconds = running.of(way).call(way).milliseconds
                    holds.setdefault((name, way.name), []).append(milliseconds)
    return holds


def ratio(holds: Holds, condition: str, way: Way) -> float:
    """Of the medians: this condition to the healthy one."""
    return statistics.median(holds[condition, way.name]) / statistics.median(holds[HEALTHY, way.name])


def text(holds: Holds) -> str:
    """The result for people."""
    conditions = [*dict.fromkeys(name for name, _ in holds if name != HEALTHY)]
    ways = [way for way in WAYS if (HEALTHY, way.name) in holds]
    rows = [
        (
            way.name,
            f"{statistics.median(holds[HEALTHY, way.name]):.1f}",
            *(f"{ratio(holds, condition, way):.2f}" for condition in conditions),
        )
        for way in ways
    ]
    return table.text(
        ("held in AGI(), database", f"{HEALTHY}, ms", *(f"{each} ÷" for each in conditions)), rows
    )


@contextlib.contextmanager
def _elsewhere(running: Sides, port: int) -> Iterator[None]:
    """The configuration names a PostgreSQL at this port, which does not work."""
    for side in running.both:
        side.has_database = False
        side.configure({"database.url": f"postgresql+psycopg2://nobody@127.0.0.1:{port}/noojee"})
    yield
    for side in running.both:
        side.configure({})
    _catch_up(running.both)


def _catch_up(of: Sequence[Side]) -> None:
    for side in of:
        side.catch_up()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.conditions", description=__doc__)
    parser.add_argument(
        "--turns", type=int, default=TURNS, help=f"turns of {CALLS_OF_A_TURN} calls ({TURNS})"
    )
    turns = parser.parse_args().turns
    with places.make() as where, sides.running(where) as running:
        print(text(measure(running, turns)))


if __name__ == "__main__":
    main()
