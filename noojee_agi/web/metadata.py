"""What is known of recordings, as the API's callers see it: a leg is a dict of strings."""

import itertools
import re
import time
from calendar import timegm
from collections.abc import Iterator
from datetime import date as Day
from datetime import datetime, timedelta, timezone
from typing import Any

from noojee_agi.config import Config
from noojee_agi.database import queries, reached
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.errors import BadArgument
from noojee_agi.recordings import disk
from noojee_agi.web import direction, mounted

_PAGE = 300  # legs
_DAY = re.compile(r"([12][0-9]{3})/([0-9]{2})/([0-9]{2})")
_HOUR = re.compile(r"[0-9]{1,2}")
_MINUTE = 60  # all zones differ from UTC by whole ones
_FURTHEST = 15 * 3600  # that a zone is from UTC

# The manual's twelve, and ours.
FIELDS = (
    *("CallRecordId", "UniqueId", "Leg", "Source", "Destination", "DID", "Direction", "Start", "callend"),
    *("Duration", "Tag", "Username", "RecordingId", "Status", "ExternalReference", "Server"),
)
Page = list[dict[str, str]]
Pages = Iterator[Page]
_Row = dict[str, Any]


def by_tag(store: Store, config: Config, tag: str) -> Pages:
    """Legs that have this tag, or whose call has this External Reference, oldest first.

    This and the others raise BadArgument, and, with any page, StoreUnavailable and DiskSilent; the first page
    is read at once. A page may be empty, and there may be none.
    """
    return _begun(_pages(store, config, Filter(tag=_named("tag", tag))))


def by_uniqueid(store: Store, config: Config, uniqueid: str) -> Pages:
    """All legs of the calls that it names: by the call, a recorded channel, or its partner."""
    return _begun(_pages(store, config, Filter(of_calls=_named("uniqueId", uniqueid))))


def by_hour(store: Store, config: Config, date: str, hour_of_day: str) -> Pages:
    """Legs that ended in that hour of local time, in the order of their ends."""
    interval = hour(date, hour_of_day)
    if interval is None:
        return iter([])
    begin, end = interval
    return _begun(_pages(store, config, Filter(ended_from=begin, ended_to=end)))


def hour(date: str, hour: str) -> tuple[datetime, datetime] | None:
    """From when (inclusive) to when (exclusive) local clocks show that hour, in UTC; None: they never do.

    Where clocks are put back, it ends when they have shown it for the last time. Raises BadArgument.
    """
    wanted = (*_day(date), _hour(hour))
    utc = timegm((*wanted, 0, 0))
    around = range(utc - _FURTHEST, utc + _FURTHEST + 3600, _MINUTE)
    shown = [moment for moment in around if time.localtime(moment)[:4] == wanted]
    if not shown:
        return None
    begin, end = (datetime.fromtimestamp(moment, timezone.utc) for moment in (shown[0], shown[-1] + _MINUTE))
    return begin, end


def _day(text: str) -> tuple[int, int, int]:
    found = _DAY.fullmatch(text)
    try:
        year, month, day = map(int, found.groups() if found else ())
        Day(year, month, day)
    except ValueError as exc:
        raise BadArgument("date must be a day as yyyy/MM/dd, such as 2026/11/30") from exc
    return year, month, day


def _hour(text: str) -> int:
    if not _HOUR.fullmatch(text) or int(text) > 23:
        raise BadArgument("hour must be a number from 0 to 23")
    return int(text)


def _named(name: str, value: str) -> str:
    if not value or "\0" in value:
        raise BadArgument(f"{name} is missing, or holds a character that no {name} has")
    return value


def _begun(pages: Pages) -> Pages:
    """The same, whose first page is there."""
    return itertools.chain([next(pages)], pages)


def _pages(store: Store, config: Config, wanted: Filter) -> Pages:
    last = None
    while True:
        with store.reading() as connection:
            legs = queries.next_legs(connection, wanted, last, _PAGE)
            firsts = reached.first_legs(connection, {leg["call_record_id"] for leg in legs})
            named = direction.names(itertools.chain.from_iterable(firsts.values()))
            attached = reached.attached(connection, named)
        directions = {call: direction.of_call(first, attached) for call, first in firsts.items()}
        yield [_shown(leg, directions[leg["call_record_id"]]) for leg in legs if _is_there(leg, config)]
        if len(legs) < _PAGE:
            return
        last = legs[-1]


def _is_there(leg: _Row, config: Config) -> bool:
    """Whether its file is; another server is believed. Raises DiskSilent, also when its disk is away."""
    if leg["status"] == "failed" or leg["purged_at"]:
        return False
    if leg["server"] != config.server_name or disk.exists(leg["file"]):
        return True
    mounted.require(leg["file"], config)
    return False


def _shown(leg: _Row, call_direction: str) -> dict[str, str]:
    return {
        "CallRecordId": leg["call_record_id"],
        "UniqueId": leg["call_uniqueid"],
        "Leg": str(leg["leg"]),
        "Source": leg["source"],
        "Destination": leg["destination"],
        "DID": leg["did"],
        "Direction": call_direction,
        "Start": _local(leg["started_at"]),
        "callend": _local(leg["ended_at"]) if leg["ended_at"] else "",
        "Duration": str(_seconds(leg)),
        "Tag": leg["tag"] or leg["external_reference"],
        "Username": leg["owner"] or "",
        "RecordingId": leg["id"],
        "Status": leg["status"],
        "ExternalReference": leg["external_reference"],
        "Server": leg["server"],
    }


def _local(moment: datetime) -> str:
    """As yyyy-MM-dd HH:mm:ss.S, with three digits of milliseconds.

    Java's S reads a number of milliseconds, everybody else a fraction: 005 is the same to both.
    """
    return moment.astimezone().isoformat(" ", "milliseconds")[:23]


def _seconds(leg: _Row) -> int:
    """Whole ones; where the file's format does not tell its length, from start to end."""
    known = leg["duration_seconds"]
    if known is None and leg["ended_at"]:
        known = (leg["ended_at"] - leg["started_at"]) / timedelta(seconds=1)
    return max(0, round(known or 0))
