"""What was done with legs and who wanted to hear them; a hold and a purge are in the leg's row, too."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from noojee_agi.database.tables import access_log, recording_event, recording_leg
from noojee_agi.errors import StoreRejected
from noojee_agi.recordings.recording import HELD, PURGED, RELEASED, STARTED, Access, Note


def store(
    connection: Connection, notes: Iterable[Note], accesses: Iterable[Access], known: Collection[str]
) -> None:
    """Each once, however often it comes. known: the ids of legs that are there.

    Raises StoreRejected for one of a leg that is not there.
    """
    notes, accesses = list(notes), list(accesses)
    for leg_id in [*(note.leg_id for note in notes), *(access.leg_id for access in accesses)]:
        if leg_id not in known:
            raise StoreRejected(f"something was noted of leg {leg_id}, but nothing is known of its start")
    if notes:
        connection.execute(_INSERT_EVENT[connection.dialect.name], [note._asdict() for note in notes])
        _mark(connection, _HOLD, {note.leg_id for note in notes if note.what in (HELD, RELEASED)})
        _mark(connection, _PURGE, {note.leg_id for note in notes if note.what == PURGED})
    if accesses:
        connection.execute(_INSERT_ACCESS[connection.dialect.name], [each._asdict() for each in accesses])


def _mark(connection: Connection, statement: Any, leg_ids: set[str]) -> None:
    if leg_ids:
        connection.execute(statement, [{"of_leg": leg_id} for leg_id in sorted(leg_ids)])


def started(leg_id: str, at: datetime, agent_login_name: str) -> Note:
    """What a leg's own start says."""
    return Note(leg_id, at, STARTED, agent_login_name or None)


def stories(connection: Connection, leg_ids: Collection[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Leg -> its events and its accesses, in the order of time; without the leg's id."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        leg_id: {"events": [], "accesses": []} for leg_id in leg_ids
    }
    if found:
        for name, statement in (("events", _EVENTS), ("accesses", _ACCESSES)):
            for row in connection.execute(statement, {"leg_ids": list(found)}):
                content = dict(row._mapping)
                found[content.pop("leg_id")][name].append(content)
    return found


_EVENT, _LEG, _ACCESS = recording_event.c, recording_leg.c, access_log.c
_INSERT_EVENT = {
    "sqlite": sqlite.insert(recording_event).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(recording_event).on_conflict_do_nothing(),
}
_INSERT_ACCESS = {
    "sqlite": sqlite.insert(access_log).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(access_log).on_conflict_do_nothing(),
}
_THIS = _LEG.id == bindparam("of_leg")
# The latest of the two counts, in whatever order they come; of the same moment, the hold. Not with in_(): its
# parameters cannot be those of several legs at once.
_LATEST = (
    select(_EVENT.what == HELD)
    .where(_EVENT.leg_id == bindparam("of_leg"), or_(_EVENT.what == HELD, _EVENT.what == RELEASED))
    .order_by(_EVENT.at.desc(), _EVENT.what)
    .limit(1)
    .scalar_subquery()
)
_HOLD = update(recording_leg).where(_THIS).values(held=_LATEST)
_FIRST_PURGE = (
    select(func.min(_EVENT.at))
    .where(_EVENT.leg_id == bindparam("of_leg"), _EVENT.what == PURGED)
    .scalar_subquery()
)
_PURGE = (
    update(recording_leg)
    .where(_THIS)
    .values(
        purged_at=_FIRST_PURGE,
        purged_file=case((_LEG.file != "", _LEG.file), else_=_LEG.purged_file),
        file="",
    )
)
_OF_LEGS: Any = bindparam("leg_ids", expanding=True)
_EVENTS = select(recording_event).where(_EVENT.leg_id.in_(_OF_LEGS)).order_by(_EVENT.at, _EVENT.what)
_ACCESSES = select(access_log).where(_ACCESS.leg_id.in_(_OF_LEGS)).order_by(_ACCESS.at, _ACCESS.id)
