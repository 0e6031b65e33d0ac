"""What is asked for costs no more for the legs that are there already, and these are as the program's own."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from lab.site import Site

from bench import bases, volume
from bench.bases import Base
from bench.places import Places
from bench.volume import Costs
from noojee_agi.database import intake

ATTEMPTS = range(6)  # other work on the machine may spoil a run; what reads all legs fails in all of them
FEW, MANY = 500, 50_000
ROUNDS = 2
SCHEMA = "SELECT name, sql FROM sqlite_master ORDER BY name"

pytestmark = pytest.mark.alone

Run = Callable[[int], Costs]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Base, Base]:
    folder = tmp_path_factory.mktemp("legs")
    where = Places(folder, folder)
    return bases.make(where, "few", FEW), bases.make(where, "many", MANY)


@pytest.fixture(scope="module")
def run(pair: tuple[Base, Base]) -> Run:
    """The n-th whole measurement; made when it is first asked for."""

    @functools.cache
    def measure(_attempt: int) -> Costs:
        costs = volume.measure(*pair, ROUNDS)
        print(volume.text(costs, *pair))
        return costs

    return measure


@pytest.mark.parametrize("work", volume.WORK)
def test_a_hundred_times_as_many_legs_cost_no_more_than_twice_as_much(run: Run, work: str) -> None:
    assert any(volume.ratio(run(n), work) <= 2 for n in ATTEMPTS)


def test_the_legs_are_those_that_the_program_would_have_made(pair: tuple[Base, Base], tmp_path: Path) -> None:
    with closing(sqlite3.connect(pair[1].database)) as connection:
        schema = connection.execute(SCHEMA).fetchall()
        assert connection.execute("SELECT count(*) >= ? FROM recording_leg", [MANY]).fetchone() == (1,)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        calls = connection.execute("SELECT id, server, uniqueid FROM call_record LIMIT 100").fetchall()
        statuses = connection.execute("SELECT DISTINCT status FROM recording_leg").fetchall()
    Site(tmp_path / "site", f"sqlite:///{tmp_path}/bare.db")
    with closing(sqlite3.connect(tmp_path / "bare.db")) as connection:
        assert schema == connection.execute(SCHEMA).fetchall()
    assert all(intake.call_record_id(*of_call) == record_id for record_id, *of_call in calls)
    assert len(statuses) == 5
