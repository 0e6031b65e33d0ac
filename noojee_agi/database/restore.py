"""Rows that a database has lost, from what was kept of them outside."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, select, update
from sqlalchemy.dialects import postgresql, sqlite

from noojee_agi.database import intake, settings
from noojee_agi.database.tables import (
    UtcDateTime,
    account,
    account_group,
    call_record,
    extension_attachment,
    recording_leg,
    system_variable,
    team,
    team_member,
)
from noojee_agi.recording import Ending

_SETTINGS = (system_variable, account, account_group, team, team_member, extension_attachment)
_ENDS = {"team_member": "left_at", "extension_attachment": "detached_at"}
_OF_LEG = (
    *("id", "uniqueid", "channel", "extension", "agent_login_name", "tag", "file"),
    *("status", "started_at", "ended_at", "duration_seconds", "bytes"),
)


def settings_rows(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Everything but call records and legs: table -> rows."""
    return {
        table.name: [
            dict(row._mapping)
            for row in connection.execute(select(table).order_by(*table.primary_key.columns))
        ]
        for table in _SETTINGS
    }


def lost(old: dict[str, list[dict[str, Any]]], new: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether old knows what new does not. Groups and teams may be taken away, nothing else is."""
    for table in (system_variable, account, extension_attachment):
        there = {_key(table, row): row for row in new[table.name]}
        if any(_knows_less(there.get(_key(table, row)), row) for row in old[table.name]):
            return True
    return False


def _key(table: Table, row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[column.name]) for column in table.primary_key.columns)


def _knows_less(new: dict[str, Any] | None, old: dict[str, Any]) -> bool:
    """Whether the row is gone, its end is forgotten, or it is an older one."""
    return (
        new is None
        or bool(old.get("detached_at") and not new.get("detached_at"))
        or old.get("updated_at", "") > new.get("updated_at", "")
    )


def restore_settings(connection: Connection, rows: dict[str, list[dict[str, Any]]]) -> int:
    """Insert those rows that are not there, end what has ended, take the newer variable; times may be text.

    Returns how many rows have changed. Raises KeyError, TypeError and ValueError when they are none of
    settings_rows().
    """
    there = set(connection.scalars(select(account.c.id)))
    # A group that was taken from an account does not come back.
    groups = [row for row in rows[account_group.name] if row["account_id"] not in there]
    rows = {**rows, account_group.name: groups}
    return sum(_restore_rows(connection, table, rows[table.name]) for table in _SETTINGS)


def _restore_rows(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> int:
    """The ended ones first: an extension has one open attachment."""
    end = _ENDS.get(table.name, "")
    found = sorted((_with_times(table, row) for row in rows), key=lambda row: row.get(end) is None)
    if table is extension_attachment:
        found = [_ended_by_the_next(connection, row) for row in found]
    return sum(_insert_or_renew(connection, table, row, end) for row in found)


def _ended_by_the_next(connection: Connection, row: dict[str, Any]) -> dict[str, Any]:
    """When the extension has been attached to somebody else since, this attachment ended then."""
    attachment = extension_attachment.c
    next_at = connection.scalar(
        select(attachment.attached_at).where(
            attachment.extension == row["extension"],
            attachment.detached_at.is_(None),
            attachment.attached_at > row["attached_at"],
        )
    )
    return {**row, "detached_at": row["detached_at"] or next_at}


def _insert_or_renew(connection: Connection, table: Table, row: dict[str, Any], end: str) -> int:
    statement = _insert(connection, table).values(row)
    new, key = statement.excluded, table.primary_key.columns
    if end:
        statement = statement.on_conflict_do_update(
            index_elements=key,
            set_={end: new[end]},
            where=table.c[end].is_(None) & new[end].is_not(None),
        )
    elif table is system_variable:
        statement = statement.on_conflict_do_update(
            index_elements=key,
            set_={"value": new.value, "updated_at": new.updated_at},
            where=new.updated_at > table.c.updated_at,
        )
    else:
        statement = statement.on_conflict_do_nothing()
    return connection.execute(statement).rowcount


def _with_times(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    times = [name for name in row if isinstance(table.columns[name].type, UtcDateTime)]
    return {**row, **{name: datetime.fromisoformat(row[name]) for name in times if row[name]}}


def restore_legs(connection: Connection, side_cars: list[dict[str, Any]]) -> list[str]:
    """Insert call record, owner and leg of each side-car whose leg is not there; returns these legs' ids.

    A leg that records, although its side-car knows its end, is that of an older backup: it is ended.
    """
    there = _statuses(connection, [leg["id"] for leg in side_cars])
    missing = {leg["id"]: leg for leg in side_cars if leg["id"] not in there}
    ended = [leg for leg in side_cars if there.get(leg["id"]) == "recording" != leg["status"]]
    owners = _restore_owners(connection, missing.values())
    for leg in missing.values():
        _restore_leg(connection, leg, owners.get(leg["owner"]))
    intake.store(connection, map(_ending, ended))
    return [*missing, *(leg["id"] for leg in ended)]


def _statuses(connection: Connection, ids: list[str]) -> dict[str, str]:
    leg = recording_leg.c
    rows = connection.execute(select(leg.id, leg.status).where(leg.id.in_(ids)))
    return {row.id: row.status for row in rows}


def _ending(leg: dict[str, Any]) -> Ending:
    return Ending(leg["id"], leg["status"], leg["ended_at"], leg["bytes"], leg["duration_seconds"])


def _restore_owners(connection: Connection, legs: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Login -> account, made again, but not enabled, where there is none.

    In this order on each host: two that insert the same ones would wait for each other.
    """
    logins = sorted({leg["owner"] for leg in legs if leg["owner"] is not None})
    for login in logins:
        row = {"id": settings.account_id(login), "login": login, "name": login, "enabled": False}
        _insert_missing(connection, account, row)
    rows = connection.execute(select(account.c.login, account.c.id).where(account.c.login.in_(logins)))
    return {row.login: row.id for row in rows}


def _restore_leg(connection: Connection, leg: dict[str, Any], owner_id: str | None) -> None:
    record_id = _restore_call_record(connection, leg)
    values = {name: leg[name] for name in _OF_LEG}
    values["call_record_id"] = record_id
    values["leg"] = _number(connection, record_id, leg["leg"])
    values["owner_id"] = owner_id
    _insert_missing(connection, recording_leg, values)
    intake.end_call_record(connection, record_id)


def _restore_call_record(connection: Connection, leg: dict[str, Any]) -> str:
    """Of what is there, and what the side-car says of the call, the earlier beginning and the later tag.

    A call that went on after the loss has a record again, but it knows only of what came after it; one of
    an older backup knows only of what came before.
    """
    record_id = intake.call_record_id(leg["server"], leg["call_uniqueid"])
    beginning = {name: leg[name] for name in ("source", "destination", "did")}
    beginning["started_at"] = leg["call_started_at"]
    reference = {"external_reference": leg["external_reference"]}
    names = {"id": record_id, "server": leg["server"], "uniqueid": leg["call_uniqueid"]}
    _insert_missing(connection, call_record, {**names, **beginning, **reference})
    call = call_record.c
    started_at = connection.scalar(select(call.started_at).where(call.id == record_id).with_for_update())
    changes = {"ended_at": None}
    if started_at and leg["call_started_at"] < started_at:
        changes |= beginning
    if leg["external_reference"] and not _has_later_tag(connection, record_id, leg):
        changes |= reference
    connection.execute(update(call_record).where(call.id == record_id).values(changes))
    return record_id


def _has_later_tag(connection: Connection, record_id: str, leg: dict[str, Any]) -> bool:
    other = recording_leg.c
    later = select(other.id).where(
        other.call_record_id == record_id, other.tag != "", other.started_at > leg["started_at"]
    )
    return connection.scalar(later.limit(1)) is not None


def _number(connection: Connection, record_id: str, wanted: int) -> int:
    """The leg's own number, unless another leg of the call has got it meanwhile."""
    numbers = select(recording_leg.c.leg).where(recording_leg.c.call_record_id == record_id)
    taken = set(connection.scalars(numbers))
    return max(taken) + 1 if wanted in taken else wanted


def _insert_missing(connection: Connection, table: Table, row: dict[str, Any]) -> None:
    connection.execute(_insert(connection, table).on_conflict_do_nothing(), row)


def _insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    return (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(table)
