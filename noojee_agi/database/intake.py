"""Events of the spool -> call records and legs: the only place that says what a leg does to its call.

The rows are what all events together say, in whatever order they come and however often: a call began as its
earliest leg says, has the tag of the latest leg that has one, ended with the last of them, and its legs are
numbered in the order of their starting. A transaction first locks the calls that it changes, always in the
same order: so hosts whose legs are of one call take turns.
A batch of events takes few statements: a thousand events may wait.
"""

import itertools
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from noojee_agi.database import attachments, endings, notes, owners, statements
from noojee_agi.database.attachments import Touched
from noojee_agi.database.endings import KnownLeg
from noojee_agi.recordings.recording import Access, Attachment, Ending, Event, Leg, Note, leg_ids

_CALLS = uuid.UUID("5d3f4b0e-6a58-4c29-9a53-2f6a9f1d7c11")
_SECOND = re.compile(r"(?:^|-)(\d+)\.\d+$")  # [system-]seconds.number
_BEGINNING = ("started_at", "source", "destination", "did")
_OF_LEG = (
    *("id", "uniqueid", "channel", "agent_login_name", "tag", "file", "started_at"),
    *("peer_channel", "peer_uniqueid", "extensions"),
)


class Settled(NamedTuple):
    """What a side-car knows besides its leg, and is not settled anew. owner: a login; None for nobody's."""

    owner: str | None
    call_started_at: datetime
    external_reference: str


_ByCall = dict[str, list[Leg]]


def call_record_id(server: str, uniqueid: str) -> str:
    """The same call always gets the same id, so that it can be made again from a side-car.

    It begins with the second that the uniqueid names (RFC 9562, 5.8): so the newest calls stand together in
    each index, and among millions their pages are the only ones that are read and written.
    """
    second = _SECOND.search(uniqueid)
    begun = int(second[1]) % 2**32 if second else 0
    rest = uuid.uuid5(_CALLS, f"{server}\0{uniqueid}").int % 2**96
    return str(uuid.UUID(int=begun << 96 | rest & ~(0xF << 76) | 8 << 76))


def store(connection: Connection, events: Iterable[Event], settled: Mapping[str, Settled] = {}) -> set[str]:
    """Attachments before starts, and these before endings and notes.

    settled: of legs that come from side-cars, by the leg's id.
    Returns the other legs whose side-cars may be out of date now. When a start comes again, these are all
    of its call: whoever brought it before may have been killed before he wrote them.
    Raises StoreRejected for an ending or a note whose leg is not there, and for an attachment of nobody's.
    """
    events = list(events)
    starts = _by_call(event for event in events if isinstance(event, Leg))
    own = leg_ids(events)
    touched = _attach(connection, events, settled)
    calls = _locked(connection, own, [*starts, *_calls_to_lock(connection, touched)])
    owners.find_anew(connection, touched)
    known = _known(connection, own) if calls else {}
    new = _without(known, starts)
    if not _begin_calls(connection, calls, new, settled):
        known = _known(connection, own)
        new = _without(known, new)
    again = {known[leg.id].call_record_id for legs in starts.values() for leg in legs if leg.id in known}
    others = legs_of(connection, again) | _store_legs(connection, calls, new, settled)
    for record_id, legs in new.items():
        known |= {leg.id: KnownLeg(_id(calls, record_id), leg.started_at) for leg in legs}
    endings.store(connection, [event for event in events if isinstance(event, Ending)], known)
    _store_notes(connection, events, new, known)
    return (others | {leg.id for leg in touched}) - own


def _attach(connection: Connection, events: list[Event], settled: Mapping[str, Settled]) -> list[Touched]:
    """Returns the legs whose owner is another now, perhaps."""
    attached = [event for event in events if isinstance(event, Attachment)]
    legs = (event for event in events if isinstance(event, Leg) and event.id not in settled)
    if attached or any(leg.extensions and not leg.agent_login_name for leg in legs):
        attachments.take_turn(connection, changes=bool(attached))
    return attachments.store(connection, attached) if attached else []


def _calls_to_lock(connection: Connection, touched: list[Touched]) -> set[str]:
    """SQLite needs no locks, and takes no list of any length."""
    return {leg.call_record_id for leg in touched} if connection.dialect.name == "postgresql" else set()


def _store_notes(
    connection: Connection, events: list[Event], new: _ByCall, known: Mapping[str, KnownLeg]
) -> None:
    began = [leg for legs in new.values() for leg in legs]
    started = [notes.started(leg.id, leg.started_at, leg.agent_login_name) for leg in began]
    noted = [event for event in events if isinstance(event, Note)]
    accesses = [event for event in events if isinstance(event, Access)]
    notes.store(connection, [*started, *noted], accesses, known)


def legs_of(connection: Connection, record_ids: set[str]) -> set[str]:
    return set(connection.scalars(statements.LEGS_OF, {"calls": list(record_ids)})) if record_ids else set()


def _by_call(legs: Iterable[Leg]) -> _ByCall:
    """Call record -> its legs, each once, as they started; the calls in the order of locking."""
    once = {leg.id: leg for leg in reversed([*legs])}
    found = sorted((call_record_id(leg.server, leg.call_uniqueid), *_order(leg)) for leg in once.values())
    return {
        record_id: [once[each] for _, _, each in of_call]
        for record_id, of_call in itertools.groupby(found, key=lambda entry: entry[0])
    }


def _order(leg: Any) -> tuple[datetime, str]:
    return leg.started_at, leg.id


def lock_calls_of(connection: Connection, leg_ids: set[str]) -> None:
    """Until this transaction has ended nobody else changes these legs or their calls."""
    _locked(connection, leg_ids, ())


def _locked(connection: Connection, leg_ids: set[str], record_ids: Iterable[str]) -> dict[str, Any]:
    """Those that are there; nobody else changes them, or adds a leg, before this transaction has ended."""
    rows = connection.execute(statements.LOCK_CALLS, {"leg_ids": list(leg_ids), "calls": list(record_ids)})
    return {row.id: row for row in rows}


def _known(connection: Connection, leg_ids: set[str]) -> dict[str, KnownLeg]:
    """Those that are there, read when their calls are locked."""
    rows = connection.execute(statements.LEGS, {"leg_ids": list(leg_ids)})
    return {each: KnownLeg(*of_leg) for each, *of_leg in rows}


def _without(known: Mapping[str, KnownLeg], of_calls: _ByCall) -> _ByCall:
    new = {record_id: [leg for leg in legs if leg.id not in known] for record_id, legs in of_calls.items()}
    return {record_id: legs for record_id, legs in new.items() if legs}


def _id(calls: Mapping[str, Any], record_id: str) -> str:
    return calls[record_id].id if record_id in calls else record_id


def _begin_calls(
    connection: Connection, calls: dict[str, Any], new: _ByCall, settled: Mapping[str, Settled]
) -> bool:
    """Make those that are not there. False when another host has just made some: they join calls, locked."""
    missing = {record_id: legs for record_id, legs in new.items() if record_id not in calls}
    if not missing:
        return True
    names = {
        each: {"server": legs[0].server, "uniqueid": legs[0].call_uniqueid} for each, legs in missing.items()
    }
    rows = [{"id": each, **names[each], **_told(legs, settled)} for each, legs in missing.items()]
    made = connection.execute(statements.BEGIN_CALL[connection.dialect.name], rows)
    # psycopg2 does not count the rows of several statements; SQLite before 3.35 has no RETURNING.
    if (len(made.all()) if made.returns_rows else made.rowcount) == len(rows):
        return True
    calls |= {each: connection.execute(statements.CALL, name).one() for each, name in names.items()}
    return False


def _store_legs(
    connection: Connection, calls: Mapping[str, Any], new: _ByCall, settled: Mapping[str, Settled]
) -> set[str]:
    """New legs, as they started; returns the legs whose side-cars say something else now."""
    there = [record_id for record_id in new if record_id in calls]
    last = {}
    if there:
        rows = connection.execute(statements.LAST_LEGS, {"calls": [calls[each].id for each in there]})
        last = {row.call_record_id: row for row in rows}
    _insert_legs(connection, {_id(calls, each): legs for each, legs in new.items()}, last, settled)
    changed = set()
    for each in there:
        changed |= _change_call(connection, calls[each], last.get(calls[each].id), new[each], settled)
    return changed


def _insert_legs(
    connection: Connection, new: _ByCall, last: Mapping[str, Any], settled: Mapping[str, Settled]
) -> None:
    """With the numbers behind the last one of each call."""
    known = {each: about.owner for each, about in settled.items()}
    found = owners.find(connection, [leg for legs in new.values() for leg in legs], known)
    rows = []
    for record_id, legs in new.items():
        first = last[record_id].leg + 1 if record_id in last else 1
        for number, leg in enumerate(legs, first):
            row = {name: getattr(leg, name) for name in _OF_LEG}
            row |= {"call_record_id": record_id, "leg": number, "status": "recording"}
            row["owner_id"], row["extension"] = found[leg.id]
            rows.append(row)
    if rows:
        connection.execute(statements.INSERT_LEG[connection.dialect.name], rows)


def _change_call(
    connection: Connection, call: Any, last: Any, legs: list[Leg], settled: Mapping[str, Settled]
) -> set[str]:
    """A call that was there has these legs too, which record now; last: its last one before them."""
    told, moved, tag = _told(legs, settled), set[str](), _latest_tag(legs)
    if last and _order(legs[0]) < _order(last):
        moved = _number_anew(connection, call.id)
        tag = connection.scalar(statements.LATEST_TAG, {"of_call": call.id}) or ""
    told["external_reference"] = tag or call.external_reference or told["external_reference"]
    began = {name: getattr(call, name) for name in _BEGINNING}
    if tuple(began.values()) < tuple(told[name] for name in _BEGINNING):
        told |= began
    changes = {name: value for name, value in told.items() if getattr(call, name) != value}
    if changes or call.ended_at is not None:
        connection.execute(statements.CHANGE_CALL, {"of_call": call.id, "ended_at": None, **changes})
    return legs_of(connection, {call.id}) if changes else moved


def _told(legs: list[Leg], settled: Mapping[str, Settled]) -> dict[str, Any]:
    """What these legs say of their call."""
    known = {leg.id: settled[leg.id] for leg in legs if leg.id in settled}
    beginnings = []
    for leg in legs:
        began = known[leg.id].call_started_at if leg.id in known else leg.started_at
        beginnings.append((began, leg.source, leg.destination, leg.did))
    # When the leg that had the tag is lost for good, another one's side-car may know it.
    remembered = [each.external_reference for each in known.values() if each.external_reference]
    reference = _latest_tag(legs) or next(iter(remembered), "")
    return {**dict(zip(_BEGINNING, min(beginnings), strict=True)), "external_reference": reference}


def _latest_tag(legs: list[Leg]) -> str:
    return next((leg.tag for leg in reversed(legs) if leg.tag), "")


def _number_anew(connection: Connection, record_id: str) -> set[str]:
    """In the order of starting, and no number is there twice meanwhile; returns the legs that had another."""
    connection.execute(statements.TURN_NUMBERS, {"of_call": record_id})
    moved = set(connection.scalars(statements.TURNED, {"of_call": record_id}))
    connection.execute(statements.TURN_NUMBERS_BACK, {"of_call": record_id})
    return moved
