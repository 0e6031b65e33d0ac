"""Who reached whom in a call: what its direction is decided by."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, select

from noojee_agi.database.tables import call_record, extension_attachment, recording_leg

_FIRST_LEGS = 3  # one that waits, one with an announcement, one with a partner


def first_legs(connection: Connection, call_ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Of each of these calls the first few, in their order."""
    leg, call = recording_leg.c, call_record.c
    statement = (
        select(
            leg.call_record_id,
            *(leg.uniqueid, leg.channel, leg.peer_uniqueid, leg.peer_channel),
            *(call.uniqueid.label("call_uniqueid"), call.source, call.destination),
        )
        .join(call_record, call.id == leg.call_record_id)
        .where(leg.call_record_id.in_(call_ids), leg.leg <= _FIRST_LEGS)
        .order_by(leg.call_record_id, leg.leg)
    )
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in connection.execute(statement):
        found[row.call_record_id].append(dict(row._mapping))
    return found


def attached(connection: Connection, extensions: Iterable[str]) -> set[str]:
    """Those to which an account is attached, or ever was."""
    column = extension_attachment.c.extension
    return set(connection.scalars(select(column).distinct().where(column.in_(extensions))))
