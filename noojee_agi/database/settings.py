"""What a sysadmin sets: the apiKey, accounts and their groups, and who is attached to which extension."""

import uuid
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, func, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from noojee_agi.database import attachments, hearing, intake
from noojee_agi.database.tables import account, account_group, extension_attachment, system_variable
from noojee_agi.errors import BadArgument
from noojee_agi.recordings import people, recording
from noojee_agi.recordings.recording import Attachment
from noojee_agi.recordings.snapshot import LONGEST_CALL, Snapshot

_API_KEY = "apiKey"
_INSTANT = timedelta(microseconds=1)
_ACCOUNTS = uuid.UUID("c0a6e9b4-5f0d-4d3e-8f0a-9f3b6d1f2a77")


def account_id(login: str) -> str:
    """The same login always gets the same id, so that a leg's owner can be made again from a side-car."""
    return str(uuid.uuid5(_ACCOUNTS, login))


def key_digest(connection: Connection) -> str:
    """The stored digest of the apiKey; empty when none is set."""
    found = select(system_variable.c.value).where(system_variable.c.name == _API_KEY)
    return connection.scalar(found) or ""


def set_key_digest(connection: Connection, digest: str) -> None:
    """Replace the apiKey. Of two hosts at once the later one's stays."""
    changes = {"value": digest, "updated_at": recording.now()}
    new = insert(connection, system_variable).values(name=_API_KEY, **changes)
    connection.execute(new.on_conflict_do_update(index_elements=["name"], set_=changes))


def snapshot(connection: Connection) -> Snapshot:
    """What the call path must know, as of now."""
    read_at = recording.now()
    known = hearing.people(connection, since=read_at - LONGEST_CALL)
    teams = people.as_json(known.teams)
    return Snapshot(
        key_digest(connection), known.enabled, read_at, attached(connection), known.hear_all, teams
    )


def has_account(connection: Connection, login: str) -> bool:
    return connection.scalar(select(account.c.id).where(account.c.login == login)) is not None


def attached(connection: Connection) -> frozenset[str]:
    is_open = extension_attachment.c.detached_at.is_(None)
    return frozenset(connection.scalars(select(extension_attachment.c.extension).where(is_open)))


def add_account(connection: Connection, login: str, name: str, groups: tuple[str, ...]) -> None:
    """Raises BadArgument when there is one of that login."""
    new_id = account_id(login)
    new = insert(connection, account).values(id=new_id, login=login, name=name, enabled=True)
    if not connection.execute(new.on_conflict_do_nothing()).rowcount:
        raise BadArgument(f"there is an account {login} already: see noojee-agi account list")
    for group in dict.fromkeys(groups):
        connection.execute(account_group.insert().values(account_id=new_id, group_name=group))


def enable_account(connection: Connection, login: str, enabled: bool) -> None:
    """Let the account own and hear recordings, or no longer. Raises BadArgument when there is none."""
    found = connection.execute(update(account).where(account.c.login == login).values(enabled=enabled))
    if not found.rowcount:
        raise BadArgument(f"there is no account {login}: see noojee-agi account list")


def accounts(connection: Connection) -> list[dict[str, Any]]:
    """Every account with its groups and the extensions it is attached to now."""
    groups = _lists(connection, account_group.c.account_id, account_group.c.group_name, true())
    is_open = extension_attachment.c.detached_at.is_(None)
    attached = _lists(
        connection, extension_attachment.c.account_id, extension_attachment.c.extension, is_open
    )
    return [
        {
            "login": row.login,
            "name": row.name,
            "enabled": row.enabled,
            "groups": groups.get(row.id, []),
            "extensions": attached.get(row.id, []),
        }
        for row in connection.execute(select(account).order_by(account.c.login))
    ]


def attach(connection: Connection, login: str, extension: str) -> None:
    """Attach the account from now on; who was attached until now is detached. Raises BadArgument.

    Of two hosts at once the later one ends what the other has just begun.
    """
    is_there = select(account.c.id).where(account.c.login == login, account.c.enabled)
    if not connection.scalar(is_there):
        raise BadArgument(f"there is no enabled account {login}: run noojee-agi account add {login}")
    intake.store(connection, [Attachment(extension, _next_moment(connection, extension), login)])


def detach(connection: Connection, extension: str) -> None:
    """Raises BadArgument when nobody is attached."""
    moment = _next_moment(connection, extension)
    if extension not in attached(connection):
        raise BadArgument(f"nobody is attached to {extension}: see noojee-agi account list")
    intake.store(connection, [Attachment(extension, moment, "")])


def _next_moment(connection: Connection, extension: str) -> datetime:
    """Now, in turn with the other hosts; one whose clock is ahead of ours was first all the same."""
    attachments.take_turn(connection, changes=True)
    latest = select(func.max(extension_attachment.c.attached_at)).where(
        extension_attachment.c.extension == extension
    )
    before = connection.scalar(latest)
    return max(recording.now(), before + _INSTANT) if before else recording.now()


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that may say what is done when the row is there already."""
    return (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(table)


def _lists(connection: Connection, key: Any, value: Any, condition: Any) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for row in connection.execute(select(key, value).where(condition).order_by(value)):
        lists.setdefault(row[0], []).append(row[1])
    return lists
