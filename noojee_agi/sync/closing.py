"""Finds the legs that ended without a word: Asterisk or our own program died, so nobody told the end.

A leg has failed only when its folder is there and its file is not: else its disk may not be mounted.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from noojee_agi.recordings import recording, wav
from noojee_agi.recordings.recording import Ending, OpenLeg
from noojee_agi.recordings.wav import Header

logger = logging.getLogger(__name__)

# A start or an end that is under way right now is none of our business.
SETTLED_AFTER = timedelta(seconds=15)
# Where the file system cannot tell who has a file open (NFS): not grown for so long means closed.
_NOT_GROWING_AFTER = timedelta(hours=1)


def endings(legs: Iterable[OpenLeg], now: datetime) -> Iterator[Ending]:
    """The endings of those legs that do not record any more."""
    settled = (leg for leg in legs if now - leg.started_at >= SETTLED_AFTER)
    return _found(settled, lambda leg: _ending(leg, now))


def ended(legs: Iterable[OpenLeg]) -> list[Ending]:
    """The endings of legs whose file has just been closed: nothing is waited for.

    Passed over: a file that is written to still, or again, or is not there yet, and one without a header,
    which says too little: finish_record tells of it.
    """
    return list(_found(legs, _ending_of_closed))


def _found(legs: Iterable[OpenLeg], ending_of: Callable[[OpenLeg], Ending | None]) -> Iterator[Ending]:
    for leg in legs:
        try:
            ending = ending_of(leg)
        except OSError as exc:
            logger.error("leg %s cannot be closed: %s", leg.id, exc)
            continue
        if ending:
            yield ending


def without_folder(legs: Iterable[OpenLeg], now: datetime) -> list[OpenLeg]:
    """Those of which nothing can be said until their folder is there."""
    settled = [leg for leg in legs if now - leg.started_at >= SETTLED_AFTER]
    folders = {os.path.dirname(leg.file) for leg in settled}
    missing = {folder for folder in folders if not os.path.isdir(folder)}
    return [leg for leg in settled if os.path.dirname(leg.file) in missing]


def with_file(legs: Iterable[OpenLeg]) -> list[OpenLeg]:
    """Those whose file is there. Each folder is read once: all calls of a day may have failed."""
    found: dict[str, set[str]] = {}
    there = []
    for leg in legs:
        folder, name = os.path.split(leg.file)
        if folder not in found:
            found[folder] = set()
            with contextlib.suppress(OSError):
                found[folder] = set(os.listdir(folder))
        if name in found[folder]:
            there.append(leg)
    return there


def _ending(leg: OpenLeg, now: datetime) -> Ending | None:
    try:
        changed_at = recording.file_time(os.stat(leg.file).st_mtime)
    except (FileNotFoundError, NotADirectoryError):
        return Ending(leg.id, "failed", now) if os.path.isdir(os.path.dirname(leg.file)) else None
    if now - changed_at < SETTLED_AFTER or _is_being_written(leg.file, now - changed_at):
        return None
    header = wav.read(leg.file)
    if header is None:
        seconds = max(0.0, (changed_at - leg.started_at).total_seconds())
        return Ending(leg.id, "interrupted", changed_at, os.path.getsize(leg.file), round(seconds, 3))
    return _by_header(leg, header, changed_at)


def _ending_of_closed(leg: OpenLeg) -> Ending | None:
    try:
        if _is_being_written(leg.file, timedelta(0)):
            return None
        changed_at = recording.file_time(os.stat(leg.file).st_mtime)
        header = wav.read(leg.file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _by_header(leg, header, changed_at) if header else None


def _by_header(leg: OpenLeg, header: Header, changed_at: datetime) -> Ending:
    if header.is_right:
        # Asterisk closed it, only the word was lost.
        return recording.ending_by_header(leg.id, header, header.size, changed_at)
    return Ending(leg.id, "interrupted", changed_at, header.repaired_size, header.seconds)


def can_tell_who_writes(file: str) -> bool:
    """Whether the file system of this file of ours has leases: NFS, say, has none. Raises OSError."""
    return has_writer(file) is not None


def _is_being_written(file: str, unchanged_for: timedelta) -> bool:
    is_open = has_writer(file)
    return unchanged_for < _NOT_GROWING_AFTER if is_open is None else is_open


def has_writer(file: str) -> bool | None:
    """Whether a process has the file open for writing: then a read lease is refused (fcntl(2) F_SETLEASE).

    None where the file system has no leases. Raises OSError when the file cannot be opened.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False
