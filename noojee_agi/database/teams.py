"""Groups of accounts, and teams: who was in which from when to when, and who led it. Their history stays."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, exists, select, update

from noojee_agi.database import settings
from noojee_agi.database.tables import account, account_group, team, team_member
from noojee_agi.errors import BadArgument
from noojee_agi.recordings import recording

_TEAMS = uuid.UUID("5b1f2c9e-7d0a-4c55-9a3e-1f6a8e0d4b21")


def add_group(connection: Connection, login: str, group: str) -> None:
    """Raises BadArgument when there is no such account, or it is in the group already."""
    row = {"account_id": _account(connection, login), "group_name": group}
    new = settings.insert(connection, account_group).values(row).on_conflict_do_nothing()
    if not connection.execute(new).rowcount:
        raise BadArgument(f"{login} is in the group {group} already")


def remove_group(connection: Connection, login: str, group: str) -> None:
    """Raises BadArgument when there is no such account, or it is not in the group."""
    row = account_group.c.account_id == _account(connection, login), account_group.c.group_name == group
    if not connection.execute(delete(account_group).where(*row)).rowcount:
        raise BadArgument(f"{login} is not in the group {group}: see noojee-agi account list")


def add_team(connection: Connection, name: str) -> None:
    """Raises BadArgument when there is one of that name. The same name always gets the same id."""
    new = settings.insert(connection, team).values(id=str(uuid.uuid5(_TEAMS, name)), name=name)
    if not connection.execute(new.on_conflict_do_nothing()).rowcount:
        raise BadArgument(f"there is a team {name} already: see noojee-agi team list")


def remove_team(connection: Connection, name: str) -> None:
    """Raises BadArgument when there is none, or when it has a history."""
    team_id = _team(connection, name)
    if connection.scalar(select(exists().where(team_member.c.team_id == team_id))):
        raise BadArgument(
            f"{name} has had members, and that stays known; end it with noojee-agi team leave {name} LOGIN"
        )
    connection.execute(delete(team).where(team.c.id == team_id))


def join(connection: Connection, name: str, login: str) -> None:
    """The account is in the team from now on. Raises BadArgument when it is in it, or one of them is not."""
    member = _Member(connection, name, login)
    if member.joined:
        raise BadArgument(f"{login} is in {name} already")
    member.begin(recording.now(), is_leader=False)


def leave(connection: Connection, name: str, login: str) -> None:
    """The account is in the team no more, and leads it no more. Raises BadArgument when it is not in it."""
    member = _Member(connection, name, login)
    member.require_joined()
    member.end(recording.now())


def lead(connection: Connection, name: str, login: str, leads: bool) -> None:
    """The member leads the team from now on, or no more; the stay until now ends, and a new one begins.

    Raises BadArgument when it is not in it, or that is so already.
    """
    member = _Member(connection, name, login)
    member.require_joined()
    if member.is_leader == leads:
        raise BadArgument(f"{login} leads {name} already" if leads else f"{login} does not lead {name}")
    now = recording.now()
    member.end(now)
    member.begin(now, leads)


def teams(connection: Connection) -> list[dict[str, Any]]:
    """Every team with all who are or were in it, in the order of name, login and time."""
    found: dict[str, list[dict[str, Any]]] = {
        name: [] for name in connection.scalars(select(team.c.name).order_by(team.c.name))
    }
    member = team_member.c
    rows = connection.execute(
        select(team.c.name, account.c.login, member.joined_at, member.left_at, member.is_leader)
        .join(team, team.c.id == member.team_id)
        .join(account, account.c.id == member.account_id)
        .order_by(team.c.name, account.c.login, member.joined_at)
    )
    for name, *of_member in rows:
        named = zip(("login", "joined_at", "left_at", "is_leader"), of_member, strict=True)
        found[name].append(dict(named))
    return [{"name": name, "members": members} for name, members in found.items()]


class _Member:
    """An account in a team. Whoever changes one waits for who is changing another of the same team."""

    def __init__(self, connection: Connection, name: str, login: str) -> None:
        self._connection, self._name, self._login = connection, name, login
        of = {"team_id": _team(connection, name), "account_id": _account(connection, login)}
        self._of = of
        self._open = (
            team_member.c.team_id == of["team_id"],
            team_member.c.account_id == of["account_id"],
            team_member.c.left_at.is_(None),
        )
        leading = list(connection.scalars(select(team_member.c.is_leader).where(*self._open)))
        self.joined, self.is_leader = bool(leading), any(leading)

    def require_joined(self) -> None:
        if not self.joined:
            raise BadArgument(f"{self._login} is not in {self._name}: see noojee-agi team list")

    def begin(self, now: datetime, is_leader: bool) -> None:
        row = {**self._of, "joined_at": now, "is_leader": is_leader}
        self._connection.execute(team_member.insert().values(row))

    def end(self, now: datetime) -> None:
        self._connection.execute(update(team_member).where(*self._open).values(left_at=now))


def _account(connection: Connection, login: str) -> str:
    found = connection.scalar(select(account.c.id).where(account.c.login == login))
    if found is None:
        raise BadArgument(f"there is no account {login}: see noojee-agi account list")
    return str(found)


def _team(connection: Connection, name: str) -> str:
    """Its id; the row is ours until the transaction ends (with SQLite all are)."""
    found = connection.scalar(select(team.c.id).where(team.c.name == name).with_for_update())
    if found is None:
        raise BadArgument(f"there is no team {name}: see noojee-agi team list")
    return str(found)
