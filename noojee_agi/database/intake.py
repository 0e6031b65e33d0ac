"""Events of the spool -> call records and legs: the only place that says what a leg does to its call.

The rows are what all events together say, in whatever order they come and however often: a call began as its
earliest leg says, has the tag of the latest leg that has one, ended with the last of them, and its legs are
numbered in the order of their starting. A transaction first locks the calls that it changes, always in the
same order: so hosts whose legs are of one call take turns.
The statements are built once, and each event takes few of them: a thousand events may wait.
"""

import itertools
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, bindparam, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from noojee_agi.database.tables import RECORDING, account, call_record, extension_attachment, recording_leg
from noojee_agi.errors import StoreRejected
from noojee_agi.recordings.recording import Ending, Event, Leg, leg_id

_CALLS = uuid.UUID("5d3f4b0e-6a58-4c29-9a53-2f6a9f1d7c11")
_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Settled:
    """What a side-car knows besides its leg, and is not settled anew. owner: a login; None for nobody's."""

    owner: str | None
    call_started_at: datetime
    external_reference: str


_NOTHING: Mapping[str, Settled] = MappingProxyType({})


def call_record_id(server: str, uniqueid: str) -> str:
    """The same call always gets the same id, so that it can be made again from a side-car."""
    return str(uuid.uuid5(_CALLS, f"{server}\0{uniqueid}"))


def store(
    connection: Connection, events: Iterable[Event], settled: Mapping[str, Settled] = _NOTHING
) -> set[str]:
    """Starts before endings. settled: of legs that come from side-cars, by the leg's id.

    Returns the other legs whose side-cars may be out of date now. When a start comes again, these are all
    of its call: whoever brought it before may have been killed before he wrote them.
    Raises StoreRejected for an ending whose leg is not there.
    """
    events = list(events)
    starts = [event for event in events if isinstance(event, Leg)]
    own = {leg_id(event) for event in events}
    calls_of = _calls_of(connection, own)
    new = _by_call(leg for leg in starts if leg.id not in calls_of)
    calls = _locked(connection, {*calls_of.values(), *new})
    others = legs_of(connection, {calls_of[leg.id] for leg in starts if leg.id in calls_of})
    for record_id, legs in new.items():
        others |= _store_legs(connection, calls.get(record_id), legs, settled)
    _store_endings(connection, [event for event in events if isinstance(event, Ending)])
    return others - own


def _calls_of(connection: Connection, leg_ids: set[str]) -> dict[str, str]:
    """Leg -> call record, of those legs that are there."""
    leg = recording_leg.c
    rows = connection.execute(select(leg.id, leg.call_record_id).where(leg.id.in_(leg_ids)))
    return {row.id: row.call_record_id for row in rows}


def legs_of(connection: Connection, record_ids: set[str]) -> set[str]:
    """All legs of these calls."""
    leg = recording_leg.c
    if not record_ids:
        return set()
    return set(connection.scalars(select(leg.id).where(leg.call_record_id.in_(record_ids))))


def _by_call(legs: Iterable[Leg]) -> dict[str, list[Leg]]:
    """Call record -> its legs, each once, as they started; the calls in the order of locking."""
    once = {leg.id: leg for leg in reversed([*legs])}
    found = sorted((call_record_id(leg.server, leg.call_uniqueid), *_order(leg)) for leg in once.values())
    return {
        record_id: [once[each] for _, _, each in of_call]
        for record_id, of_call in itertools.groupby(found, key=lambda entry: entry[0])
    }


def _order(leg: Any) -> tuple[datetime, str]:
    return leg.started_at, leg.id


def _locked(connection: Connection, record_ids: set[str]) -> dict[str, Any]:
    """Those that are there; nobody else changes them, or adds a leg, before this transaction has ended."""
    call = call_record.c
    rows = select(call_record).where(call.id.in_(record_ids)).order_by(call.id).with_for_update()
    return {row.id: row for row in connection.execute(rows)}


# --- starts ---


def _store_legs(
    connection: Connection, call: Any, legs: list[Leg], settled: Mapping[str, Settled]
) -> set[str]:
    """New legs of one call, as they started; returns the legs whose side-cars say something else now."""
    told = _told(legs, settled)
    call = call or _begin_call(connection, legs[0], told)
    if call is None:
        _insert_legs(connection, call_record_id(legs[0].server, legs[0].call_uniqueid), legs, 0, settled)
        return set()
    last = connection.execute(_LAST_LEG, {"of_call": call.id}).one_or_none()
    is_whole = _insert_legs(connection, call.id, legs, last.leg if last else 0, settled)
    moved, tag = set(), _latest_tag(legs)
    if last and _order(legs[0]) < _order(last):
        moved = _number_anew(connection, call.id)
        tag = connection.scalar(_LATEST_TAG, {"of_call": call.id}) or ""
    told["external_reference"] = tag or call.external_reference or told["external_reference"]
    is_changed = _change_call(connection, call, told)
    if not is_whole:
        connection.execute(_END_CALL, {"of_call": call.id})
    return legs_of(connection, {call.id}) if is_changed else moved


def _told(legs: list[Leg], settled: Mapping[str, Settled]) -> dict[str, Any]:
    """What these legs say of their call."""
    known = {leg.id: settled[leg.id] for leg in legs if leg.id in settled}
    beginnings = [
        (
            known[leg.id].call_started_at if leg.id in known else leg.started_at,
            leg.source,
            leg.destination,
            leg.did,
        )
        for leg in legs
    ]
    # When the leg that had the tag is lost for good, another one's side-car may know it.
    remembered = [each.external_reference for each in known.values() if each.external_reference]
    reference = _latest_tag(legs) or next(iter(remembered), "")
    return {**dict(zip(_BEGINNING, min(beginnings), strict=True)), "external_reference": reference}


def _latest_tag(legs: list[Leg]) -> str:
    return next((leg.tag for leg in reversed(legs) if leg.tag), "")


def _begin_call(connection: Connection, leg: Leg, told: dict[str, Any]) -> Any:
    """Make it as told; None, or the row, locked, that another host has just made."""
    name = {"server": leg.server, "uniqueid": leg.call_uniqueid}
    new = {"id": call_record_id(leg.server, leg.call_uniqueid), **name, **told}
    if connection.execute(_BEGIN_CALL[connection.dialect.name], new).rowcount:
        return None
    return connection.execute(_CALL, name).one()


def _change_call(connection: Connection, call: Any, told: dict[str, Any]) -> bool:
    """A leg of it records now. Whether there is something new in the side-cars of all its legs."""
    began = {name: getattr(call, name) for name in _BEGINNING}
    if tuple(began.values()) < tuple(told[name] for name in _BEGINNING):
        told |= began
    changes = {name: value for name, value in told.items() if getattr(call, name) != value}
    if changes or call.ended_at is not None:
        connection.execute(_CHANGE_CALL, {"of_call": call.id, "ended_at": None, **changes})
    return bool(changes)


def _insert_legs(
    connection: Connection, record_id: str, legs: list[Leg], last: int, settled: Mapping[str, Settled]
) -> bool:
    """With the numbers behind the last one. False when another host has just stored some of them."""
    whole = last + len(legs)
    for leg in legs:
        owner_id, extension = _owner(connection, leg, settled)
        values = {name: getattr(leg, name) for name in _OF_LEG}
        values |= {"call_record_id": record_id, "leg": last + 1, "status": "recording"}
        values |= {"owner_id": owner_id, "extension": extension}
        last += connection.execute(_INSERT_LEG[connection.dialect.name], values).rowcount
    return last == whole


def _number_anew(connection: Connection, record_id: str) -> set[str]:
    """In the order of starting, and no number is there twice meanwhile; returns the legs that had another."""
    connection.execute(_TURN_NUMBERS, {"of_call": record_id})
    moved = set(connection.scalars(_TURNED, {"of_call": record_id}))
    connection.execute(_TURN_NUMBERS_BACK, {"of_call": record_id})
    return moved


def _owner(connection: Connection, leg: Leg, settled: Mapping[str, Settled]) -> tuple[str | None, str]:
    """The account that owns the leg, as of the call's time, and the extension that the leg is filed under."""
    if leg.id in settled:
        return connection.scalar(_KNOWN_LOGIN, {"named": settled[leg.id].owner}), leg.extension
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


# --- endings ---


def _store_endings(connection: Connection, endings: list[Ending]) -> None:
    """Of several endings of a leg the latest counts; failed only when there is no other: a file was seen."""
    best: dict[str, Ending] = {}
    for ending in sorted(endings, key=_weight):
        best[ending.leg_id] = ending
    legs = {row.id: row for row in connection.execute(_LEGS, {"leg_ids": list(best)})} if best else {}
    ended = set()
    for each, ending in best.items():
        if each not in legs:
            raise StoreRejected(f"leg {each} has ended, but nothing is known of its start")
        if legs[each].status == "recording" or _weight(ending) > _weight(legs[each]):
            connection.execute(_END_LEG, _how_it_ended(ending, legs[each].started_at))
            ended.add(legs[each].call_record_id)
    for record_id in sorted(ended):
        connection.execute(_END_CALL, {"of_call": record_id})


def _weight(ending: Any) -> tuple[bool, datetime, str]:
    return ending.status != "failed", ending.ended_at or _LONG_AGO, ending.status


def _how_it_ended(ending: Ending, started_at: datetime) -> dict[str, Any]:
    duration = ending.duration_seconds
    if duration is None and ending.status == "completed":
        duration = max(0.0, (ending.ended_at - started_at).total_seconds())
    how = {"status": ending.status, "ended_at": ending.ended_at, "bytes": ending.bytes}
    return {"of_leg": ending.leg_id, "duration_seconds": duration, **how}


# --- the statements ---

_BEGINNING = ("started_at", "source", "destination", "did")
_OF_LEG = (
    *("id", "uniqueid", "channel", "agent_login_name", "tag", "file", "started_at"),
    *("peer_channel", "peer_uniqueid"),
)
_OF_CALL = recording_leg.c.call_record_id == bindparam("of_call")

# Whatever is there twice, id or server and uniqueid: another host's has come first.
_BEGIN_CALL = {
    "sqlite": sqlite.insert(call_record).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(call_record).on_conflict_do_nothing(),
}
_CALL = (
    select(call_record)
    .where(call_record.c.server == bindparam("server"), call_record.c.uniqueid == bindparam("uniqueid"))
    .with_for_update()
)
_CHANGE_CALL = update(call_record).where(call_record.c.id == bindparam("of_call"))
_END_CALL = (
    update(call_record)
    .where(call_record.c.id == bindparam("of_call"), ~exists().where(_OF_CALL, RECORDING))
    .values(ended_at=select(func.max(recording_leg.c.ended_at)).where(_OF_CALL).scalar_subquery())
)

# By id alone: a number that is there twice would be our own fault, and no leg may be lost for it.
_INSERT_LEG = {
    "sqlite": sqlite.insert(recording_leg).on_conflict_do_nothing(index_elements=["id"]),
    "postgresql": postgresql.insert(recording_leg).on_conflict_do_nothing(index_elements=["id"]),
}
_LAST_LEG = (
    select(recording_leg.c.leg, recording_leg.c.started_at, recording_leg.c.id)
    .where(_OF_CALL)
    .order_by(recording_leg.c.leg.desc())
    .limit(1)
)
_LATEST_TAG = (
    select(recording_leg.c.tag)
    .where(_OF_CALL, recording_leg.c.tag != "")
    .order_by(recording_leg.c.started_at.desc(), recording_leg.c.id.desc())
    .limit(1)
)
_IN_ORDER = func.row_number().over(order_by=(recording_leg.c.started_at, recording_leg.c.id))
_NUMBERED = select(recording_leg.c.id, _IN_ORDER.label("number")).where(_OF_CALL).subquery()
_TURN_NUMBERS = (
    update(recording_leg)
    .where(_OF_CALL, recording_leg.c.id == _NUMBERED.c.id, recording_leg.c.leg != _NUMBERED.c.number)
    .values(leg=-_NUMBERED.c.number)
)
_TURNED = select(recording_leg.c.id).where(_OF_CALL, recording_leg.c.leg < 0)
_TURN_NUMBERS_BACK = (
    update(recording_leg).where(_OF_CALL, recording_leg.c.leg < 0).values(leg=-recording_leg.c.leg)
)
_LEGS = select(
    recording_leg.c.id,
    recording_leg.c.call_record_id,
    recording_leg.c.started_at,
    recording_leg.c.status,
    recording_leg.c.ended_at,
).where(recording_leg.c.id.in_(bindparam("leg_ids", expanding=True)))
_END_LEG = update(recording_leg).where(recording_leg.c.id == bindparam("of_leg"))

_KNOWN_LOGIN = select(account.c.id).where(account.c.login == bindparam("named"))
_ENABLED_LOGIN = _KNOWN_LOGIN.where(account.c.enabled)
_ATTACHED = select(extension_attachment.c.extension, extension_attachment.c.account_id).where(
    extension_attachment.c.extension.in_(bindparam("extensions", expanding=True)),
    extension_attachment.c.attached_at <= bindparam("started_at"),
    (extension_attachment.c.detached_at.is_(None))
    | (extension_attachment.c.detached_at > bindparam("started_at")),
)
