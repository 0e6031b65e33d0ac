"""What `noojee-agi check` asks the database: whether it can be written, its clock, and whose legs it has."""

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, text

from noojee_agi.database import settings
from noojee_agi.database.store import Store
from noojee_agi.database.tables import (
    RECORDING,
    call_record,
    metadata,
    recording_leg,
    system_variable,
)

_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_PROBE = "noojee-agi check"


class _Undone(Exception):
    """Ends a transaction that shall change nothing."""


def try_to_write(store: Store) -> None:
    """Write a row, and take it back. Raises StoreUnavailable and StoreRejected."""
    with contextlib.suppress(_Undone), store.transaction() as connection:
        now = datetime.now().astimezone()
        new = settings.insert(connection, system_variable).values(name=_PROBE, value="", updated_at=now)
        connection.execute(new.on_conflict_do_nothing())
        raise _Undone


def missing_right(store: Store) -> tuple[str, str]:
    """A right at a table of ours that PostgreSQL's user has not, and the table; empty when it has all."""
    if store.url.get_backend_name() == "sqlite":
        return "", ""
    with store.reading() as connection:
        for table in metadata.tables:
            for right in _RIGHTS:
                if not connection.scalar(select(func.has_table_privilege(table, right))):
                    return right, table
    return "", ""


def clock_difference(store: Store) -> float:
    """By how many seconds the database's clock is ahead of ours, at least. Raises StoreUnavailable."""
    if store.url.get_backend_name() == "sqlite":
        return 0.0
    with store.reading() as connection:
        before = time.time()
        there = float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
        return there - min(max(there, before), time.time())  # a late answer is no difference


def others_with_open_legs(connection: Connection, until: datetime) -> Iterator[tuple[str, int]]:
    """Servers that have begun nothing since then, and how many legs of theirs are thought to record still."""
    leg, call = recording_leg.c, call_record.c
    found = (
        select(call.server, func.count())
        .select_from(recording_leg.join(call_record, call.id == leg.call_record_id))
        .where(RECORDING, leg.started_at < until)
        .group_by(call.server)
        .order_by(call.server)
    )
    for server, count in connection.execute(found).all():
        # By the legs' index of time: a server may have millions of calls, but few of one day.
        lately = (
            select(leg.id)
            .join(call_record, call.id == leg.call_record_id)
            .where(leg.started_at >= until, call.server == server)
            .limit(1)
        )
        if connection.scalar(lately) is None:
            yield server, count


def lately_ended(connection: Connection, server: str, since: datetime, most: int) -> list[dict[str, Any]]:
    """The last legs of that server with audio."""
    leg, call = recording_leg.c, call_record.c
    found = (
        select(leg.id, leg.file)
        .join(call_record, call.id == leg.call_record_id)
        .where(leg.status == "completed", leg.started_at >= since, call.server == server)
        .order_by(leg.started_at.desc())
        .limit(most)
    )
    return [dict(row._mapping) for row in connection.execute(found)]
