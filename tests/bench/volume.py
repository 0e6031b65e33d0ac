"""What ten million legs cost: the same work on a full database and on a nearly empty one.

python -m bench.volume (in tests/) prints the table. The two take turns. All that is asked for is in the
machine's memory if there is enough of it, as on any machine whose database is in use.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from lab.site import Site
from sqlalchemy import text as sql
from unit import fakes

from bench import many_legs, places, table
from bench.places import Places
from noojee_agi import drain, recording, spool
from noojee_agi.database import queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.recording import Ending, Leg

MANY, FEW = 10_000_000, 500
ROUNDS = 7
CALLS = 250
QUERIES = 100
_ANY_LEG = sql("SELECT uniqueid, tag FROM recording_leg WHERE id >= :id AND tag <> '' ORDER BY id LIMIT 1")


class Base:
    """A site whose database has legs. Every method does some work once; milliseconds."""

    def __init__(self, site: Site, legs: int) -> None:
        self.legs = legs
        self._site = site
        self._store = Store(site.database_url)
        self._numbers = itertools.count(int(time.time() * 1000))
        self._random = random.Random(legs)

    def drain(self) -> float:
        """For one event, of so many new calls that have begun and ended."""
        waiting = spool.directory_in(str(self._site.recordings_directory))
        events = [event for _ in range(CALLS) for event in self._events()]
        for event in events:
            spool.put(waiting, event)
        spent = _milliseconds(lambda: drain.run(self._store, waiting))
        assert not spool.waiting(waiting)
        return spent / len(events)

    def recordings_by_tag(self) -> float:
        return self._recordings("--tag", self._any()[1])

    def recordings_by_uniqueid(self) -> float:
        return self._recordings("--uniqueid", self._any()[0])

    def query_by_tag(self) -> float:
        return self._queries(Filter(tag=tag) for _, tag in self._some())

    def query_by_uniqueid(self) -> float:
        return self._queries(Filter(uniqueid=uniqueid) for uniqueid, _ in self._some())

    def open_legs(self) -> float:
        """What each drain and sync asks, to close the legs that ended without a word."""
        with self._store.reading() as connection:
            return _milliseconds(lambda: queries.open_legs(connection, "pbx1"))

    def _events(self) -> Iterator[Leg | Ending]:
        number = next(self._numbers)
        uniqueid = f"{number // 1000}.{number % 1000}"
        leg_id, day = recording.new_id(), self._site.recordings_directory / "2025/11/06"
        day.mkdir(parents=True, exist_ok=True)
        leg = fakes.leg(id=leg_id, call_uniqueid=uniqueid, uniqueid=uniqueid, server="measured")
        leg = dataclasses.replace(
            leg, tag=f"NEW-{number // 3}", file=str(day / f"{uniqueid}-{leg_id[:8]}.wav")
        )
        yield leg
        yield Ending(leg_id, "completed", leg.started_at + timedelta(minutes=1), 960044, 60.0)

    def _any(self) -> tuple[str, str]:
        return self._some(1)[0]

    def _some(self, count: int = QUERIES) -> list[tuple[str, str]]:
        """Uniqueid and tag of legs from anywhere."""
        found: list[tuple[str, str]] = []
        with self._store.reading() as connection:
            while len(found) < count:
                somewhere = str(uuid.UUID(int=self._random.getrandbits(128)))
                row = connection.execute(_ANY_LEG, {"id": somewhere}).one_or_none()
                found += [(row.uniqueid, row.tag)] if row else []
        return found

    def _recordings(self, option: str, value: str) -> float:
        return _milliseconds(lambda: self._site.legs(option, value))

    def _queries(self, filters: Iterator[Filter]) -> float:
        """For one."""
        wanted = [*filters]
        with self._store.reading() as connection:
            return _milliseconds(lambda: [[*queries.legs(connection, each)] for each in wanted]) / len(wanted)


WORK: Mapping[str, Callable[[Base], float]] = {
    "drain, one event": Base.drain,
    "recordings --tag --json": Base.recordings_by_tag,
    "the query of that alone": Base.query_by_tag,
    "recordings --uniqueid --json": Base.recordings_by_uniqueid,
    "the query of that alone ": Base.query_by_uniqueid,
    "legs that record now": Base.open_legs,
}


@dataclass(frozen=True)
class Costs:
    """Milliseconds of each work: with few legs, and with many."""

    few: Mapping[str, Sequence[float]]
    many: Mapping[str, Sequence[float]]


def make(where: Places, name: str, legs: int) -> Base:
    """A site whose database is in SQLite."""
    database = where.disk / f"{name}.db"
    site = Site(where.memory / name, f"sqlite:///{database}")
    many_legs.fill(str(database), legs)
    return Base(site, legs)


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


def _milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.volume", description=__doc__)
    parser.add_argument("--legs", type=int, default=MANY, help=f"of the full database ({MANY})")
    parser.add_argument("--disk", type=Path, help=f"where the databases lie ({places.DISK})")
    given = parser.parse_args()
    with places.make(given.disk) as where:
        few, many = make(where, "few", FEW), make(where, "many", given.legs)
        print(text(measure(few, many), few, many))


if __name__ == "__main__":
    main()
