"""Legs as people and programs see them: for the command line and the side-cars."""

import itertools
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    literal_column,
    or_,
    select,
    union,
)

from noojee_agi.database import hearing, notes
from noojee_agi.database.store import Store
from noojee_agi.database.tables import (
    RECORDING,
    account,
    call_record,
    recording_leg,
    without_system,
)
from noojee_agi.recordings.recording import OpenLeg

_PIECE = 200  # legs


class Filter(NamedTuple):
    """What to look for; None means any. started: a leg's, from (inclusive) and to (exclusive).

    uniqueid: of the recorded channel, of its partner, or of the call; with or without the system's name.
    """

    leg_id: str | None = None
    tag: str | None = None
    uniqueid: str | None = None
    owner: str | None = None
    status: str | None = None
    started_from: datetime | None = None
    started_to: datetime | None = None
    heard_by: str | None = None


def legs(connection: Connection, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Legs with their call, oldest first; the tag is the leg's or the call's External Reference."""
    for row in connection.execute(legs_statement(wanted)):
        yield dict(row._mapping)


def legs_statement(wanted: Filter) -> Select[Any]:
    """By an index for each of id, tag, uniqueid, owner and time: there may be millions."""
    statement = _legs().where(*_conditions(wanted))
    return statement.order_by(recording_leg.c.started_at, recording_leg.c.id)


def next_legs(
    connection: Connection, wanted: Filter, behind: dict[str, Any] | None, count: int
) -> list[dict[str, Any]]:
    """The next so many legs behind that one, oldest first; None: from the beginning.

    So each read can be a short transaction: whoever reads slowly holds nothing back, neither a vacuum nor an
    upgrade nor SQLite's checkpoint. A leg's place never changes, so each comes once.
    """
    statement, leg = legs_statement(wanted), recording_leg.c
    if behind:
        moment, leg_id = behind["started_at"], behind["id"]
        statement = statement.where(
            leg.started_at >= moment, or_(leg.started_at > moment, leg.id > leg_id)
        )  # the first of the two is for the index
    return [dict(row._mapping) for row in connection.execute(statement.limit(count))]


def whole_legs(connection: Connection, leg_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Legs with all that was done with them: what a side-car says."""
    rows = legs_by_id(connection, leg_ids)
    stories = notes.stories(connection, [row["id"] for row in rows])
    return [row | stories[row["id"]] for row in rows]


def legs_by_id(connection: Connection, leg_ids: Iterable[str]) -> list[dict[str, Any]]:
    result = connection.execute(_LEGS_BY_ID, {"leg_ids": list(leg_ids)})
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]


def each_leg(store: Store, leg_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
    """These legs, read in pieces: a call may have thousands. Raises StoreUnavailable."""
    waiting = iter(leg_ids)
    while some := list(itertools.islice(waiting, _PIECE)):
        with store.reading() as connection:
            found = whole_legs(connection, some)
        yield from found


def legs_whose_id_begins(connection: Connection, eight: str) -> list[dict[str, Any]]:
    """Legs by the first eight hexadecimal digits of their id, as in the names of their files."""
    first, last = (f"{eight}-{d * 4}-{d * 4}-{d * 4}-{d * 12}" for d in "0f")
    statement = _legs().where(recording_leg.c.id.between(first, last))
    return [dict(row._mapping) for row in connection.execute(statement)]


def open_legs(connection: Connection, server: str) -> list[OpenLeg]:
    rows = connection.execute(open_legs_statement(server))
    return [OpenLeg(row.id, row.file, row.started_at) for row in rows]


def open_legs_statement(server: str) -> Select[Any]:
    """By the index ix_recording_leg_open: a drain asks after every call.

    The server is looked up for each of these few. A join may begin with all calls that it ever had.
    """
    leg = recording_leg.c
    its_server = select(call_record.c.server).where(call_record.c.id == leg.call_record_id).scalar_subquery()
    return select(leg.id, leg.file, leg.started_at).where(RECORDING, its_server == server)


def _legs() -> Select[Any]:
    leg, call = recording_leg.c, call_record.c
    return (
        select(
            leg.id,
            leg.call_record_id,
            leg.leg,
            leg.uniqueid,
            call.uniqueid.label("call_uniqueid"),
            call.server,
            leg.channel,
            leg.extension,
            call.source,
            call.destination,
            call.did,
            call.external_reference,
            call.started_at.label("call_started_at"),
            leg.tag,
            account.c.login.label("owner"),
            leg.agent_login_name,
            leg.file,
            leg.status,
            leg.started_at,
            leg.ended_at,
            leg.duration_seconds,
            leg.bytes,
            leg.peer_channel,
            leg.peer_uniqueid,
            leg.extensions,
            leg.held,
            leg.purged_at,
            leg.purged_file,
        )
        .join(call_record, call.id == leg.call_record_id)
        .outerjoin(account, account.c.id == leg.owner_id)
    )


def _conditions(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    leg, call = recording_leg.c, call_record.c
    if wanted.leg_id is not None:
        yield leg.id == wanted.leg_id
    if wanted.tag is not None:
        yield _either(leg.tag == wanted.tag, call.external_reference == wanted.tag)
    if wanted.uniqueid is not None:
        yield _has_uniqueid(wanted.uniqueid)
    if wanted.owner is not None:
        yield account.c.login == wanted.owner
    if wanted.status is not None:
        yield leg.status == wanted.status
    if wanted.started_from is not None:
        yield leg.started_at >= wanted.started_from
    if wanted.started_to is not None:
        yield leg.started_at < wanted.started_to
    if wanted.heard_by is not None:
        yield hearing.may_hear(wanted.heard_by)


def _either(of_leg: ColumnElement[bool], of_call: ColumnElement[bool]) -> ColumnElement[bool]:
    """Legs by their own or their call's column, each by its index: with a plain OR all legs would be read."""
    its_call = call_record.c.id == recording_leg.c.call_record_id
    own = select(recording_leg.c.id).where(of_leg)
    calls = select(recording_leg.c.id).join(call_record, its_call).where(of_call)
    return recording_leg.c.id.in_(union(own, calls))


def _has_uniqueid(asked: str) -> ColumnElement[bool]:
    """Each column by its own index, too."""
    leg, call = recording_leg.c, call_record.c
    its_server = select(call.server).where(call.id == leg.call_record_id).scalar_subquery()
    own = select(leg.id).where(_is_uniqueid("recording_leg.uniqueid", its_server, asked))
    peer = select(leg.id).where(
        leg.peer_uniqueid != "", _is_uniqueid("recording_leg.peer_uniqueid", its_server, asked)
    )
    of_call = _is_uniqueid("call_record.uniqueid", call.server, asked)
    calls = select(leg.id).join(call_record, call.id == leg.call_record_id).where(of_call)
    return leg.id.in_(union(own, peer, calls))


def _is_uniqueid(column: str, server: ColumnElement[str], asked: str) -> ColumnElement[bool]:
    """Without the system's name: any system's. A name that only the question has must be the server's."""
    system, _, number = asked.rpartition("-")
    stored: ColumnElement[str] = literal_column(column)
    same_number = literal_column(str(without_system(column))) == number
    if not re.fullmatch(r"\d+\.\d+", number):
        return and_(same_number, stored == asked)
    if not system:
        return same_number
    return and_(same_number, or_(stored == asked, and_(stored == number, server == system)))


_LEGS_BY_ID = _legs().where(recording_leg.c.id.in_(bindparam("leg_ids", expanding=True)))
