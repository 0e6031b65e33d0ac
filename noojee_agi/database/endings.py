"""How legs ended: what of it comes into their rows, and into those of their calls."""

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from sqlalchemy import Connection

from noojee_agi.database import statements
from noojee_agi.errors import StoreRejected
from noojee_agi.recordings.recording import Ending

_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


class KnownLeg(NamedTuple):
    """What the database says of a leg."""

    call_record_id: str
    started_at: datetime
    status: str = "recording"
    ended_at: datetime | None = None


def store(connection: Connection, endings: list[Ending], known: Mapping[str, KnownLeg]) -> None:
    """Of several endings of a leg the latest counts; failed only when there is no other: a file was seen.

    known: by the leg's id. Raises StoreRejected for one of a leg that is not there.
    """
    best = {ending.leg_id: ending for ending in sorted(endings, key=_weight)}
    for each in best:
        if each not in known:
            raise StoreRejected(f"leg {each} has ended, but nothing is known of its start")
    told = [each for each in best.values() if _says_more(each, known[each.leg_id])]
    if told:
        rows = [_how_it_ended(each, known[each.leg_id].started_at) for each in told]
        connection.execute(statements.END_LEG, rows)
        calls = {known[each.leg_id].call_record_id for each in told}
        connection.execute(statements.END_CALLS, {"calls": list(calls)})


def _says_more(ending: Ending, known: KnownLeg) -> bool:
    return known.status == "recording" or _weight(ending) > _weight(known)


def _weight(ending: Any) -> tuple[bool, datetime, str]:
    return ending.status != "failed", ending.ended_at or _LONG_AGO, ending.status


def _how_it_ended(ending: Ending, started_at: datetime) -> dict[str, Any]:
    duration = ending.duration_seconds
    if duration is None and ending.status == "completed":
        duration = max(0.0, (ending.ended_at - started_at).total_seconds())
    how = {"status": ending.status, "ended_at": ending.ended_at, "bytes": ending.bytes}
    return {"of_leg": ending.leg_id, "duration_seconds": duration, **how}
