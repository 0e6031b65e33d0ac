"""Who may hear a leg: the function and the SQL are one rule, and so is what the snapshot knows."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import hypothesis
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import Connection

from noojee_agi.database import hearing, queries, settings
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.database.tables import account, call_record, recording_leg, team, team_member
from noojee_agi.recordings import people, recording, snapshot
from noojee_agi.recordings.people import People

LOGINS = ("Ann", "fred", "Lena O'Neill ☎", "fred/2026")
TEAMS = tuple(recording.new_id() for _ in range(2))
GROUPS = ("Administrator", "Recording Manager", "Team Leader", "Agent", "administrator")
# Two days that end now, so that the snapshot's own day is in them.
LAST = recording.now()


class Member(NamedTuple):
    team: int
    login: int
    joined_at: datetime
    left_at: datetime | None
    is_leader: bool


class House(NamedTuple):
    """accounts: of the logins in their order; enabled, groups. legs: the owner's login, and the start."""

    accounts: list[tuple[bool, set[str]]]
    members: list[Member]
    legs: list[tuple[int | None, datetime]]


def _moment(hours: int, microseconds: int) -> datetime:
    return LAST - timedelta(hours=hours, microseconds=microseconds)


# Few, so that a leg often begins in the very moment of joining or leaving, or next to it.
MOMENTS = st.builds(_moment, st.sampled_from([0, 1, 20, 23, 30, 40, 48]), st.sampled_from([0, 1, 2]))
LOGIN_NUMBERS = st.integers(0, len(LOGINS) - 1)
MEMBERS = st.lists(
    st.builds(
        Member,
        st.integers(0, len(TEAMS) - 1),
        LOGIN_NUMBERS,
        MOMENTS,
        st.none() | MOMENTS,
        st.booleans(),
    ),
    max_size=10,
    unique_by=lambda member: member[:3],
)
HOUSES = st.builds(
    House,
    st.lists(
        st.tuples(st.sampled_from([True, True, False]), st.sets(st.sampled_from(GROUPS), max_size=2)),
        min_size=len(LOGINS),
        max_size=len(LOGINS),
    ),
    MEMBERS,
    st.lists(st.tuples(st.none() | LOGIN_NUMBERS, MOMENTS), min_size=1, max_size=8),
)
# Who led yesterday hears nothing more; who leads now hears what was before, up to the moment of leaving.
LEADS_NOW = Member(0, 0, _moment(1, 0), None, True)
LED = Member(0, 2, _moment(48, 0), _moment(1, 0), True)
WAS_MEMBER = Member(0, 1, _moment(40, 0), _moment(20, 0), False)
IS_MEMBER = Member(0, 3, _moment(40, 0), None, False)
AGENTS: list[tuple[bool, set[str]]] = [(True, {"Agent"})] * len(LOGINS)
KNOWN = House(
    AGENTS,
    [LEADS_NOW, LED, WAS_MEMBER, IS_MEMBER],
    [(1, _moment(40, 1)), (1, _moment(40, 0)), (1, _moment(20, 1)), (1, _moment(20, 0)), (None, LAST)],
)


class _Undone(Exception):
    """So that the next example finds the tables empty."""


def _fill(connection: Connection, house: House) -> list[tuple[str, str | None, datetime]]:
    """Id, owner's login and start of each leg."""
    for login, (is_enabled, groups) in zip(LOGINS, house.accounts, strict=True):
        settings.add_account(connection, login, login, tuple(groups))
        connection.execute(account.update().where(account.c.login == login).values(enabled=is_enabled))
    for team_id in TEAMS:
        connection.execute(team.insert().values(id=team_id, name=team_id))
    for member in house.members:
        connection.execute(
            team_member.insert().values(
                team_id=TEAMS[member.team],
                account_id=settings.account_id(LOGINS[member.login]),
                joined_at=member.joined_at,
                left_at=member.left_at,
                is_leader=member.is_leader,
            )
        )
    return [_add_leg(connection, number, *leg) for number, leg in enumerate(house.legs)]


def _add_leg(
    connection: Connection, number: int, owner: int | None, started_at: datetime
) -> tuple[str, str | None, datetime]:
    leg_id, login = recording.new_id(), None if owner is None else LOGINS[owner]
    texts = dict.fromkeys(("source", "destination", "did", "external_reference"), "")
    connection.execute(
        call_record.insert().values(
            id=leg_id, server="pbx1", uniqueid=f"1.{number}", started_at=started_at, **texts
        )
    )
    texts = dict.fromkeys(("uniqueid", "channel", "extension", "agent_login_name", "tag", "file"), "")
    connection.execute(
        recording_leg.insert().values(
            id=leg_id,
            call_record_id=leg_id,
            leg=1,
            owner_id=login and settings.account_id(login),
            status="completed",
            started_at=started_at,
            **texts,
        )
    )
    return leg_id, login, started_at


def _assert_equal(
    connection: Connection, legs: list[tuple[str, str | None, datetime]], known: People, since: datetime
) -> None:
    for login in (*LOGINS, "nobody", ""):
        wanted = Filter(heard_by=login, started_from=since)
        by_sql = {leg["id"] for leg in queries.legs(connection, wanted)}
        by_function = {
            leg_id
            for leg_id, owner, started_at in legs
            if started_at >= since and people.may_hear(login, owner, started_at, known)
        }
        assert by_function == by_sql, login
        if login in known.enabled:
            wanted = wanted._replace(owners=hearing.owners(connection, login))
            assert (wanted.owners is None) == (login in known.hear_all)
            _assert_newest(connection, wanted, by_sql)


def _assert_newest(connection: Connection, wanted: Filter, heard: set[str]) -> None:
    """By the index of owners: the same legs, and the newest of them behind the right one."""
    in_order = [leg["id"] for leg in queries.legs(connection, wanted)]
    assert set(in_order) == heard
    for count in (1, 2, len(in_order)):
        behind = queries.leg_before_the_newest(connection, wanted, count)
        assert (behind and behind["id"]) == (in_order[-count - 1] if len(in_order) > count else None)


def test_function_and_sql_let_everybody_hear_the_same_legs(store: Store, is_long: bool) -> None:
    @hypothesis.settings(max_examples=80 if is_long else 25, deadline=None)
    @given(house=HOUSES)
    @example(house=KNOWN)
    def check(house: House) -> None:
        with contextlib.suppress(_Undone), store.transaction() as connection:
            legs = _fill(connection, house)
            _assert_equal(connection, legs, hearing.people(connection), LAST - timedelta(days=3))
            raise _Undone

    check()


def test_what_the_snapshot_knows_decides_the_same_of_a_days_legs(
    store: Store, tmp_path: Path, is_long: bool
) -> None:
    path = str(tmp_path / "snapshot.json")

    @hypothesis.settings(max_examples=40 if is_long else 15, deadline=None)
    @given(house=HOUSES)
    @example(house=KNOWN)
    def check(house: House) -> None:
        with contextlib.suppress(_Undone), store.transaction() as connection:
            legs = _fill(connection, house)
            snapshot.save(path, settings.snapshot(connection))
            loaded = snapshot.load(path)
            assert loaded is not None
            known = loaded.people()
            assert known is not None
            _assert_equal(connection, legs, known, loaded.read_at - snapshot.LONGEST_CALL)
            raise _Undone

    check()


def test_the_snapshot_keeps_nobody_who_left_long_ago_and_no_team_that_nobody_leads(store: Store) -> None:
    """So a large site's history is not read with each call."""
    members = [
        Member(0, 0, _moment(48, 0), None, True),
        Member(0, 1, _moment(48, 0), _moment(30, 0), False),
        Member(0, 1, _moment(23, 0), None, False),
        Member(0, 2, _moment(48, 0), _moment(30, 0), False),
        Member(1, 2, _moment(48, 0), None, False),
    ]
    with store.transaction() as connection:
        _fill(connection, House(AGENTS, members, []))
        known = settings.snapshot(connection).people()

    assert known is not None
    [only] = known.teams
    stays = {login: [stay.joined_at for stay in stays] for login, stays in only.stays.items()}
    assert only.leaders == {"Ann"}
    assert stays == {"Ann": [_moment(48, 0)], "fred": [_moment(23, 0)]}
