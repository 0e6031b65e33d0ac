"""Rows that a database has lost, from what was kept of them outside."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, select, update

from noojee_agi.database import attachments, intake, notes, owners, settings
from noojee_agi.database.attachments import Touched
from noojee_agi.database.intake import Settled
from noojee_agi.database.tables import (
    UtcDateTime,
    account,
    account_group,
    extension_attachment,
    extension_detachment,
    recording_leg,
    system_variable,
    team,
    team_member,
)
from noojee_agi.recordings.recording import Access, Attachment, Ending, Event, Leg, Note, leg_ids

_SETTINGS = (
    *(system_variable, account, account_group, team, team_member),
    *(extension_attachment, extension_detachment),
)
_ENDS = {"team_member": "left_at", "extension_attachment": "detached_at"}


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
    """Whether old knows what new does not. Groups, and teams without a history, may be taken away."""
    for table in (system_variable, account, extension_attachment, extension_detachment, team_member):
        there = {_key(table, row): row for row in new[table.name]}
        end = _ENDS.get(table.name, "")
        # A copy of an older version has no detachments.
        if any(_knows_less(there.get(_key(table, row)), row, end) for row in old.get(table.name, [])):
            return True
    return False


def _key(table: Table, row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[column.name]) for column in table.primary_key.columns)


def _knows_less(new: dict[str, Any] | None, old: dict[str, Any], end: str) -> bool:
    """Whether the row is gone, its end is forgotten, or it is an older one."""
    return (
        new is None
        or bool(old.get(end) and not new.get(end))
        or old.get("updated_at", "") > new.get("updated_at", "")
    )


def restore_settings(
    connection: Connection, rows: dict[str, list[dict[str, Any]]], attached: Iterable[Attachment] = ()
) -> int:
    """Insert those rows that are not there, end what has ended, take the newer variable; times may be text.

    attached: what came after these rows.
    Returns how many rows have changed. Raises KeyError, TypeError and ValueError when they are none of
    settings_rows().
    """
    attachments.take_turn(connection, changes=True)
    there = set(connection.scalars(select(account.c.id)))
    # A group that was taken from an account does not come back.
    groups = [row for row in rows[account_group.name] if row["account_id"] not in there]
    rows = {**rows, account_group.name: groups}
    rows.setdefault(extension_detachment.name, [])  # a copy of an older version has none
    changed = sum(_restore_rows(connection, table, rows[table.name]) for table in _SETTINGS)
    logins = {"", *connection.scalars(select(account.c.login))}
    attachments.store(connection, [each for each in attached if each.login in logins])
    return changed


def _restore_rows(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> int:
    """The ended ones first: an extension has one open attachment."""
    end = _ENDS.get(table.name, "")
    found = sorted((_with_times(table, row) for row in rows), key=lambda row: row.get(end) is None)
    if table is extension_attachment:
        found = [_ended_by_the_next(connection, row) for row in found]
        for row in found:
            _end_the_former(connection, row)
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


def _end_the_former(connection: Connection, row: dict[str, Any]) -> None:
    """When this attachment goes on, one that began before has ended then, although nobody has told."""
    attachment = extension_attachment.c
    former = (
        attachment.extension == row["extension"],
        attachment.detached_at.is_(None),
        attachment.attached_at < row["attached_at"],
    )
    if row["detached_at"] is None:
        connection.execute(update(extension_attachment).where(*former).values(detached_at=row["attached_at"]))


def _insert_or_renew(connection: Connection, table: Table, row: dict[str, Any], end: str) -> int:
    statement = settings.insert(connection, table).values(row)
    new, key = statement.excluded, table.primary_key.columns
    if end:
        statement = statement.on_conflict_do_update(
            index_elements=key,
            set_={end: new[end]},
            where=new[end].is_not(None) & (table.c[end].is_(None) | (new[end] < table.c[end])),
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


def restore_legs(connection: Connection, side_cars: list[dict[str, Any]]) -> tuple[set[str], set[str]]:
    """Store each leg that is not there as intake does; owner and call's beginning are the side-car's.

    A leg that records, or has no file, although its side-car knows better, is that of an older backup.
    Returns the legs that have changed, and the others whose side-cars may be out of date now.
    """
    attachments.take_turn(connection, changes=False)
    there = _statuses(connection, [leg["id"] for leg in side_cars])
    missing = [leg for leg in side_cars if leg["id"] not in there]
    ended = [leg for leg in side_cars if _is_ended(leg, there.get(leg["id"], "recording"))]
    noted = _noted(connection, side_cars)
    _restore_owners(connection, missing)
    settled = {
        leg["id"]: Settled(leg["owner"], leg["call_started_at"], leg["external_reference"]) for leg in missing
    }
    others = intake.store(connection, [*map(_start, missing), *map(_ending, ended), *noted], settled)
    owners.find_lost(connection, [_touched(leg) for leg in side_cars if not leg["agent_login_name"]])
    return {leg["id"] for leg in (*missing, *ended)} | leg_ids(noted), others


def _touched(leg: dict[str, Any]) -> Touched:
    return Touched(leg["id"], "", leg["extensions"], leg["started_at"])


def _noted(connection: Connection, side_cars: list[dict[str, Any]]) -> list[Event]:
    """The events and accesses that are not there."""
    there = notes.stories(connection, [leg["id"] for leg in side_cars])
    missing: list[Event] = []
    for leg in side_cars:
        of_leg = there[leg["id"]]
        events = [each for each in leg["events"] if each not in of_leg["events"]]
        accesses = [each for each in leg["accesses"] if each not in of_leg["accesses"]]
        missing += [Note(leg["id"], **each) for each in events]
        missing += [Access(leg_id=leg["id"], **each) for each in accesses]
    return missing


def _statuses(connection: Connection, ids: list[str]) -> dict[str, str]:
    leg = recording_leg.c
    rows = connection.execute(select(leg.id, leg.status).where(leg.id.in_(ids)))
    return {row.id: row.status for row in rows}


def _is_ended(leg: dict[str, Any], known: str) -> bool:
    return leg["status"] != "recording" and (known == "recording" or known == "failed" != leg["status"])


def _start(leg: dict[str, Any]) -> Leg:
    named = {name: leg[name] for name in Leg._fields if name in leg}
    named |= {"extensions": tuple(leg["extensions"]), "file": leg["file"] or leg["purged_file"]}
    return Leg(**named, agent_known=None)


def _ending(leg: dict[str, Any]) -> Ending:
    return Ending(leg["id"], leg["status"], leg["ended_at"], leg["bytes"], leg["duration_seconds"])


def _restore_owners(connection: Connection, legs: list[dict[str, Any]]) -> None:
    """Made again, but not enabled, where there is none.

    In this order on each host: two that insert the same ones would wait for each other.
    """
    for login in sorted({leg["owner"] for leg in legs if leg["owner"] is not None}):
        row = {"id": settings.account_id(login), "login": login, "name": login, "enabled": False}
        connection.execute(settings.insert(connection, account).on_conflict_do_nothing(), row)
