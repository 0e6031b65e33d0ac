"""Several drains at once: each leg once, none forgotten."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.postgresql import PrivatePostgreSQL
from sqlalchemy import text

from integration.recorder import Recorder, after, ended, exit_code, forked
from noojee_agi.database import schema
from noojee_agi.database.store import Store
from noojee_agi.recordings import journal, sidecar, spool
from noojee_agi.recordings.recording import Event, Leg
from noojee_agi.sync import drain

_fork = multiprocessing.get_context("fork")


def call(recorder: Recorder, number: int) -> list[Event]:
    """A call of two legs, both ended."""
    legs = [
        recorder.leg(call_uniqueid=f"17.{number}", tag=f"INV-{number}-{leg}", started_at=after(leg))
        for leg in range(2)
    ]
    return [*legs, *map(ended, legs)]


def assert_each_once(recorder: Recorder, events: list[Event]) -> None:
    """Row and side-car of every leg, closed and numbered, and nothing else."""
    rows = recorder.legs()
    legs = [event for event in events if isinstance(event, Leg)]
    assert sorted(row["id"] for row in rows) == sorted(leg.id for leg in legs)
    assert {row["status"] for row in rows} == {"completed"}
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(row["call_uniqueid"], []).append(row["leg"])
    assert all(sorted(found) == [1, 2] for found in numbers.values())
    assert all(os.path.exists(sidecar.path_for(leg.file)) for leg in legs)
    assert (recorder.waiting(), recorder.reasons()) == ([], [])
    recorder.assert_side_cars_tell_the_same()


def test_two_drains_at_once_store_each_leg_once(recorder: Recorder) -> None:
    events = [event for number in range(75) for event in call(recorder, number)]
    assert len(events) == 300
    recorder.put(*events)
    start = _fork.Barrier(2)

    def work() -> None:
        start.wait(60)
        for _ in range(5):
            recorder.drain()

    children = [forked(work), forked(work)]

    assert [exit_code(child) for child in children] == [0, 0]
    assert_each_once(recorder, events)


def test_a_drain_that_finds_the_lock_taken_leaves_at_once(recorder: Recorder) -> None:
    lines = recorder.put(recorder.leg())

    with spool.lock(recorder.spool) as ours:
        assert ours
        result = recorder.drain()

    assert (result.busy, result.stored, recorder.waiting()) == (True, 0, lines)
    assert recorder.drain().stored == 1


def test_the_lock_ends_with_its_holder(recorder: Recorder) -> None:
    def hold() -> None:
        with spool.lock(recorder.spool):
            os.kill(os.getpid(), signal.SIGKILL)

    assert exit_code(forked(hold)) == -signal.SIGKILL
    recorder.store_all(recorder.leg())


def test_an_event_that_comes_during_the_last_look_is_taken_by_the_holder(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own drain finds the lock taken and leaves; nobody else would come."""
    take = journal.take
    late = recorder.leg(started_at=after(1))
    seen: list[bool] = []

    def take_too_early(directory: str) -> str:
        found = take(directory)
        if not found and not seen:
            seen.append(False)
            recorder.put(late)
            seen[0] = drain.run(recorder.store, recorder.spool).busy
        return found

    monkeypatch.setattr(journal, "take", take_too_early)
    recorder.put(recorder.leg())

    assert recorder.drain().stored == 2
    assert seen == [True]
    assert recorder.waiting() == []


def test_no_event_is_stranded_when_many_put_and_drain_at_once(recorder: Recorder) -> None:
    """As after calls: each puts its event, drains once and goes; the last one out leaves nothing."""
    rounds, workers = 25, 4
    barrier = threading.Barrier(workers)
    stranded: list[int] = []
    finished: list[int] = []

    def one_round(number: int, shift: random.Random) -> None:
        leg = recorder.leg(call_uniqueid=f"17.{number}")
        barrier.wait(60)
        until = time.monotonic() + shift.uniform(0, 0.01)
        while time.monotonic() < until:
            pass
        recorder.put(leg)
        recorder.drain()
        if barrier.wait(60) == 0 and recorder.waiting():
            stranded.append(number)
        barrier.wait(60)

    def work(worker: int) -> None:
        for number in range(rounds):
            one_round(number, random.Random(worker * 1000 + number))
        finished.append(worker)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(finished) == list(range(workers))
    assert stranded == []
    assert len(recorder.legs()) == rounds * workers


@pytest.mark.postgresql
def test_hosts_that_get_in_each_other_s_way_try_again_at_once(
    postgresql: PrivatePostgreSQL, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """Serializable by default, as distributed databases are: there a transaction may fail at any time."""
    hosts, calls = 6, 100
    name = postgresql.create_database()
    url = postgresql.url(name)
    schema.upgrade(Store(url))
    with Store(url).transaction() as connection:
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_isolation = serializable"))
    recorders = [Recorder(Store(url), tmp_path / f"host{host}") for host in range(hosts)]
    for host, recorder in enumerate(recorders):
        for number in range(calls):
            leg = recorder.leg(server=f"pbx{host}", call_uniqueid=f"17.{number}")
            recorder.put(leg, ended(leg))
    start = _fork.Barrier(hosts)

    def work(recorder: Recorder) -> None:
        start.wait(60)
        assert recorder.drain().left == 0

    children = [forked(lambda recorder=recorder: work(recorder)) for recorder in recorders]  # type: ignore[misc]

    assert [exit_code(child) for child in children] == [0] * hosts
    rows = recorders[0].legs()
    assert len({(row["server"], row["call_uniqueid"]) for row in rows}) == len(rows) == hosts * calls
    assert {row["status"] for row in rows} == {"completed"}
    tell(f"{hosts} hosts into one serializable database: {hosts * calls} calls, 0 lost, 0 twice")
    postgresql.drop_database(name)
