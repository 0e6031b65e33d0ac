"""Deletes the audio of old recordings; the row and the side-car stay, and say so.

Each file goes in these steps, and what a kill between two of them leaves, recover() brings to an end:

1. In a transaction that locks the leg's call, so that nobody can put a hold on the leg meanwhile: the file is
   renamed to one that is being purged, the row gets purged_at, and the event is stored. When that is not
   committed, the file gets its name back.
2. The side-car is written; if the disk has no room for that, the renamed file is emptied before.
3. The renamed file is removed.

All under the spool's lock: no drain writes a side-car meanwhile. A hold that waits in the spool counts, too.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from noojee_agi.config import Config
from noojee_agi.database import intake, queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.recordings import converted, history, recording, sidecar, spool
from noojee_agi.recordings.files import BEING_PURGED
from noojee_agi.recordings.recording import HELD, PURGED, Note
from noojee_agi.sync import closing, rebuild

logger = logging.getLogger(__name__)

_BATCH = 50
_PAGE = 1000
_NEVER = ("recording", "failed")

Row = dict[str, Any]


@dataclass
class Result:
    """purged: how many legs, and how many bytes that were. left_alone: file -> why."""

    purged: int = 0
    bytes: int = 0
    left_alone: dict[str, str] = field(default_factory=dict)


def due(store: Store, config: Config, wanted: Filter) -> Iterator[Row]:
    """The legs of this machine whose audio may go. Raises StoreUnavailable."""
    directories = _directories(config)
    last = None
    while True:
        with store.reading() as connection:
            page = queries.next_legs(connection, wanted, last, _PAGE, may_be_purged=True)
        here = (leg for leg in page if _is_below(leg["file"], directories))
        yield from (leg for leg in here if os.path.exists(leg["file"]))
        if len(page) < _PAGE:
            return
        last = page[-1]


def run(store: Store, config: Config, wanted: Filter, reason: str, progress: Callable[[int], None]) -> Result:
    """Purge what is due. Safe to interrupt and to repeat. Raises StoreUnavailable and OSError."""
    recover(store, config)
    result, batch = Result(), list[Row]()
    for leg in due(store, config, wanted):
        batch.append(leg)
        if len(batch) == _BATCH:
            _purge(store, config, batch, reason, result)
            progress(len(batch))
            batch = []
    if batch:
        _purge(store, config, batch, reason, result)
        progress(len(batch))
    return result


def recover(store: Store, config: Config) -> None:
    """Bring to an end what a former purge was killed in. Raises StoreUnavailable and OSError."""
    for directory in _directories(config):
        for path in rebuild.every_file(directory, {}):
            if path.endswith(BEING_PURGED):
                with spool.lock(config.spool_directory, wait=True):
                    _recover(store, path.removesuffix(BEING_PURGED))


def _recover(store: Store, file: str) -> None:
    if not os.path.lexists(f"{file}{BEING_PURGED}"):
        return  # another purge was at work when we looked, and has ended it
    with store.reading() as connection:
        found = queries.legs_whose_id_begins(connection, recording.id_in(file))
        legs = queries.whole_legs(connection, [leg["id"] for leg in found])
    for leg in legs:
        if leg["purged_file"] == file:
            _finish(leg)
            return
    if os.path.exists(file):
        logger.error("%s%s is left alone, since %s is there, too", file, BEING_PURGED, file)
        return
    os.rename(f"{file}{BEING_PURGED}", file)


def _purge(store: Store, config: Config, batch: list[Row], reason: str, result: Result) -> None:
    with spool.lock(config.spool_directory, wait=True):
        held = _held_in(config.spool_directory)
        wanted = {leg["id"]: leg for leg in batch if leg["id"] not in held}
        purged = store.in_turn(lambda connection: _purge_rows(connection, set(wanted), reason, result))
        for leg in queries.each_leg(store, purged):
            _finish(leg)
            result.purged += 1
            result.bytes += leg["bytes"] or 0
    for folder in {os.path.dirname(leg["file"]) for leg in batch}:
        _remove_empty(folder)


def _held_in(spool_directory: str) -> set[str]:
    """The legs whose hold has not come into the database yet. Raises OSError."""
    held = set()
    for line in spool.waiting(spool_directory):
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):  # the drain tells of it
            event = recording.from_json(line.decode())
            if isinstance(event, Note) and event.what == HELD:
                held.add(event.leg_id)
    return held


def _purge_rows(connection: Any, leg_ids: set[str], reason: str, result: Result) -> set[str]:
    """In a transaction, which may be done again."""
    intake.lock_calls_of(connection, leg_ids)
    purged = set()
    for leg in queries.legs_by_id(connection, leg_ids):
        if leg["held"] or leg["purged_at"] or leg["status"] in _NEVER:
            continue  # since we have looked
        if problem := _obstacle(leg):
            result.left_alone[leg["file"]] = problem
        else:
            _rename(leg["file"])
            purged.add(leg["id"])
    now = recording.now()
    intake.store(connection, [Note(leg_id, now, PURGED, None, reason) for leg_id in sorted(purged)])
    return purged


def _obstacle(leg: Row) -> str:
    """Why this file must not go, for a person; else empty. A database that others share may name any file."""
    file = leg["file"]
    if not recording.is_ours(file) or recording.id_in(file) != leg["id"][:8]:
        return "it has not the name of this leg's recording"
    try:
        found = os.lstat(file if os.path.lexists(file) else f"{file}{BEING_PURGED}")
        if not stat.S_ISREG(found.st_mode):
            return "it is no file"
        if found.st_uid != os.geteuid():
            return "it belongs to another user"
        if os.path.lexists(file) and closing.has_writer(file):
            return "it is being written"
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def _rename(file: str) -> None:
    """Unless the transaction is done again, and it was renamed the first time. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(file, f"{file}{BEING_PURGED}")


def _finish(leg: Row) -> None:
    """The row says that it is purged. Raises OSError."""
    path = f"{leg['purged_file']}{BEING_PURGED}"
    if not sidecar.write(leg):
        os.truncate(path, 0)
        if not sidecar.write(leg):
            return  # the next purge does it
    for each in _converted(leg["purged_file"]):
        os.unlink(each)
    os.unlink(path)


def _converted(file: str) -> list[str]:
    """Ours, that somebody has made of it."""
    about = {each: os.lstat(each) for each in converted.beside(file)}
    return [
        each for each, found in about.items() if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    ]


def _directories(config: Config) -> list[str]:
    known = history.load(config.state_directory)
    here = config.recordings_directory
    return [each for each in [here, *known.former(here)] if not known.is_away(each)]


def _is_below(file: str, directories: list[str]) -> bool:
    return any(file.startswith(f"{directory}/") for directory in directories)


def _remove_empty(folder: str) -> None:
    """The day's, then the month's and the year's, as long as nothing is left in them."""
    for _ in range(3):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
        folder = os.path.dirname(folder)
