"""Several Asterisks with one database, whose calls have the same uniqueids."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from lab.postgresql import PrivatePostgreSQL
from lab.waiting import wait_until
from sqlalchemy import Connection, text

from integration.recorder import Recorder, after, ended, exit_code, forked
from integration.silent_legs import lengths, put_cut_off_leg
from noojee_agi.database import intake
from noojee_agi.database.store import Store
from noojee_agi.errors import StoreUnavailable
from noojee_agi.recordings import sidecar
from noojee_agi.recordings.recording import Event

Tell = Callable[[str], None]
_fork = multiprocessing.get_context("fork")
PATIENCE = 50  # so often the cron job may find the database busy


@pytest.fixture
def pbx1(recorder: Recorder) -> Recorder:
    return recorder


@pytest.fixture
def pbx2(store: Store, tmp_path: Path) -> Recorder:
    return Recorder(store, tmp_path / "pbx2")


def call(host: Recorder, server: str, number: int, legs: int = 2) -> list[Event]:
    """A call of so many legs, all ended; each leg's tag tells server, call and leg."""
    starts = [
        host.leg(
            server=server,
            call_uniqueid=f"17.{number}",
            tag=f"{server}-{number}-{leg}",
            started_at=after(number + leg / 10),
        )
        for leg in range(1, legs + 1)
    ]
    return [*starts, *map(ended, starts)]


def put_calls(host: Recorder, server: str, calls: int) -> None:
    for number in range(calls):
        host.put(*call(host, server, number))


def drain_in_the_end(host: Recorder) -> int:
    """Drain until the database has taken all, as cron does; how often it would not."""
    for refusals in range(PATIENCE):
        try:
            host.drain()
        except StoreUnavailable:
            continue
        return refusals
    raise AssertionError("the database never took it")


def drain_at_once(hosts: list[Recorder]) -> int:
    """Each in a process of its own; how often the database would not take something at first."""
    start = _fork.Barrier(len(hosts))
    refusals = _fork.Value("i", 0)

    def work(host: Recorder) -> Callable[[], None]:
        def run() -> None:
            start.wait(20)
            count = drain_in_the_end(host)
            with refusals.get_lock():
                refusals.value += count

        return run

    children = [forked(work(host)) for host in hosts]
    assert [exit_code(child) for child in children] == [0] * len(hosts)
    return int(refusals.value)


def assert_nothing_is_mixed(hosts: dict[str, Recorder], calls: int) -> int:
    """Each call of each server with its own two legs in their order, and nothing else; how many legs."""
    some = next(iter(hosts.values()))
    rows = some.legs()
    wanted = {(server, number, leg) for server in hosts for number in range(calls) for leg in (1, 2)}
    found = Counter((row["server"], int(row["call_uniqueid"][3:]), row["leg"]) for row in rows)
    assert found == Counter(wanted)
    for row in rows:
        number = row["call_uniqueid"][3:]
        assert row["tag"] == f"{row['server']}-{number}-{row['leg']}"
        assert row["external_reference"] == f"{row['server']}-{number}-2"
        assert row["status"] == "completed"
        assert row["file"].startswith(f"{hosts[row['server']].directory}/")
    assert [host.waiting() + host.reasons() for host in hosts.values()] == [[]] * len(hosts)
    some.assert_side_cars_tell_the_same()
    return len(rows)


def test_two_servers_with_the_same_uniqueids_have_their_own_calls(pbx1: Recorder, pbx2: Recorder) -> None:
    put_calls(pbx1, "pbx1", 3)
    put_calls(pbx2, "pbx2", 3)

    pbx2.drain()
    pbx1.drain()

    assert len(pbx1.calls()) == 6
    assert_nothing_is_mixed({"pbx1": pbx1, "pbx2": pbx2}, 3)


def test_a_call_that_ends_on_one_server_goes_on_on_the_other(pbx1: Recorder, pbx2: Recorder) -> None:
    ours, theirs = pbx1.leg(), pbx2.leg(server="pbx2")
    pbx1.store_all(ours, ended(ours))

    pbx2.store_all(theirs)

    assert [(row["server"], row["ended_at"]) for row in pbx1.calls()] == [("pbx1", after(60)), ("pbx2", None)]


def test_closing_silent_legs_leaves_those_of_the_other_server_alone(pbx1: Recorder, pbx2: Recorder) -> None:
    ours, theirs = put_cut_off_leg(pbx1), put_cut_off_leg(pbx2, server="pbx2")
    untouched = lengths(theirs.file)
    side_car = Path(sidecar.path_for(theirs.file)).read_text()

    assert pbx1.close_silent_legs("pbx1") == 1

    assert pbx1.the_leg(ours)["status"] == "interrupted"
    assert pbx1.the_leg(theirs)["status"] == "recording"
    assert lengths(theirs.file) == untouched
    assert Path(sidecar.path_for(theirs.file)).read_text() == side_car
    assert pbx2.close_silent_legs("pbx2") == 1
    assert lengths(theirs.file) == lengths(ours.file) != untouched


@pytest.mark.parametrize("servers", [2, 5])
def test_several_servers_drain_at_once_into_one_database(
    store: Store, backend: str, servers: int, tmp_path: Path, is_long: bool, tell: Tell
) -> None:
    """With the same uniqueids, in the same order."""
    calls = 200 if is_long else 100 // servers
    hosts = {f"pbx{number}": Recorder(store, tmp_path / f"pbx{number}") for number in range(servers)}
    for server, host in hosts.items():
        put_calls(host, server, calls)

    refusals = drain_at_once(list(hosts.values()))

    legs = assert_nothing_is_mixed(hosts, calls)
    tell(
        f"{servers} servers at once, {backend}: {legs} legs, {refusals} times busy, 0 lost, 0 twice, 0 mixed"
    )


# --- two servers with the same name: a mistake, but nothing may be lost ---


@pytest.mark.postgresql
def test_two_servers_of_one_name_that_deadlock_lose_nothing(
    postgresql: PrivatePostgreSQL, postgresql_template: str, tmp_path: Path, is_long: bool, tell: Tell
) -> None:
    """Their calls are taken for the same ones; each waits for a row that the other has locked."""
    name = postgresql.create_database(postgresql_template)
    store = Store(postgresql.url(name))
    hosts = [Recorder(store, tmp_path / name) for name in ("one", "two")]
    tries = 20 if is_long else 2
    for number in range(tries):
        first, second = 2 * number, 2 * number + 1
        hosts[0].put(*call(hosts[0], "pbx", first, 1), *call(hosts[0], "pbx", second, 1))
        hosts[1].put(*call(hosts[1], "pbx", second, 1), *call(hosts[1], "pbx", first, 1))
        deadlock(hosts)

    wait_until(lambda: deadlocks(store) >= tries, 10, f"{tries} deadlocks")
    rows = hosts[0].legs()
    assert Counter((row["call_uniqueid"], row["leg"]) for row in rows) == Counter(
        (f"17.{number}", leg) for number in range(2 * tries) for leg in (1, 2)
    )
    assert [host.waiting() + host.reasons() for host in hosts] == [[], []]
    tell(f"two servers of one name: {deadlocks(store)} deadlocks, {len(rows)} legs, 0 lost, 0 twice")
    postgresql.drop_database(name)


def deadlock(hosts: list[Recorder]) -> None:
    """Let both drains store one event before either stores its second; then both go on to their end."""
    middle = _fork.Barrier(2)

    def work(host: Recorder) -> Callable[[], None]:
        def run() -> None:
            wait_after_the_first(middle)
            assert drain_in_the_end(host) == 0

        return run

    children = [forked(work(host)) for host in hosts]
    assert [exit_code(child) for child in children] == [0, 0]


def deadlocks(store: Store) -> int:
    """What PostgreSQL has counted in this database."""
    count = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    with store.reading() as connection:
        return int(connection.scalar(count) or 0)


def wait_after_the_first(middle: Any) -> None:
    """In a process that ends with its drain."""
    whole = intake.store
    halves: list[Event] = []

    def store(connection: Connection, events: Iterable[Event]) -> set[str]:
        first, *others = events
        changed = whole(connection, [first])
        if not halves:
            halves.append(first)
            middle.wait(20)
        return changed | whole(connection, others)

    intake.store = store  # type: ignore[assignment]
