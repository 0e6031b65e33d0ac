"""Conditions that find few of many legs, each by an index."""

import re
from typing import Any

from sqlalchemy import Column, ColumnElement, CompoundSelect, and_, literal_column, or_, select, union

from noojee_agi.database.tables import call_record, recording_leg, without_system

_EIGHT = re.compile(r"[0-9a-f]{8}")


def leg_id(asked: str) -> ColumnElement[bool]:
    """By its whole id, or by the first eight digits of it, as in the names of files."""
    if not _EIGHT.fullmatch(asked):
        return recording_leg.c.id == asked
    first, last = (f"{asked}-{d * 4}-{d * 4}-{d * 4}-{d * 12}" for d in "0f")
    return recording_leg.c.id.between(first, last)


def either(of_leg: ColumnElement[bool], of_call: ColumnElement[bool]) -> ColumnElement[bool]:
    """Legs by their own or their call's column, each by its index: with a plain OR all legs would be read."""
    its_call = call_record.c.id == recording_leg.c.call_record_id
    own = select(recording_leg.c.id).where(of_leg)
    calls = select(recording_leg.c.id).join(call_record, its_call).where(of_call)
    return recording_leg.c.id.in_(union(own, calls))


def uniqueid(asked: str) -> ColumnElement[bool]:
    """Each column by its own index, too."""
    return recording_leg.c.id.in_(_named(asked, recording_leg.c.id))


def of_calls(asked: str) -> ColumnElement[bool]:
    """All legs of the calls of which uniqueid() finds one."""
    return recording_leg.c.call_record_id.in_(_named(asked, recording_leg.c.call_record_id))


def _named(asked: str, wanted: Column[Any]) -> CompoundSelect[Any]:
    """That column of the legs that have this uniqueid: the channel, its partner or the call."""
    leg, call = recording_leg.c, call_record.c
    its_server = select(call.server).where(call.id == leg.call_record_id).scalar_subquery()
    own = select(wanted).where(_is_uniqueid("recording_leg.uniqueid", its_server, asked))
    peer = select(wanted).where(
        leg.peer_uniqueid != "", _is_uniqueid("recording_leg.peer_uniqueid", its_server, asked)
    )
    of_call = _is_uniqueid("call_record.uniqueid", call.server, asked)
    calls = select(wanted).join(call_record, call.id == leg.call_record_id).where(of_call)
    return union(own, peer, calls)


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
