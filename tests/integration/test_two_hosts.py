"""Hosts that change the same rows at the same moment take turns: real PostgreSQL, a connection each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab.postgresql import PrivatePostgreSQL
from lab.waiting import wait_until
from sqlalchemy import Connection, select, text

from integration.recorder import Recorder, after, ended, exit_code, forked
from noojee_agi.database import intake, settings
from noojee_agi.database.store import Store
from noojee_agi.database.tables import account, extension_attachment
from noojee_agi.errors import BadArgument, StoreDuplicate
from noojee_agi.recordings.recording import Leg
from noojee_agi.sync import rebuild

pytestmark = [pytest.mark.postgresql, pytest.mark.parametrize("backend", ["postgresql"])]

Work = Callable[[Connection], object]
_fork = multiprocessing.get_context("fork")
_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


@pytest.fixture
def people(store: Store) -> Store:
    with store.transaction() as connection:
        for login in ("fred", "lena"):
            settings.add_account(connection, login, login, ())
    return store


def do_both(store: Store, first: Work, second: Work) -> None:
    """The second comes while the first is in the middle of its transaction."""

    def run() -> None:
        with store.transaction() as connection:
            second(connection)

    with ThreadPoolExecutor() as others:
        with store.transaction() as connection:
            first(connection)
            other = others.submit(run)
            wait_until(lambda: other.done() or connection.scalar(_WAITING), 10, "the second")
        other.result()


# --- one call ---


def test_a_call_that_several_hosts_begin_at_the_same_moment_has_all_their_legs(
    store: Store, tmp_path: Path, is_long: bool, tell: Callable[[str], None]
) -> None:
    hosts, calls = 3, 600 if is_long else 60
    together = _fork.Barrier(hosts)
    recorders = [Recorder(store, tmp_path / f"host{host}") for host in range(hosts)]

    def work(host: int) -> None:
        legs = [recorders[host].leg(call_uniqueid=f"17.{number}") for number in range(calls)]
        for leg in legs:
            with store.transaction() as connection:
                connection.execute(select(1))
                together.wait(20)
                intake.store(connection, [leg])

    children = [forked(lambda host=host: work(host)) for host in range(hosts)]  # type: ignore[misc]

    assert [exit_code(child) for child in children] == [0] * hosts
    rows = recorders[0].legs()
    assert len(recorders[0].calls()) == calls
    assert sorted((row["call_uniqueid"], row["leg"]) for row in rows) == sorted(
        (f"17.{number}", leg) for number in range(calls) for leg in range(1, hosts + 1)
    )
    tell(f"{hosts} hosts begin one call at once: {calls} times, {len(rows)} legs, 0 set aside")


@pytest.mark.parametrize("is_known", [False, True], ids=["a new call", "a call that is there"])
def test_the_legs_of_one_call_from_two_hosts_are_numbered_in_the_order_of_starting(
    recorder: Recorder, is_known: bool
) -> None:
    known, second, third = (
        recorder.leg(started_at=after(number), tag=f"INV-{number}") for number in range(3)
    )
    if is_known:
        recorder.store_all(known)

    do_both(
        recorder.store,
        lambda connection: intake.store(connection, [third]),
        lambda connection: intake.store(connection, [second]),
    )

    legs = [known, second, third] if is_known else [second, third]
    assert {row["id"]: row["leg"] for row in recorder.legs()} == {
        leg.id: number for number, leg in enumerate(legs, 1)
    }
    [call] = recorder.calls()
    assert (call["external_reference"], call["started_at"]) == ("INV-2", legs[0].started_at)


def test_a_batch_of_which_another_host_has_just_stored_a_part_is_stored_whole(recorder: Recorder) -> None:
    """Calls and legs that are there, calls that have another's leg only, and those that nobody has begun."""
    firsts = [recorder.leg(call_uniqueid=f"17.{number}") for number in range(6)]
    seconds = [recorder.leg(call_uniqueid=f"17.{number}", started_at=after(1)) for number in range(6)]
    batch = [*firsts[:4], *seconds]

    do_both(
        recorder.store,
        lambda connection: intake.store(connection, [*firsts[:2], ended(firsts[1]), *firsts[4:5]]),
        lambda connection: intake.store(connection, [*batch, *map(ended, batch[2:])]),
    )

    legs = {row["id"]: (row["call_uniqueid"], row["leg"], row["status"]) for row in recorder.legs()}
    assert legs == {
        firsts[0].id: ("17.0", 1, "recording"),
        firsts[1].id: ("17.1", 1, "completed"),
        firsts[2].id: ("17.2", 1, "completed"),
        firsts[3].id: ("17.3", 1, "completed"),
        firsts[4].id: ("17.4", 1, "recording"),
        **{leg.id: (leg.call_uniqueid, 2, "completed") for leg in seconds[:5]},
        seconds[5].id: ("17.5", 1, "completed"),
    }
    ends = {call["uniqueid"]: call["ended_at"] for call in recorder.calls()}
    assert ends == {f"17.{number}": None if number in (0, 4) else after(61) for number in range(6)}


def test_a_call_whose_legs_end_on_two_hosts_at_the_same_moment_has_ended(recorder: Recorder) -> None:
    """Each sees that the other's leg still records, unless they take turns."""
    legs = [recorder.leg(started_at=after(number)) for number in range(2)]
    recorder.store_all(*legs)
    endings = [ended(leg) for leg in legs]

    do_both(
        recorder.store,
        lambda connection: intake.store(connection, endings[:1]),
        lambda connection: intake.store(connection, endings[1:]),
    )

    assert [call["ended_at"] for call in recorder.calls()] == [after(61)]


def test_a_call_that_goes_on_on_another_host_while_a_leg_ends_has_not_ended(recorder: Recorder) -> None:
    first, second = (recorder.leg(started_at=after(number)) for number in range(2))
    recorder.store_all(first)

    do_both(
        recorder.store,
        lambda connection: intake.store(connection, [second]),
        lambda connection: intake.store(connection, [ended(first)]),
    )

    assert [call["ended_at"] for call in recorder.calls()] == [None]


def test_a_leg_that_two_hosts_store_at_the_same_moment_is_there_once_and_has_ended(
    recorder: Recorder,
) -> None:
    """One of them makes it again from a side-car, where its end is known already."""
    first, second = (recorder.leg(started_at=after(number)) for number in range(2))
    recorder.store_all(first, ended(first))

    do_both(
        recorder.store,
        lambda connection: intake.store(connection, [second, ended(second)]),
        lambda connection: intake.store(connection, [second]),
    )

    assert [(row["leg"], row["status"]) for row in recorder.legs()] == [(1, "completed"), (2, "completed")]
    assert [call["ended_at"] for call in recorder.calls()] == [after(61)]


def test_hosts_with_several_calls_in_opposite_order_wait_without_a_deadlock(
    recorder: Recorder, is_long: bool
) -> None:
    """A deadlock costs a second until PostgreSQL sees it."""
    rounds = 100 if is_long else 10
    together = _fork.Barrier(2)

    def work(step: int) -> None:
        for number in range(rounds):
            legs: list[Leg] = [recorder.leg(call_uniqueid=f"17.{number}.{call}") for call in range(20)][
                ::step
            ]
            with recorder.store.transaction() as connection:
                connection.execute(select(1))
                together.wait(20)
                intake.store(connection, legs)
            with recorder.store.transaction() as connection:
                together.wait(20)
                intake.store(connection, map(ended, legs))

    children = [forked(lambda step=step: work(step)) for step in (1, -1)]  # type: ignore[misc]

    assert [exit_code(child) for child in children] == [0, 0]
    assert len(recorder.legs()) == 2 * 20 * rounds


# --- what a sysadmin sets ---


def test_of_two_keys_that_are_set_at_the_same_moment_the_later_one_stays(store: Store) -> None:
    for digest in ("old", "new"):  # with no key before, and with one
        do_both(
            store,
            lambda connection, digest=digest: settings.set_key_digest(connection, digest),  # type: ignore[misc]
            lambda connection, digest=digest: settings.set_key_digest(connection, f"{digest} 2"),  # type: ignore[misc]
        )

        with store.reading() as connection:
            assert settings.key_digest(connection) == f"{digest} 2"


def test_an_account_that_is_added_twice_at_the_same_moment_is_refused_in_words(store: Store) -> None:
    with pytest.raises(BadArgument, match="there is an account fred already"):
        do_both(
            store,
            lambda connection: settings.add_account(connection, "fred", "One", ()),
            lambda connection: settings.add_account(connection, "fred", "Two", ()),
        )


@pytest.mark.parametrize("former", ["", "fred"])
def test_an_extension_that_is_attached_twice_at_the_same_moment_belongs_to_the_later_one(
    people: Store, former: str
) -> None:
    if former:
        with people.transaction() as connection:
            settings.attach(connection, former, "410")

    do_both(
        people,
        lambda connection: settings.attach(connection, "fred", "410"),
        lambda connection: settings.attach(connection, "lena", "410"),
    )

    with people.reading() as connection:
        found = connection.execute(select(extension_attachment).order_by("attached_at")).all()
    assert [row.account_id for row in found if row.detached_at is None] == [settings.account_id("lena")]
    assert len(found) == 2 + bool(former)


def test_settings_that_two_hosts_restore_at_the_same_moment_have_one_open_attachment(
    people: Store, tmp_path: Path, postgresql: PrivatePostgreSQL
) -> None:
    """Each has another copy, whose attachment goes on: the one that began later does."""
    copies = {}
    for host, login in enumerate(["fred", "lena"]):
        folder = tmp_path / login
        folder.mkdir()
        with people.transaction() as connection:
            connection.execute(extension_attachment.delete())
            settings.attach(connection, login, "410")
        assert rebuild.save_settings(people, str(folder))
        copies[host] = str(folder)
    with people.transaction() as connection:
        connection.execute(extension_attachment.delete())
    together = _fork.Barrier(2)

    def work(host: int) -> None:
        together.wait(20)
        rebuild.restore_settings(people, copies[host])

    children = [forked(lambda host=host: work(host)) for host in copies]  # type: ignore[misc]

    assert [exit_code(child) for child in children] == [0, 0]
    with people.reading() as connection:
        found = connection.execute(select(extension_attachment)).all()
    assert {row.account_id: row.detached_at is None for row in found} == {
        settings.account_id("fred"): False,
        settings.account_id("lena"): True,
    }


# --- a key that is there twice ---


def test_what_is_there_twice_is_tried_again_and_refused_at_last(people: Store) -> None:
    """It may be a race, whose loser can go on when the other one is done."""
    tries: list[str] = []

    def add(connection: Connection, login: str) -> None:
        tries.append(login)
        values = {"id": settings.account_id(login), "login": login, "name": "", "enabled": True}
        connection.execute(account.insert().values(values))

    people.in_turn(lambda connection: add(connection, "fred" if len(tries) < 2 else "new"))
    assert tries == ["fred", "fred", "new"]

    with pytest.raises(StoreDuplicate):
        people.in_turn(lambda connection: add(connection, "lena"))
    assert len(tries) == 3 + 8
