"""Spool -> database -> side-car. Started in the background after each call, and by `noojee-agi sync`."""

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from noojee_agi import closing, config, history, log, rebuild, recording, sidecar, snapshot, spool, wav
from noojee_agi.config import Config
from noojee_agi.database import intake, queries, settings
from noojee_agi.database.schema import open_store
from noojee_agi.database.store import Store, in_turn
from noojee_agi.errors import NoojeeError, StoreRejected
from noojee_agi.history import History
from noojee_agi.recording import Event, Leg, OpenLeg, leg_id

logger = logging.getLogger(__name__)

_BATCH = 200
# An ending without its start waits this long before it is set aside: the start may be on its way.
_PATIENCE_SECONDS = 60
_LEFT_SECONDS = 2.0
# How old failed legs may be that are looked at again: their disk may be back. An index has them by start.
NONE, LATELY, ALL = timedelta(0), timedelta(days=7), timedelta(days=36500)
# A former spool in which nothing has moved for so long has no call left, and a former name no leg.
_QUIET_SECONDS = 3600.0
_NAME_IS_KEPT = timedelta(days=30)


@dataclass
class Result:
    """What a drain did. busy: another one holds the lock. left: events that must be tried again later."""

    stored: int = 0
    rejected: int = 0
    busy: bool = False
    left: set[str] = field(default_factory=set)


@dataclass
class Tended:
    """What tend() did. stored: events of former spools. problems: what could not be seen, for a person.

    busy: another one is at it, or hangs there.
    """

    stored: int = 0
    closed: int = 0
    busy: bool = False
    problems: list[str] = field(default_factory=list)


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


def tend(store: Store, config: Config, is_patient: bool = True, failed_since: timedelta = NONE) -> Tended:
    """Do what no event of the spool tells of: former spools, and legs that ended without a word.

    is_patient: see run(). failed_since: legs that have failed and are no older are looked at again, too.
    A former disk may hang, so one at a time does it, and the others go on without.
    Raises StoreUnavailable and OSError.
    """
    with history.tending(config.state_directory) as ours:
        return _tend(store, config, is_patient, failed_since) if ours else Tended(busy=True)


def _tend(store: Store, config: Config, is_patient: bool, failed_since: timedelta) -> Tended:
    known, done = _remembered(config), Tended()
    former = known.former(config.recordings_directory)
    for directory in [config.recordings_directory, *former]:
        if problem := obstacle(config, known, directory):
            done.problems.append(problem)
        elif directory in former:
            _follow(store, spool.directory_in(directory), is_patient, done)
    legs = open_legs(store, known)
    if not known.is_away(config.recordings_directory):
        failed = _failed_legs(store, known, failed_since) if failed_since else []
        done.closed = _close(store, [*legs, *failed], config.spool_directory, is_patient)
    done.problems += left_open(legs)
    _forget(config, known, former, legs)
    return done


def open_legs(store: Store, known: History) -> list[OpenLeg]:
    """The legs of this machine that are thought to be recording, under whatever name it had."""
    with store.reading() as connection:
        return [
            leg
            for server in known.servers
            for leg in queries.open_legs(connection, server)
            if known.is_ours(server, leg.started_at)
        ]


def obstacle(config: Config, known: History, directory: str) -> str:
    """Why the events of these recordings cannot be taken in, and what to do, for a person; else empty."""
    spool_directory = spool.directory_in(directory)
    if known.is_away(directory):
        return (
            f"{directory} is not what it was: its spool is missing, closed to us, or another. Mount its"
            f" disk; if it is gone for good, take its line out of {history.path_in(config.state_directory)}"
        )
    if directory not in known.former(config.recordings_directory):
        return ""  # whose files a server of NFS says that they are, does not matter while they can be used
    if os.lstat(spool_directory).st_uid != os.geteuid():
        return f"{spool_directory} belongs to another user: run noojee-agi sync as that user"
    return ""


def left_open(legs: list[OpenLeg]) -> list[str]:
    """The legs that nobody can close, and what to do, for a person."""
    left = closing.without_folder(legs, recording.now())
    if not left:
        return []
    return [
        f"{len(left)} legs stay open, since folders such as {os.path.dirname(left[0].file)} are not there:"
        " mount the disk; if the recordings were moved, make a link to where they are; if they are gone for"
        " good, make the folder; then run noojee-agi sync"
    ]


def _remembered(config: Config) -> History:
    """What this machine's state directory knows; what is in use now always is."""
    directory = config.recordings_directory
    before = history.load(config.state_directory).directories.get(directory)
    try:
        known = history.remember(config.state_directory, config.server_name, directory)
        if before and known.directories[directory] != before:
            logger.warning(
                "%s is another disk than the one that was known, and is used from now on", directory
            )
        return known
    except OSError as exc:
        path = history.path_in(config.state_directory)
        logger.error("%s cannot be renewed, so a change of directory or name is not followed: %s", path, exc)
    known = history.load(config.state_directory)
    return replace(known, servers={**known.servers, config.server_name: None})


def _follow(store: Store, spool_directory: str, is_patient: bool, done: Tended) -> None:
    """A disk that fails there keeps back nothing of here."""
    try:
        done.stored += run(store, spool_directory, is_patient=is_patient).stored
    except OSError as exc:
        done.problems.append(f"{spool_directory}, where events may wait, cannot be used: {exc.strerror}")


def _close(store: Store, legs: list[OpenLeg], spool_directory: str, is_patient: bool) -> int:
    endings = list(closing.endings(legs, recording.now()))
    for ending in endings:
        spool.put(spool_directory, ending)
    if endings:
        run(store, spool_directory, is_patient=is_patient)
    return len(endings)


def _failed_legs(store: Store, known: History, since: timedelta) -> list[OpenLeg]:
    """Legs that have failed although their file is there now."""
    wanted = queries.Filter(status="failed", started_from=recording.now() - since)
    with store.reading() as connection:
        rows = queries.legs(connection, wanted)
        legs = [
            OpenLeg(row["id"], row["file"], row["started_at"])
            for row in rows
            if known.is_ours(row["server"], row["started_at"])
        ]
    return closing.with_file(legs)


def _forget(config: Config, known: History, former: list[str], legs: list[OpenLeg]) -> None:
    """Former spools that are empty, and former names, that no open leg is left of."""
    spools = [path for path in former if not known.is_away(path) and _is_over(path, legs)]
    oldest = recording.now() - _NAME_IS_KEPT
    names = [] if legs else [name for name, until in known.servers.items() if until and until < oldest]
    try:
        history.forget(config.state_directory, names, spools)
    except OSError as exc:
        logger.error("%s cannot be renewed: %s", history.path_in(config.state_directory), exc)


def _is_over(directory: str, legs: list[OpenLeg]) -> bool:
    """Whether no call that began there can bring another event."""
    spool_directory = spool.directory_in(directory)
    if any(leg.file.startswith(f"{directory}/") for leg in legs):
        return False
    try:
        is_quiet = time.time() - os.stat(spool_directory).st_mtime > _QUIET_SECONDS
        return is_quiet and not spool.waiting(spool_directory) and not spool.rejected(spool_directory)
    except OSError:
        return False


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
        renew_snapshot(store, known.snapshot_file)  # first: a former disk may hang
        if not result.busy:
            for problem in tend(store, known).problems:
                logger.error(problem)
    except (NoojeeError, OSError) as exc:
        logger.error("%s: %s", backlog(known.spool_directory), exc)
    else:
        logger.debug("drained: %s", result)


if __name__ == "__main__":
    main(*sys.argv[1:])
