"""The events that wait for the database: a journal on the audio's own disk, one line of JSON for each.

A caller appends his line with one write(), before MixMonitor starts, and takes no lock: no drain, however
slow, stopped or killed, can hold him. A drain renames the journal, lays a fresh one in its place, and reads
the renamed one, which it removes when all is stored. Nothing is lost:

- A line that was written before the rename is read, since the drain opens the file after it. One that was
  written later may come too late for that. So the writer, when he has written, compares his open file with
  what the name then stands for. Are they the same, his line came before the rename; else he writes it again
  into the present journal. Twice is harmless: the leg's id is its own, and the database takes it once.
- They cannot be the same by chance: no journal comes back to the name that was taken from it, none is cut
  short or used again, and the file system gives no new file the number of one that somebody holds open.
- A writer that is killed before the comparison has told nobody that the event is noted, and MixMonitor has
  not begun: his line is there or it is not. One that is killed in write(), or meets a full disk, leaves the
  first part of a line. Each line begins with a line's end of its own, so the next stands apart from it.
- A drain that is killed before the rename has changed nothing; between that and laying the fresh journal,
  the next writer makes one; later, the next drain reads the renamed one again, which is removed only when
  everything in it is stored, or replaced in one step by a file of the lines that are left.

Appending is one step for all writers of one machine (write(2) with O_APPEND, under the file's own lock in the
kernel); each machine has recordings, and so a spool, of its own.
"""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator

from noojee_agi.recordings import files, journal, recording, rejected

_DIRECTORY = ".spool"
_LOCK = ".lock"
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

States = frozenset[tuple[int, int]]  # of journals: number of the file, and bytes
_TRIES = 100  # each but the last needs a drain that takes the journal in just these microseconds


def directory_in(recordings_directory: str) -> str:
    return os.path.join(recordings_directory, _DIRECTORY)


def put(directory: str, *events: recording.Event) -> None:
    """Note the events. They are not forced to the disk: see settle(). Raises OSError."""
    append(directory, *(recording.to_json(event).encode("utf-8", "replace") for event in events))


def append(directory: str, *lines: bytes) -> None:
    """Add the lines to the journal. Raises OSError; then the drain may find a part of them, or all."""
    path, content = os.path.join(directory, journal.NAME), b"".join(b"\n%b\n" % line for line in lines)
    for _ in range(_TRIES):
        descriptor = _open(directory, path)
        try:
            _write(descriptor, content)
            if _is_at(path, descriptor):
                return
        finally:
            os.close(descriptor)
    raise OSError(errno.EAGAIN, "the journal is taken away again and again", path)


def probe(directory: str) -> None:
    """Open the journal as a writer does, if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.close(os.open(os.path.join(directory, journal.NAME), _APPEND))


def _open(directory: str, path: str) -> int:
    try:
        return os.open(path, _APPEND)
    except FileNotFoundError:
        files.make_folder(directory)
        return os.open(path, _APPEND | os.O_CREAT, 0o640)


def _write(descriptor: int, content: bytes) -> None:
    """After a part only all of it again: somebody else's may stand behind that part already."""
    for _ in range(2):
        if os.write(descriptor, content) == len(content):
            return
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _is_at(path: str, descriptor: int) -> bool:
    """Whether the open file is still what path stands for."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def settle(directory: str, settled: States = frozenset()) -> States:
    """Force what waits to the disk, so that it outlives a power cut. Raises OSError.

    settled: what the last time has returned; a journal that is as it was then is left out.
    """
    states = set()
    for path in [*journal.taken(directory), os.path.join(directory, journal.NAME)]:
        with contextlib.suppress(FileNotFoundError), files.opened(path) as file:  # a drain was quicker
            there = os.fstat(file.fileno())
            states.add(state := (there.st_ino, there.st_size))
            if state not in settled:
                os.fsync(file.fileno())
    if not states <= settled:
        files.force(directory)
    return frozenset(states)


def waiting(directory: str) -> Iterator[bytes]:
    """The lines that wait, oldest first; only to look at: a drain may be at work. Raises OSError."""
    last: contextlib.AbstractContextManager[Iterable[bytes]] = contextlib.nullcontext(())
    with contextlib.suppress(FileNotFoundError):
        last = files.opened(os.path.join(directory, journal.NAME))  # first: it may be taken just now
    with last as file:
        for path in [*journal.event_files(directory), *journal.taken(directory)]:
            with contextlib.suppress(FileNotFoundError), files.opened(path) as earlier:  # a drain was quicker
                yield from journal.lines(earlier)
        yield from journal.lines(file)


def count(directory: str) -> int:
    """How many events wait. Raises OSError."""
    return sum(1 for _ in waiting(directory))


def oldest(directory: str) -> float | None:
    """When the event that waits longest came to pass, in seconds of time.time(). Raises OSError."""
    for line in waiting(directory):
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):  # the drain tells of it
            return recording.moment(recording.from_json(line.decode())).timestamp()
    return None


def retry_rejected(directory: str) -> int:
    """Put what was set aside back into the queue; returns how many. Raises OSError.

    What is no object of JSON stays: the drain would take it for a line that was never finished.
    """
    tried = 0
    for path in rejected.paths(directory):
        line = journal.line_in(path)
        if journal.is_whole(line):
            append(directory, line)
            rejected.forget(path)
            tried += 1
    return tried


def lock_file(directory: str) -> str:
    """There since the first drain."""
    return os.path.join(directory, _LOCK)


def lock(directory: str, wait: bool = False) -> contextlib.AbstractContextManager[bool]:
    """Whether this process is now the only drain; see files.lock()."""
    files.make_folder(directory)
    return files.lock(lock_file(directory), wait)


def take_lock(directory: str) -> int | None:
    """The descriptor of the same lock; see files.take_lock()."""
    files.make_folder(directory)
    return files.take_lock(lock_file(directory))
