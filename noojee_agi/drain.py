"""Spool -> database -> side-car. Started in the background after each call, and by `noojee-agi sync`."""

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from noojee_agi import closing, config, log, rebuild, recording, sidecar, snapshot, spool, wav
from noojee_agi.config import Config
from noojee_agi.database import intake, queries, settings
from noojee_agi.database.schema import open_store
from noojee_agi.database.store import Store, in_turn
from noojee_agi.errors import NoojeeError, StoreRejected
from noojee_agi.recording import Event, Leg, leg_id

logger = logging.getLogger(__name__)

_BATCH = 200
# An ending without its start waits this long before it is set aside: the start may be on its way.
_PATIENCE_SECONDS = 60
_LEFT_SECONDS = 2.0


@dataclass
class Result:
    """What a drain did. busy: another one holds the lock. left: events that must be tried again later."""

    stored: int = 0
    rejected: int = 0
    busy: bool = False
    left: set[str] = field(default_factory=set)


def open_database(known: Config) -> Store:
    """The database. One that has to be made gets the settings from their copy, if there is one: it was lost.

    Else waiting events would be stored without their owners. Raises StoreUnavailable and OSError.
    """
    return open_store(known.database_url, lambda store: restore_settings(store, known))


def restore_settings(store: Store, known: Config) -> None:
    """Of a database that has just been made. Raises StoreUnavailable and OSError."""
    try:
        restored = rebuild.restore_settings(store, known.recordings_directory)
    except NoojeeError as exc:
        logger.error("%s was made anew without its settings: %s", store.name, exc)
        restored = 0
    restore_key(store, known.snapshot_file)
    if restored:
        logger.error(
            "%s was made anew, %d settings are back from their copy: noojee-agi sync --rebuild does the rest",
            store.name,
            restored,
        )


def restore_key(store: Store, snapshot_file: str) -> None:
    """Unless there is one: the snapshot knows its digest, too. Raises StoreUnavailable."""
    before = snapshot.load(snapshot_file)
    with store.transaction() as connection:
        if before and before.key_digest and not settings.key_digest(connection):
            settings.set_key_digest(connection, before.key_digest)


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


def close_silent_legs(store: Store, server: str, spool_directory: str, is_patient: bool = True) -> int:
    """Close the legs of this server that ended without a word; returns how many. is_patient: see run().

    Raises StoreUnavailable and OSError.
    """
    with store.reading() as connection:
        open_legs = queries.open_legs(connection, server)
    endings = list(closing.endings(open_legs, recording.now()))
    for ending in endings:
        spool.put(spool_directory, ending)
    if endings:
        run(store, spool_directory, is_patient=is_patient)
    return len(endings)


def renew_snapshot(store: Store, path: str) -> None:
    """Read what the call path must know. Raises StoreUnavailable and OSError."""
    with store.reading() as connection:
        snapshot.save(path, settings.snapshot(connection))


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


def _write_side_cars(store: Store, legs: list[dict[str, Any]], others: set[str]) -> set[str]:
    """Mend files, and write; returns the calls of which one must be tried again."""
    for leg in legs:
        if leg["status"] == "interrupted":
            _repair(leg["file"])
    unwritten = {leg["call_record_id"] for leg in legs if not sidecar.write(leg)}
    ours = (leg for leg in queries.each_leg(store, others) if sidecar.is_here(leg["file"]))
    return unwritten | {leg["call_record_id"] for leg in ours if not sidecar.write(leg)}


def _repair(file: str) -> None:
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


def main(path: str, lock: str = "") -> None:
    """The background drain. lock: the descriptor of the spool's lock, held since before our imports."""
    known = config.load("" if path == "-" else path)
    log.to_file(known)
    try:
        store = open_database(known)
        if lock:
            os.close(int(lock))
        result = run(store, known.spool_directory)
        if result.left:  # such as an ending whose start another host is about to store
            time.sleep(_LEFT_SECONDS)
            result = run(store, known.spool_directory)
        if not result.busy:
            close_silent_legs(store, known.server_name, known.spool_directory)
        renew_snapshot(store, known.snapshot_file)
    except (NoojeeError, OSError) as exc:
        logger.error("%s: %s", backlog(known.spool_directory), exc)
    else:
        logger.debug("drained: %s", result)


if __name__ == "__main__":
    main(*sys.argv[1:])
