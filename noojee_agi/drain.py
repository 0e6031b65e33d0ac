"""Spool -> database -> side-car. Started in the background after each call, and by `noojee-agi sync`."""

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from noojee_agi import config, log, recording, sidecar, snapshot, spool
from noojee_agi.database import intake, queries, settings
from noojee_agi.database.schema import open_store
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError, StoreRejected
from noojee_agi.recording import Event, Leg

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


def run(store: Store, spool_directory: str, progress: Callable[[int], None] = lambda count: None) -> Result:
    """Store every waiting event. progress is told how many each batch has dealt with.

    Raises StoreUnavailable (what was not stored stays in the spool) and OSError.
    """
    result = Result()
    while True:
        with spool.lock(spool_directory) as ours:
            result.busy = not ours
            while ours and (batch := _next_batch(spool_directory, result)):
                _store_batch(store, batch, result)
                progress(len(batch))
        # An event that came after the last look, whose own drain found the lock taken, is ours too.
        if not ours or not _next_batch(spool_directory, result):
            return result


def renew_snapshot(store: Store, path: str) -> None:
    """Read what the call path must know. Raises StoreUnavailable and OSError."""
    with store.transaction() as connection:
        digest, logins = settings.key_digest(connection), settings.enabled_logins(connection)
    snapshot.save(path, digest, logins)


def _next_batch(spool_directory: str, result: Result) -> list[str]:
    """Starts before endings: so the order of each leg holds even when the clock was set back."""
    paths = [path for path in spool.waiting(spool_directory) if path not in result.left]
    return sorted(paths, key=lambda path: f"-{recording.STARTED}-" not in path)[:_BATCH]


def _store_batch(store: Store, paths: list[str], result: Result) -> None:
    """In one transaction; when one event is refused, each in its own."""
    events = dict(_readable(paths, result))
    try:
        _store(store, events, result)
    except StoreRejected:
        for path, event in events.items():
            try:
                _store(store, {path: event}, result)
            except StoreRejected as exc:
                _set_aside(path, event, str(exc), result)


def _readable(paths: list[str], result: Result) -> list[tuple[str, Event]]:
    events = []
    for path in paths:
        try:
            events.append((path, spool.read(path)))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            spool.reject(path, f"not an event of this program: {exc!r}")
            logger.error("%s is damaged: set aside", path)
            result.rejected += 1
    return events


def _store(store: Store, events: dict[str, Event], result: Result) -> None:
    """Commit, then write the side-cars, then forget the events: a crash in between only repeats this."""
    with store.transaction() as connection:
        for event in events.values():
            intake.store(connection, event)
        ids = {event.id if isinstance(event, Leg) else event.leg_id for event in events.values()}
        legs = queries.legs_of_the_calls_of(connection, ids)
    for leg in legs:
        sidecar.write(leg)
    for path in events:
        os.unlink(path)
    result.stored += len(events)


def _set_aside(path: str, event: Event, reason: str, result: Result) -> None:
    if not isinstance(event, Leg) and time.time() - event.ended_at.timestamp() < _PATIENCE_SECONDS:
        result.left.add(path)
        return
    spool.reject(path, reason)
    logger.error("%s set aside: %s; see noojee-agi sync", path, reason)
    result.rejected += 1


def main(path: str) -> None:
    """The background drain: renews the snapshot, since a call may be waiting for that, and then drains."""
    known = config.load("" if path == "-" else path)
    log.to_file(known)
    try:
        store = open_store(known.database_url)
        renew_snapshot(store, known.snapshot_file)
        result = run(store, known.spool_directory)
    except (NoojeeError, OSError) as exc:
        waiting = len(spool.waiting(known.spool_directory))
        logger.error("%d events wait in the spool: %s", waiting, exc)
    else:
        logger.debug("drained: %s", result)


if __name__ == "__main__":
    main(sys.argv[1])
