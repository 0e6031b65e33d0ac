"""Spool -> database -> side-car."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from noojee_agi.config import Config
from noojee_agi.database import intake, queries
from noojee_agi.database.store import Store, in_turn
from noojee_agi.errors import StoreRejected
from noojee_agi.recordings import history, recording, sidecar, spool, wav
from noojee_agi.recordings.recording import Event, Leg, leg_id

logger = logging.getLogger(__name__)

_BATCH = 200
# An ending without its start waits this long before it is set aside: the start may be on its way.
_PATIENCE_SECONDS = 60


@dataclass
class Result:
    """What a drain did. busy: another one holds the lock. left: events that must be tried again later."""

    stored: int = 0
    rejected: int = 0
    busy: bool = False
    left: set[str] = field(default_factory=set)


def run(
    store: Store,
    spool_directory: str,
    progress: Callable[[int], None] = lambda count: None,
    is_patient: bool = True,
) -> Result:
    """Store every waiting event. progress is told how many each batch has dealt with.

    is_patient: also those that come meanwhile; in a server they may never end, and it looks again anyway.
    Raises StoreUnavailable (what was not stored stays in the spool) and OSError.
    """
    result = Result()
    while True:
        with spool.lock(spool_directory) as ours:
            result.busy = not ours
            if ours:
                spool.tidy(spool_directory)
            while ours and (paths := _waiting(spool_directory, result)):
                for at in range(0, len(paths), _BATCH):
                    batch = paths[at : at + _BATCH]
                    _store_batch(store, batch, result)
                    progress(len(batch))
                if not is_patient:
                    return result
        # An event that came after the last look, whose own drain found the lock taken, is ours too.
        if not ours or not _waiting(spool_directory, result):
            return result


def run_own(
    store: Store,
    config: Config,
    progress: Callable[[int], None] = lambda count: None,
    is_patient: bool = True,
) -> Result:
    """run() for this configuration's spool; one that was there and is gone, with its disk, is not made."""
    is_there = os.path.isdir(config.spool_directory)
    if not is_there and history.load(config.state_directory).is_away(config.recordings_directory):
        return Result()
    return run(store, config.spool_directory, progress, is_patient)


def backlog(spool_directory: str) -> str:
    """What waits there, for an error's message: the spool may be what is wrong."""
    try:
        return f"{len(spool.waiting(spool_directory))} events wait in the spool"
    except OSError:
        return "the spool cannot be read"


def _waiting(spool_directory: str, result: Result) -> list[str]:
    """Starts before endings: so the order of each leg holds even when the clock was set back."""
    paths = [path for path in spool.waiting(spool_directory) if path not in result.left]
    return sorted(paths, key=lambda path: f"-{recording.STARTED}-" not in path)


def _store_batch(store: Store, paths: list[str], result: Result) -> None:
    events = _readable(paths, result)
    if events:
        _store_together(store, events, result)


def _store_together(store: Store, events: list[tuple[str, Event]], result: Result) -> None:
    """In one transaction; when that is refused, halve until the refused one stands alone."""
    try:
        legs, others = in_turn(lambda: _commit(store, [event for _, event in events]))
    except StoreRejected as exc:
        if len(events) == 1:
            _set_aside(*events[0], str(exc), result)
            return
        middle = len(events) // 2
        _store_together(store, events[:middle], result)
        _store_together(store, events[middle:], result)
        return
    others |= _others_of_strangers(store, [event for _, event in events], legs)
    unwritten = _write_side_cars(store, legs, others)
    calls = {leg["id"]: leg["call_record_id"] for leg in legs}
    result.left |= {path for path, event in events if calls.get(leg_id(event)) in unwritten}
    # Only now: whoever is killed before finds them again, and writes what may not have been written.
    done = [path for path, event in events if path not in result.left]
    spool.forget(done)
    result.stored += len(done)


def _readable(paths: list[str], result: Result) -> list[tuple[str, Event]]:
    events = []
    for path in paths:
        try:
            events.append((path, spool.read(path)))
        except OSError as exc:
            logger.error("%s cannot be read, tried again later: %s", path, exc.strerror)
            result.left.add(path)
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            spool.reject(path, f"not an event of this program: {exc!r}")
            logger.error("%s is damaged: set aside", path)
            result.rejected += 1
    return events


def _commit(store: Store, events: list[Event]) -> tuple[list[dict[str, Any]], set[str]]:
    """The legs of these events as they are then, and the others whose side-cars may be out of date."""
    with store.transaction() as connection:
        others = intake.store(connection, events)
        return queries.legs_by_id(connection, {leg_id(event) for event in events}), others


def _others_of_strangers(store: Store, events: list[Event], legs: list[dict[str, Any]]) -> set[str]:
    """A leg that ends here and has no side-car was begun on another host, where those of its call are not."""
    begun = {event.id for event in events if isinstance(event, Leg)}
    strangers = (leg for leg in legs if leg["id"] not in begun)
    calls = {leg["call_record_id"] for leg in strangers if not os.path.exists(sidecar.path_for(leg["file"]))}
    if not calls:
        return set()
    with store.reading() as connection:
        return intake.legs_of(connection, calls) - {leg["id"] for leg in legs}


def _write_side_cars(store: Store, legs: list[dict[str, Any]], others: set[str]) -> set[str]:
    """Mend files, and write, a leg's own last: it shows that the others are done.

    Returns the calls of which one must be tried again.
    """
    for leg in legs:
        if leg["status"] == "interrupted":
            _repair(leg["file"])
    ours = (leg for leg in queries.each_leg(store, others) if sidecar.is_here(leg["file"]))
    unwritten = {leg["call_record_id"] for leg in ours if not sidecar.write(leg)}
    return unwritten | {leg["call_record_id"] for leg in legs if not sidecar.write(leg)}


def _repair(file: str) -> None:
    if not recording.is_ours(file):
        return  # its side-car's word says so
    try:
        wav.repair(file)
    except OSError as exc:
        logger.error("%s: its header cannot be repaired: %s", file, exc.strerror)


def _set_aside(path: str, event: Event, reason: str, result: Result) -> None:
    if not isinstance(event, Leg) and time.time() - event.ended_at.timestamp() < _PATIENCE_SECONDS:
        result.left.add(path)
        return
    spool.reject(path, reason)
    logger.error("%s set aside: %s", path, reason)
    result.rejected += 1
