"""Legs as people and programs see them: for the command line and the side-cars."""

import itertools
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    or_,
    select,
)

from noojee_agi.database import hearing, matching, notes
from noojee_agi.database.store import Store
from noojee_agi.database.tables import (
    RECORDING,
    account,
    call_record,
    recording_leg,
)
from noojee_agi.recordings.recording import OpenLeg

Row = dict[str, Any]
_PIECE = 200  # legs
_MOST_PLACES = 20_000  # that are looked at, of all owners together; else time finds them as soon
_NUMBERS = (call_record.c.source, call_record.c.destination, call_record.c.did)


class Filter(NamedTuple):
    """What to look for; None means any. started, ended: a leg's, from (inclusive) and to (exclusive).

    leg_id: or its first eight digits. uniqueid: of the recorded channel, of its partner, or of the call; with
    or without the system's name. of_calls: the same, and then all legs of these calls. number: the call's
    source, destination or DID, or the leg's extension. owners: ids of all accounts whose legs heard_by may
    hear (hearing.owners), for the index of owners.
    """

    leg_id: str | None = None
    tag: str | None = None
    uniqueid: str | None = None
    owner: str | None = None
    status: str | None = None
    started_from: datetime | None = None
    started_to: datetime | None = None
    heard_by: str | None = None
    number: str | None = None
    owners: tuple[str, ...] | None = None
    of_calls: str | None = None
    ended_from: datetime | None = None
    ended_to: datetime | None = None


def legs(connection: Connection, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Legs with their call, oldest first; the tag is the leg's or the call's External Reference."""
    for row in connection.execute(legs_statement(wanted)):
        yield dict(row._mapping)


def legs_statement(wanted: Filter) -> Select[Any]:
    """By an index for each of id, tag, uniqueid, owner and time: there may be millions."""
    statement = _legs().where(*_conditions(wanted))
    return statement.order_by(_place(wanted), recording_leg.c.id)


def _place(wanted: Filter) -> Column[Any]:
    """By which they stand: their end where that is what was asked for, so that one index finds and orders."""
    leg = recording_leg.c
    return leg.started_at if wanted.ended_from is None else leg.ended_at


def next_legs(
    connection: Connection, wanted: Filter, behind: Row | None, count: int, may_be_purged: bool = False
) -> list[Row]:
    """The next so many legs behind that one, oldest first; None: from the beginning.

    So each read can be a short transaction: whoever reads slowly holds nothing back, neither a vacuum nor an
    upgrade nor SQLite's checkpoint. A leg's place never changes, so each comes once.
    """
    statement, leg, place = legs_statement(wanted), recording_leg.c, _place(wanted)
    if may_be_purged:
        has_audio = leg.status.not_in(("recording", "failed"))
        statement = statement.where(~leg.held, leg.purged_at.is_(None), has_audio)
    if behind:
        moment, leg_id = behind[place.name], behind["id"]
        statement = statement.where(
            place >= moment, or_(place > moment, leg.id > leg_id)
        )  # the first of the two is for the index
    return [dict(row._mapping) for row in connection.execute(statement.limit(count))]


def whole_legs(connection: Connection, leg_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Legs with all that was done with them: what a side-car says."""
    rows = legs_by_id(connection, leg_ids)
    stories = notes.stories(connection, [row["id"] for row in rows])
    return [row | stories[row["id"]] for row in rows]


def leg_before_the_newest(connection: Connection, wanted: Filter, count: int) -> dict[str, Any] | None:
    """Behind which the newest so many legs are; None when there are no more than these.

    With owners, the newest of each by an index, and of these the newest: one may have many legs or none.
    """
    newest = newest_statement(wanted._replace(owners=None))
    if wanted.owners is None or len(wanted.owners) * count > _MOST_PLACES:
        found = connection.execute(newest.offset(count).limit(1)).one_or_none()
        return dict(found._mapping) if found else None
    of_owner = newest.where(recording_leg.c.owner_id == bindparam("owner")).limit(count + 1)
    places = [
        dict(row._mapping)
        for owner in wanted.owners
        for row in connection.execute(of_owner, {"owner": owner})
    ]
    places.sort(key=lambda place: (place["started_at"], place["id"]), reverse=True)
    return places[count] if len(places) > count else None


def newest_statement(wanted: Filter) -> Select[Any]:
    """Start and id of these legs, the newest first."""
    leg = recording_leg.c
    statement = legs_statement(wanted).with_only_columns(leg.id, leg.started_at, maintain_column_froms=True)
    return statement.order_by(None).order_by(leg.started_at.desc(), leg.id.desc())


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
    statement = _legs().where(matching.leg_id(eight))
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
        yield matching.leg_id(wanted.leg_id)
    if wanted.tag is not None:
        yield matching.either(leg.tag == wanted.tag, call.external_reference == wanted.tag)
    if wanted.uniqueid is not None:
        yield matching.uniqueid(wanted.uniqueid)
    if wanted.of_calls is not None:
        yield matching.of_calls(wanted.of_calls)
    if wanted.number is not None:
        yield or_(leg.extension == wanted.number, *(column == wanted.number for column in _NUMBERS))
    if wanted.owner is not None:
        yield account.c.login == wanted.owner
    if wanted.status is not None:
        yield leg.status == wanted.status
    yield from _times(wanted)
    yield from _hearing(wanted)


def _times(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    leg = recording_leg.c
    if wanted.started_from is not None:
        yield leg.started_at >= wanted.started_from
    if wanted.started_to is not None:
        yield leg.started_at < wanted.started_to
    if wanted.ended_from is not None:
        yield leg.ended_at >= wanted.ended_from
    if wanted.ended_to is not None:
        yield leg.ended_at < wanted.ended_to


def _hearing(wanted: Filter) -> Iterator[ColumnElement[bool]]:
    if wanted.heard_by is not None:
        yield hearing.may_hear(wanted.heard_by)
    if wanted.owners is not None:
        yield recording_leg.c.owner_id.in_(wanted.owners)


_LEGS_BY_ID = _legs().where(recording_leg.c.id.in_(bindparam("leg_ids", expanding=True)))
