"""The events that wait for the database: one JSON file each, on the audio's own disk.

A file is there whole or not at all (temporary name, then rename). It is written before MixMonitor
starts, so a kill at any instruction leaves either no recording or an event that tells of it.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence

from noojee_agi import text
from noojee_agi.recordings import recording

REJECTED = "rejected"
_DIRECTORY = ".spool"
_SUFFIX = ".json"
_LOCK = ".lock"
_HALF_WRITTEN = ".tmp"
_HALF_WRITTEN_SECONDS = 3600
_SPARE = "spare"
_SPARES = (2048, 256, 32, 4, 1)  # the lowest numbers are filled first: one of these guesses hits


def directory_in(recordings_directory: str) -> str:
    """The spool of these recordings."""
    return os.path.join(recordings_directory, _DIRECTORY)


def put(directory: str, event: recording.Event) -> str:
    """Write the event and return its file. It is not forced to the disk: see settle().

    Raises OSError.
    """
    name = f"{time.time_ns():020d}-{recording.kind(event)}-{recording.leg_id(event)}{_SUFFIX}"
    path, content = os.path.join(directory, name), recording.to_json(event)
    try:
        write(path, content, os.path.join(directory, _SPARE))
    except OSError:  # there is no spool yet, or the spare file was made by another user
        make_folder(directory)
        write(path, content)
    return path


def forget(paths: Sequence[str]) -> None:
    """Take these events of one spool away; their files are kept for later ones. Raises OSError.

    To make and remove a file for each call can cost more than all the rest of it: an ext4 without a journal
    passes over every inode that was freed in the last minutes (fs/ext4/ialloc.c, recently_deleted).
    """
    if not paths:
        return
    spare = os.path.join(os.path.dirname(paths[0]), _SPARE)
    make_folder(spare)
    taken = set(os.listdir(spare))
    free = (name for name in map(str, range(_SPARES[0])) if name not in taken)
    for path in paths:
        name = next(free, "")
        if name:
            os.rename(path, os.path.join(spare, name))
        else:
            os.unlink(path)


def write(path: str, content: str, spare: str = "") -> None:
    """Put content at path in one step, readable by owner and group; a crash leaves the old file or the new.

    spare: a folder of files of which one may be used. Nothing that stands at a name of ours is followed, and
    nobody knows the temporary one beforehand. Raises OSError.
    """
    temporary = f"{path}.{os.urandom(8).hex()}{_HALF_WRITTEN}"
    is_spare = bool(spare) and _take_spare(spare, temporary)
    how = os.O_TRUNC if is_spare else os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | how, 0o640)
        with open(descriptor, "wb", buffering=0) as file:
            rest = content.encode("utf-8", "replace")
            while rest:
                rest = rest[file.write(rest) :]
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _take_spare(folder: str, target: str) -> bool:
    """Put a spare file there, if one is found soon; others may be looking, too."""
    for limit in _SPARES:
        with contextlib.suppress(OSError):
            os.rename(os.path.join(folder, str(time.time_ns() % limit)), target)
            return True
    return False


def make_folder(path: str) -> None:
    """Make this one folder, 0750, unless it is there; its parent must be, or a lost mount would be filled.

    Raises OSError.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o750)


def settle(path: str) -> None:
    """Force file and folder to the disk, so that they outlive a power cut. Raises OSError."""
    for item in (path, os.path.dirname(path)):
        with contextlib.suppress(FileNotFoundError):  # a drain was quicker
            descriptor = os.open(item, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def waiting(directory: str) -> list[str]:
    """The events' files, oldest first by the clock of their day. Raises OSError."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [os.path.join(directory, name) for name in sorted(names) if name.endswith(_SUFFIX)]


def rejected(directory: str) -> list[str]:
    """The events that the database will never take. Raises OSError."""
    return waiting(os.path.join(directory, REJECTED))


def oldest(directory: str) -> float | None:
    """When the event that waits longest was written, in seconds of time.time(). Raises OSError."""
    times = []
    for path in waiting(directory):
        with contextlib.suppress(FileNotFoundError):  # a drain was quicker
            times.append(os.stat(path).st_mtime)
    return min(times, default=None)


def retry_rejected(directory: str) -> int:
    """Put what was set aside back into the queue; returns how many. Raises OSError."""
    paths = rejected(directory)
    for path in paths:
        os.rename(path, os.path.join(directory, os.path.basename(path)))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.reason")
    return len(paths)


def read(path: str) -> recording.Event:
    """The event in this file. Raises OSError; ValueError, KeyError or TypeError when it is damaged."""
    with open(path, encoding="utf-8") as file:
        return recording.from_json(file.read())


def tidy(directory: str) -> None:
    """Remove what killed programs have left half written. Raises OSError."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        with contextlib.suppress(OSError):  # gone, or none of ours
            if name.endswith(_HALF_WRITTEN) and time.time() - os.stat(path).st_mtime > _HALF_WRITTEN_SECONDS:
                os.unlink(path)


def reject(path: str, reason: str) -> None:
    """Set the event aside, with the reason beside it. Raises OSError."""
    aside = os.path.join(os.path.dirname(path), REJECTED)
    make_folder(aside)
    target = os.path.join(aside, os.path.basename(path))
    write(f"{target}.reason", text.printable(reason) + "\n")
    os.rename(path, target)


@contextlib.contextmanager
def lock(directory: str, wait: bool = False) -> Iterator[bool]:
    """Whether this process is now the only drain; the lock dies with its holder (flock). Raises OSError.

    With wait it is true as soon as the present holder is done.
    """
    descriptor = take_lock(directory, wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def take_lock(directory: str, wait: bool = False) -> int | None:
    """The lock's descriptor, which holds it until it is closed; None when another has it. Raises OSError."""
    make_folder(directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(os.path.join(directory, _LOCK), flags, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as exc:
        os.close(descriptor)
        if isinstance(exc, BlockingIOError):
            return None
        raise
    return descriptor
