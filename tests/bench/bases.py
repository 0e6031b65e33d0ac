"""Sites with legs from years, and the work that is done there."""

from __future__ import annotations

import itertools
import random
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from lab.postgresql import PrivatePostgreSQL
from lab.site import Site
from sqlalchemy import make_url
from sqlalchemy import text as sql
from unit import fakes

from bench import copying, many_legs
from bench.places import Places
from noojee_agi.database import queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.recordings import recording, spool
from noojee_agi.recordings.recording import Ending, Leg
from noojee_agi.sync import drain

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

    @property
    def url(self) -> str:
        return self._site.database_url

    @property
    def database(self) -> str:
        """SQLite's file."""
        return make_url(self.url).database or ""

    def drain(self) -> float:
        """For one event, of so many new calls that have begun and ended."""
        waiting = spool.directory_in(str(self._site.recordings_directory))
        events = [event for _ in range(CALLS) for event in self._events()]
        for event in events:
            spool.put(waiting, event)
        spent = _milliseconds(lambda: drain.run(self._store, waiting))
        assert not spool.count(waiting)
        return spent / len(events)

    def recordings_by_tag(self) -> float:
        return self._recordings("--tag", self._any()[1])

    def recordings_by_uniqueid(self) -> float:
        return self._recordings("--uniqueid", self._any()[0])

    def recordings_newest(self) -> float:
        return _milliseconds(lambda: self._site.cli("recordings", "--json", "--limit", "50"))

    def query_newest(self) -> float:
        """Both questions of that: behind which leg they are, and they."""

        def ask() -> None:
            behind = queries.leg_before_the_newest(connection, Filter(), 50)
            assert len(queries.next_legs(connection, Filter(), behind, 50)) == 50

        with self._store.reading() as connection:
            return statistics.mean(_milliseconds(ask) for _ in range(QUERIES))

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
        leg = leg._replace(tag=f"NEW-{number // 3}", file=str(day / f"{uniqueid}-{leg_id[:8]}.wav"))
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
        return _milliseconds(lambda: self._site.cli("recordings", "--json", option, value))

    def _queries(self, filters: Iterator[Filter]) -> float:
        """For one."""
        wanted = [*filters]
        with self._store.reading() as connection:
            return _milliseconds(lambda: [[*queries.legs(connection, each)] for each in wanted]) / len(wanted)


def make(where: Places, name: str, legs: int) -> Base:
    """A site whose database is in SQLite."""
    database = where.disk / f"{name}.db"
    site = Site(where.memory / name, f"sqlite:///{database}")
    site.cli("account", "add", "Fred")
    many_legs.fill(str(database), legs)
    return Base(site, legs)


def make_copy(where: Places, of: Base, postgresql: PrivatePostgreSQL) -> Base:
    """A site whose database is in PostgreSQL, with the same legs."""
    name = f"{Path(of.database).stem}-postgresql"
    site = Site(where.memory / name, postgresql.url(postgresql.create_database()))
    copying.copy(of.database, site.database_url)
    return Base(site, of.legs)


def _milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000
