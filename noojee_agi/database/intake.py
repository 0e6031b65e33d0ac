"""Events of the spool -> call records and legs. Every step may be repeated: twice is harmless."""

import uuid
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from noojee_agi.database.tables import RECORDING, account, call_record, extension_attachment, recording_leg
from noojee_agi.errors import StoreRejected
from noojee_agi.recording import Ending, Event, Leg

_CALLS = uuid.UUID("5d3f4b0e-6a58-4c29-9a53-2f6a9f1d7c11")


def call_record_id(server: str, uniqueid: str) -> str:
    """The same call always gets the same id, so that it can be made again from a side-car."""
    return str(uuid.uuid5(_CALLS, f"{server}\0{uniqueid}"))


def store(connection: Connection, event: Event) -> None:
    """Raises StoreRejected for an ending whose leg is not there."""
    if isinstance(event, Leg):
        _store_leg(connection, event)
    else:
        _store_ending(connection, event)


def _store_leg(connection: Connection, leg: Leg) -> None:
    if connection.scalar(select(recording_leg.c.id).where(recording_leg.c.id == leg.id)):
        return
    record_id = insert_call_record(
        connection,
        server=leg.server,
        uniqueid=leg.call_uniqueid,
        source=leg.source,
        destination=leg.destination,
        did=leg.did,
        external_reference=leg.tag,
        started_at=leg.started_at,
    )
    owner_id, extension = _owner(connection, leg)
    number = connection.scalar(
        select(func.coalesce(func.max(recording_leg.c.leg), 0) + 1).where(
            recording_leg.c.call_record_id == record_id
        )
    )
    connection.execute(
        recording_leg.insert().values(
            id=leg.id,
            call_record_id=record_id,
            leg=number,
            uniqueid=leg.uniqueid,
            channel=leg.channel,
            extension=extension,
            owner_id=owner_id,
            agent_login_name=leg.agent_login_name,
            tag=leg.tag,
            file=leg.file,
            status="recording",
            started_at=leg.started_at,
        )
    )
    changes: dict[str, object] = {"ended_at": None}
    if leg.tag:
        changes["external_reference"] = leg.tag
    connection.execute(update(call_record).where(call_record.c.id == record_id).values(changes))


def insert_call_record(connection: Connection, *, server: str, uniqueid: str, **columns: Any) -> str:
    """Unless the call has one already; returns its id.

    The row is then locked: legs of one call are numbered in turn.
    """
    record_id = call_record_id(server, uniqueid)
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(
        insert(call_record)
        .values(id=record_id, server=server, uniqueid=uniqueid, **columns)
        .on_conflict_do_nothing(index_elements=["server", "uniqueid"])
    )
    connection.execute(select(call_record.c.id).where(call_record.c.id == record_id).with_for_update())
    return record_id


def _owner(connection: Connection, leg: Leg) -> tuple[str | None, str]:
    """The account that owns the leg, as of the call's time, and the extension that the leg is filed under."""
    first = leg.extension or next(iter(leg.extensions), "")
    if leg.agent_login_name:
        found = select(account.c.id).where(account.c.login == leg.agent_login_name.strip())
        if not leg.agent_known:
            found = found.where(account.c.enabled)
        return connection.scalar(found), first
    attached = _attached(connection, leg)
    for extension in leg.extensions:
        if extension in attached:
            return attached[extension], leg.extension or extension
    return None, first


def _attached(connection: Connection, leg: Leg) -> dict[str, str]:
    """Extension -> account, of this call's extensions, at the time when the leg started."""
    attachment = extension_attachment.c
    rows = connection.execute(
        select(attachment.extension, attachment.account_id).where(
            attachment.extension.in_(leg.extensions),
            attachment.attached_at <= leg.started_at,
            (attachment.detached_at.is_(None)) | (attachment.detached_at > leg.started_at),
        )
    )
    return {row.extension: row.account_id for row in rows}


def _store_ending(connection: Connection, ending: Ending) -> None:
    leg = connection.execute(
        select(recording_leg.c.call_record_id, recording_leg.c.started_at, recording_leg.c.status).where(
            recording_leg.c.id == ending.leg_id
        )
    ).one_or_none()
    if leg is None:
        raise StoreRejected(f"leg {ending.leg_id} has ended, but nothing is known of its start")
    if ending.status == "failed" and leg.status != "recording":
        return  # a file was seen after all
    duration = ending.duration_seconds
    if duration is None and ending.status == "completed":
        duration = max(0.0, (ending.ended_at - leg.started_at).total_seconds())
    connection.execute(
        update(recording_leg)
        .where(recording_leg.c.id == ending.leg_id)
        .values(status=ending.status, ended_at=ending.ended_at, duration_seconds=duration, bytes=ending.bytes)
    )
    end_call_record(connection, leg.call_record_id)


def end_call_record(connection: Connection, record_id: str) -> None:
    """A call's recording has ended when none of its legs records any more."""
    of_call = recording_leg.c.call_record_id == record_id
    recording = select(recording_leg.c.id).where(of_call, RECORDING)
    if connection.scalar(recording.limit(1)):
        return
    connection.execute(
        update(call_record)
        .where(call_record.c.id == record_id)
        .values(ended_at=select(func.max(recording_leg.c.ended_at)).where(of_call).scalar_subquery())
    )
