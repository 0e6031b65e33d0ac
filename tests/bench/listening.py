"""What it costs that everybody sees his own: a large site's legs, listed as one and another account.

python -m bench.listening (in tests/) prints the table: a hundred thousand legs of a thousand people in fifty
teams, on SQLite and PostgreSQL. All listeners take turns, after a round that does not count.
"""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.postgresql import PrivatePostgreSQL
from lab.site import Site

from bench import copying, many_legs, places, table
from bench.places import Places
from noojee_agi.cli import listing
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store

LEGS, PEOPLE, TEAMS = 100_000, 1000, 50
ROUNDS = 3
EVERYTHING = "without --as"
LISTENERS = {
    EVERYTHING: "",
    "a Recording Manager": "agent1000",
    "a team's leader": "agent7",
    "an agent": "agent77",
}

_TEAM = "INSERT INTO team (id, name) VALUES (?, ?)"
_MEMBER = "INSERT INTO team_member (team_id, account_id, joined_at, is_leader) VALUES (?, ?, ?, ?)"
_MANAGER = "INSERT INTO account_group (account_id, group_name) SELECT id, ? FROM account WHERE login = ?"
_LONG_AGO = "2015-01-01T00:00:00.000000+00:00"

Costs = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class House:
    """A site with these legs."""

    site: Site

    def all_legs(self, login: str) -> float:
        """What the list reads, but for its printing."""
        store, wanted = Store(self.site.database_url), Filter(heard_by=login or None)
        found = 0

        def count(pages: listing.Pages) -> None:
            nonlocal found
            found = sum(map(len, pages))

        spent = _milliseconds(lambda: listing.show(store, wanted, None, count))
        assert found
        return spent

    def newest(self, login: str) -> float:
        words = ("--as", login) if login else ()
        return _milliseconds(lambda: self.site.cli("recordings", "--limit", "50", *words))


WORK: Mapping[str, Callable[[House, str], float]] = {
    "all legs that it hears, read": House.all_legs,
    "recordings --limit 50": House.newest,
}


@contextlib.contextmanager
def houses(where: Places, legs: int = LEGS) -> Iterator[Mapping[str, House]]:
    """The same legs in both databases."""
    database = where.disk / "listening.db"
    site = Site(where.memory / "listening", f"sqlite:///{database}")
    many_legs.fill(str(database), legs, PEOPLE)
    _fill_teams(str(database))
    with PrivatePostgreSQL(where.memory / "listening-postgresql") as postgresql:
        url = postgresql.url(postgresql.create_database())
        other = Site(where.memory / "listening-in-postgresql", url)
        copying.copy(str(database), url)
        yield {"SQLite": House(site), "PostgreSQL": House(other)}


def measure(house: House, rounds: int = ROUNDS, works: Iterable[str] = tuple(WORK)) -> Costs:
    """Milliseconds: work -> listener -> each round."""
    costs: dict[str, dict[str, list[float]]] = {work: {name: [] for name in LISTENERS} for work in works}
    for number in range(rounds + 1):
        for work in costs:
            for name, login in LISTENERS.items():
                spent = WORK[work](house, login)
                if number:
                    costs[work][name].append(spent)
    return costs


def ratio(costs: Costs, work: str, listener: str) -> float:
    """Of the medians: as this account, to without --as."""
    return statistics.median(costs[work][listener]) / statistics.median(costs[work][EVERYTHING])


def text(costs: Costs) -> str:
    rows = [
        (work, name, f"{statistics.median(spent):.0f}", f"{ratio(costs, work, name):.2f}")
        for work, of_listeners in costs.items()
        for name, spent in of_listeners.items()
    ]
    return table.text(("work", "as", "ms", "÷"), rows)


def _fill_teams(database: str) -> None:
    """Of twenty each, whom one of them leads; and one account that hears all."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        teams = [f"10000000-0000-4000-8000-{number:012}" for number in range(TEAMS)]
        connection.executemany(_TEAM, [(team, f"team {team[-2:]}") for team in teams])
        people = connection.execute("SELECT id FROM account ORDER BY id").fetchall()
        members = [
            (teams[number % TEAMS], person, _LONG_AGO, number < TEAMS)
            for number, (person,) in enumerate(people)
        ]
        connection.executemany(_MEMBER, members)
        connection.execute(_MANAGER, ("Recording Manager", LISTENERS["a Recording Manager"]))
        connection.commit()


def _milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    with places.make(Path("/var/tmp")) as where, houses(where) as both:
        for name, house in both.items():
            print(f"{name}\n\n{text(measure(house))}\n", flush=True)


if __name__ == "__main__":
    main()
