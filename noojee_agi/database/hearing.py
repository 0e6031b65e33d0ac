"""Who may hear a leg: recordings.people's rule in SQL, and the people for its function."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, or_, select

from noojee_agi.database.tables import account, account_group, recording_leg, team_member
from noojee_agi.errors import NotAllowed
from noojee_agi.recordings.people import HEAR_ALL, People, Stay, Team


def may_hear(login: str) -> ColumnElement[bool]:
    """Whether this enabled account may hear a leg: all, its team's while it leads it, or its own."""
    listener = account.alias("listener")
    leading, member = team_member.alias("leading"), team_member.alias("member")
    started = recording_leg.c.started_at
    hears_all = (
        exists()
        .where(account_group.c.account_id == listener.c.id, account_group.c.group_name.in_(HEAR_ALL))
        .correlate_except(account_group)
    )
    leads_owner = (
        exists()
        .where(
            leading.c.account_id == listener.c.id,
            leading.c.is_leader,
            leading.c.left_at.is_(None),
            member.c.team_id == leading.c.team_id,
            member.c.account_id == recording_leg.c.owner_id,
            member.c.joined_at <= started,
            or_(member.c.left_at.is_(None), member.c.left_at > started),
        )
        .correlate_except(leading, member)
    )
    own = recording_leg.c.owner_id == listener.c.id
    return exists().where(listener.c.login == login, listener.c.enabled, or_(hears_all, leads_owner, own))


def owners(connection: Connection, login: str) -> tuple[str, ...] | None:
    """The ids of all accounts whose legs, or some of them, this one may hear; None: it hears all.

    Raises NotAllowed when there is no such account, or it is disabled.
    """
    groups = select(account_group.c.group_name).where(account_group.c.account_id == account.c.id)
    hears_all = groups.where(account_group.c.group_name.in_(HEAR_ALL)).exists().label("hears_all")
    asked = select(account.c.id, account.c.enabled, hears_all).where(account.c.login == login)
    found = connection.execute(asked).one_or_none()
    if found is None:
        raise NotAllowed(f"there is no account {login}: see noojee-agi account list")
    if not found.enabled:
        raise NotAllowed(f"{login} is disabled, and hears nothing: noojee-agi account enable {login}")
    if found.hears_all:
        return None
    leading, member = team_member.alias("leading"), team_member.alias("member")
    of_teams = select(member.c.account_id).join(leading, leading.c.team_id == member.c.team_id)
    led = of_teams.where(leading.c.account_id == found.id, leading.c.is_leader, leading.c.left_at.is_(None))
    return tuple(sorted({found.id, *connection.scalars(led)}))


def people(connection: Connection, since: datetime | None = None) -> People:
    """Who may hear legs that began since then; None: any leg."""
    hear_all = (
        select(account.c.login)
        .join(account_group, account_group.c.account_id == account.c.id)
        .where(account.c.enabled, account_group.c.group_name.in_(HEAR_ALL))
    )
    hearing_all = frozenset(connection.scalars(hear_all))
    return People(enabled_logins(connection), hearing_all, _teams(connection, since))


def enabled_logins(connection: Connection) -> frozenset[str]:
    return frozenset(connection.scalars(select(account.c.login).where(account.c.enabled)))


def _teams(connection: Connection, since: datetime | None) -> tuple[Team, ...]:
    """Those that somebody leads now."""
    member = team_member.c
    led = select(member.team_id).where(member.is_leader, member.left_at.is_(None))
    statement = (
        select(member.team_id, account.c.login, member.joined_at, member.left_at, member.is_leader)
        .join(account, account.c.id == member.account_id)
        .where(member.team_id.in_(led))
        .order_by(member.team_id, account.c.login, member.joined_at)
    )
    if since is not None:
        statement = statement.where(or_(member.left_at.is_(None), member.left_at > since))
    rows_of: dict[str, list[Any]] = {}
    for row in connection.execute(statement):
        rows_of.setdefault(row.team_id, []).append(row)
    return tuple(map(_team, rows_of.values()))


def _team(rows: list[Any]) -> Team:
    stays: dict[str, tuple[Stay, ...]] = {}
    for row in rows:
        stays[row.login] = (*stays.get(row.login, ()), Stay(row.joined_at, row.left_at))
    leaders = (row.login for row in rows if row.is_leader and row.left_at is None)
    return Team(frozenset(leaders), stays)
