"""Rows that a database has lost, from what was kept of them outside. What is there is never changed."""

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
    """Insert call record, owner and leg of each side-car whose leg is not there; returns these legs' ids."""
    there = _there(connection, [leg["id"] for leg in side_cars])
    missing = {leg["id"]: leg for leg in side_cars if leg["id"] not in there}
    for leg in missing.values():
        _restore_leg(connection, leg)
    return list(missing)


def _there(connection: Connection, ids: list[str]) -> set[str]:
    return set(connection.scalars(select(recording_leg.c.id).where(recording_leg.c.id.in_(ids))))


def _restore_leg(connection: Connection, leg: dict[str, Any]) -> None:
    record_id = _restore_call_record(connection, leg)
    values = {name: leg[name] for name in _OF_LEG}
    values["call_record_id"] = record_id
    values["leg"] = _number(connection, record_id, leg["leg"])
    values["owner_id"] = _restore_owner(connection, leg["owner"])
    _insert_missing(connection, recording_leg, values)
    intake.end_call_record(connection, record_id)


def _restore_call_record(connection: Connection, leg: dict[str, Any]) -> str:
    """A call that went on after the loss has a record again, but it knows only of what came after it."""
    record_id = intake.call_record_id(leg["server"], leg["call_uniqueid"])
    values = {name: leg[name] for name in ("server", "source", "destination", "did", "external_reference")}
    values.update(id=record_id, uniqueid=leg["call_uniqueid"], started_at=leg["call_started_at"])
    _insert_missing(connection, call_record, values)
    call = call_record.c
    known = connection.execute(
        select(call.started_at, call.external_reference).where(call.id == record_id).with_for_update()
    ).one()
    connection.execute(
        update(call_record)
        .where(call.id == record_id)
        .values(
            started_at=min(known.started_at, leg["call_started_at"]),
            external_reference=known.external_reference or leg["external_reference"],
            ended_at=None,
        )
    )
    return record_id


def _number(connection: Connection, record_id: str, wanted: int) -> int:
    """The leg's own number, unless another leg of the call has got it meanwhile."""
    numbers = select(recording_leg.c.leg).where(recording_leg.c.call_record_id == record_id)
    taken = set(connection.scalars(numbers))
    return max(taken) + 1 if wanted in taken else wanted


def _restore_owner(connection: Connection, login: str | None) -> str | None:
    """The account of that login, made again, but not enabled, when it is not there."""
    if login is None:
        return None
    row = {"id": settings.account_id(login), "login": login, "name": login, "enabled": False}
    _insert_missing(connection, account, row)
    return connection.scalar(select(account.c.id).where(account.c.login == login))


def _insert_missing(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return connection.execute(insert(table).values(row).on_conflict_do_nothing()).rowcount
