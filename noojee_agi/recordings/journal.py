"""The spool's files as the drain sees them: the journal, which it takes away, and what it has taken.

Only the holder of the spool's lock takes, changes or removes one. Why nothing is lost: see recordings.spool.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator

from noojee_agi.errors import JournalUnusable
from noojee_agi.recordings import files

NAME = "journal"
_LEFT_SECONDS = 3600


def taken(directory: str) -> list[str]:
    """The journals that a drain has taken away and not done with, oldest first. Raises OSError."""
    found = [
        int(number)
        for name, _, number in (name.partition(".") for name in _names(directory))
        if name == NAME and number.isdecimal() and number == str(int(number))
    ]
    return [_path(directory, number) for number in sorted(found)]


def next_path(directory: str) -> str:
    """What the next journal that is taken is called; there is no clock in it. Raises OSError."""
    last = taken(directory)[-1:]
    return _path(directory, 1 + int(last[0].rpartition(".")[2]) if last else 1)


def is_empty(directory: str) -> bool:
    """Whether nothing waits to be taken. Raises OSError."""
    try:
        return not os.stat(os.path.join(directory, NAME)).st_size
    except FileNotFoundError:
        return True


def take(directory: str) -> str:
    """Take the journal away, unless it is empty, and return its new path, else nothing. Raises OSError.

    A fresh one is laid in its place, so that no caller has to pay for that. The disk may be full, or know no
    links: then the next caller makes it.
    """
    if is_empty(directory):
        return ""
    path, target = os.path.join(directory, NAME), next_path(directory)
    fresh = files.temporary_name(path)
    with contextlib.suppress(OSError):
        os.close(files.create(fresh))
    try:
        os.rename(path, target)
        with contextlib.suppress(OSError):
            os.link(fresh, path)  # never over one that a caller has made meanwhile
    finally:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
    return target


def batches(path: str, size: int) -> Iterator[list[bytes]]:
    """The lines of one journal, so many at a time: 100 000 may wait. Raises JournalUnusable."""
    try:
        with files.opened(path) as file:
            waiting = lines(file)
            while batch := list(itertools.islice(waiting, size)):
                yield batch
    except OSError as exc:
        raise JournalUnusable(f"{path} cannot be read: {exc.strerror}") from exc


def lines(file: Iterable[bytes]) -> Iterator[bytes]:
    """Without their ends, and without the empty ones that stand between them. Raises OSError."""
    for line in file:
        if line.strip():
            yield line.rstrip(b"\n")


def is_whole(line: bytes) -> bool:
    """Whether it has the end that our lines have; one that a full disk or a kill has cut off has not."""
    return line.endswith(b"}")


def line_in(path: str) -> bytes:
    """What an event's own file holds, in which a person may have made several lines of it. Raises OSError."""
    with files.opened(path) as file:
        return b" ".join(file.read().strip().splitlines())


def event_files(directory: str) -> list[str]:
    """The events of versions before the journal: a file each, oldest first. Raises OSError."""
    return [os.path.join(directory, name) for name in sorted(_names(directory)) if name.endswith(".json")]


def keep_only(path: str, left: list[bytes]) -> None:
    """The drain is done with this journal but for these lines. Raises JournalUnusable; then all stay."""
    try:
        if left:
            files.write(path, b"".join(line + b"\n" for line in left), is_settled=True)
        else:
            os.unlink(path)
    except OSError as exc:
        raise JournalUnusable(f"{path} cannot be replaced: {exc.strerror}") from exc


def tidy(directory: str) -> None:
    """Remove what killed programs have left half written. Raises OSError."""
    for name in _names(directory):
        path = os.path.join(directory, name)
        with contextlib.suppress(OSError):  # gone, or none of ours
            is_half = name.endswith(files.HALF_WRITTEN)
            if is_half and time.time() - os.stat(path).st_mtime > _LEFT_SECONDS:
                os.unlink(path)


def _path(directory: str, number: int) -> str:
    return os.path.join(directory, f"{NAME}.{number}")


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
