"""Events of the spool -> call records and legs. Every step may be repeated: twice is harmless.

The statements are built once, and each event takes few of them: a thousand events may wait.
"""

import uuid
from collections.abc import Iterable

from sqlalchemy import Connection, Insert, bindparam, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from noojee_agi.database.tables import RECORDING, account, call_record, extension_attachment, recording_leg
from noojee_agi.errors import StoreRejected
from noojee_agi.recording import Ending, Event, Leg

_CALLS = uuid.UUID("5d3f4b0e-6a58-4c29-9a53-2f6a9f1d7c11")


def call_record_id(server: str, uniqueid: str) -> str:
    """The same call always gets the same id, so that it can be made again from a side-car."""
    return str(uuid.uuid5(_CALLS, f"{server}\0{uniqueid}"))


def store(connection: Connection, events: Iterable[Event]) -> None:
    """Raises StoreRejected for an ending whose leg is not there."""
    events = list(events)
    stored = _stored(connection, [event.id for event in events if isinstance(event, Leg)])
    for event in events:
        if isinstance(event, Ending):
            _store_ending(connection, event)
        elif event.id not in stored:
            _store_leg(connection, event)
            stored.add(event.id)


def end_call_record(connection: Connection, record_id: str) -> None:
    """A call's recording has ended when none of its legs records any more."""
    connection.execute(_END_CALL, {"of_call": record_id})


def _stored(connection: Connection, leg_ids: list[str]) -> set[str]:
    return set(connection.scalars(select(recording_leg.c.id).where(recording_leg.c.id.in_(leg_ids))))


def _store_leg(connection: Connection, leg: Leg) -> None:
    record_id = call_record_id(leg.server, leg.call_uniqueid)
    connection.execute(
        _BEGIN_CALL[connection.dialect.name],
        {
            "id": record_id,
            "server": leg.server,
            "uniqueid": leg.call_uniqueid,
            "source": leg.source,
            "destination": leg.destination,
            "did": leg.did,
            "external_reference": leg.tag,
            "started_at": leg.started_at,
        },
    )
    owner_id, extension = _owner(connection, leg)
    inserted = connection.execute(
        _INSERT_LEG[connection.dialect.name],
        {
            "of_call": record_id,
            "id": leg.id,
            "call_record_id": record_id,
            "uniqueid": leg.uniqueid,
            "channel": leg.channel,
            "extension": extension,
            "owner_id": owner_id,
            "agent_login_name": leg.agent_login_name,
            "tag": leg.tag,
            "file": leg.file,
            "status": "recording",
            "started_at": leg.started_at,
        },
    )
    if not inserted.rowcount:  # sync --rebuild has made it at this very moment
        end_call_record(connection, record_id)


def _owner(connection: Connection, leg: Leg) -> tuple[str | None, str]:
    """The account that owns the leg, as of the call's time, and the extension that the leg is filed under."""
    first = leg.extension or next(iter(leg.extensions), "")
    if leg.agent_login_name:
        found = _KNOWN_LOGIN if leg.agent_known else _ENABLED_LOGIN
        return connection.scalar(found, {"named": leg.agent_login_name.strip()}), first
    attached = _attached(connection, leg)
    for extension in leg.extensions:
        if extension in attached:
            return attached[extension], leg.extension or extension
    return None, first


def _attached(connection: Connection, leg: Leg) -> dict[str, str]:
    """Extension -> account, of this call's extensions, at the time when the leg started."""
    rows = connection.execute(_ATTACHED, {"extensions": leg.extensions, "started_at": leg.started_at})
    return {row.extension: row.account_id for row in rows}


def _store_ending(connection: Connection, ending: Ending) -> None:
    leg = connection.execute(_LEG, {"leg_id": ending.leg_id}).one_or_none()
    if leg is None:
        raise StoreRejected(f"leg {ending.leg_id} has ended, but nothing is known of its start")
    if ending.status == "failed" and leg.status != "recording":
        return  # a file was seen after all
    duration = ending.duration_seconds
    if duration is None and ending.status == "completed":
        duration = max(0.0, (ending.ended_at - leg.started_at).total_seconds())
    connection.execute(
        _END_LEG,
        {
            "leg_id": ending.leg_id,
            "status": ending.status,
            "ended_at": ending.ended_at,
            "duration_seconds": duration,
            "bytes": ending.bytes,
        },
    )
    end_call_record(connection, leg.call_record_id)


def _begin_call(insert: sqlite.Insert | postgresql.Insert) -> Insert:
    """A call's record is made by its first leg; each leg may bring a tag, and opens the record again.

    The row is then locked: legs of one call are numbered in turn.
    """
    tag = func.coalesce(func.nullif(insert.excluded.external_reference, ""), call_record.c.external_reference)
    return insert.on_conflict_do_update(
        index_elements=["server", "uniqueid"], set_={"external_reference": tag, "ended_at": None}
    )


def _insert_leg(insert: sqlite.Insert | postgresql.Insert) -> Insert:
    """Unless it is there; with the call's next number."""
    number = select(func.coalesce(func.max(recording_leg.c.leg), 0) + 1).where(_OF_CALL).scalar_subquery()
    return insert.values(leg=number).on_conflict_do_nothing(index_elements=["id"])


# The statements.
_OF_CALL = recording_leg.c.call_record_id == bindparam("of_call")
_BEGIN_CALL = {
    "sqlite": _begin_call(sqlite.insert(call_record)),
    "postgresql": _begin_call(postgresql.insert(call_record)),
}
_INSERT_LEG = {
    "sqlite": _insert_leg(sqlite.insert(recording_leg)),
    "postgresql": _insert_leg(postgresql.insert(recording_leg)),
}
_KNOWN_LOGIN = select(account.c.id).where(account.c.login == bindparam("named"))
_ENABLED_LOGIN = _KNOWN_LOGIN.where(account.c.enabled)
_ATTACHED = select(extension_attachment.c.extension, extension_attachment.c.account_id).where(
    extension_attachment.c.extension.in_(bindparam("extensions", expanding=True)),
    extension_attachment.c.attached_at <= bindparam("started_at"),
    (extension_attachment.c.detached_at.is_(None))
    | (extension_attachment.c.detached_at > bindparam("started_at")),
)
_LEG = select(recording_leg.c.call_record_id, recording_leg.c.started_at, recording_leg.c.status).where(
    recording_leg.c.id == bindparam("leg_id")
)
_END_LEG = update(recording_leg).where(recording_leg.c.id == bindparam("leg_id"))
_END_CALL = (
    update(call_record)
    .where(
        call_record.c.id == bindparam("of_call"),
        ~exists().where(_OF_CALL, RECORDING),
    )
    .values(ended_at=select(func.max(recording_leg.c.ended_at)).where(_OF_CALL).scalar_subquery())
)
