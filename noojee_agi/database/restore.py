"""Rows that a database has lost, from what was kept of them outside. What is there is never changed."""

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


def restore_settings(connection: Connection, rows: dict[str, list[dict[str, Any]]]) -> int:
    """Insert those rows that are not there; times may be text. Returns how many.

    Raises KeyError, TypeError and ValueError when they are none of settings_rows().
    """
    return sum(
        _insert_missing(connection, table, _with_times(table, row))
        for table in _SETTINGS
        for row in rows[table.name]
    )


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


def _insert_missing(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return connection.execute(insert(table).values(row).on_conflict_do_nothing()).rowcount
