"""Tells which files have just been closed by whoever wrote them: inotify(7), by libc.

It knows of this machine's programs only, and of nothing that was closed before the folder was watched.
"""

import contextlib
import ctypes
import os
import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

# inotify(7), sys/inotify.h
_CLOSE_WRITE, _Q_OVERFLOW, _IGNORED, _ONLYDIR = 0x8, 0x4000, 0x8000, 0x1000000
_EVENT = struct.Struct("iIII")  # wd, mask, cookie, len
_READ_BYTES = 65536

_libc = ctypes.CDLL(None, use_errno=True)

_Identity = tuple[int, int]


class Closed(NamedTuple):
    """The files that have been closed. When is_all is false there may be others: look at every file."""

    files: frozenset[str]
    is_all: bool


class _Watch(NamedTuple):
    """Of what stood there then: device and inode. Two paths of one folder have the same number."""

    number: int
    identity: _Identity


class FileWatch:
    """Watches folders. A folder that is not there yet, or is gone, is watched when refresh() finds it."""

    def __init__(self) -> None:
        """Raises OSError when the kernel has no room (fs.inotify.max_user_instances)."""
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._watches: dict[str, _Watch | None] = {}

    def fileno(self) -> int:
        """Readable when there is something for read()."""
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)

    def add(self, folder: str) -> None:
        """From now on; one that is watched already stays so.

        Raises OSError when the kernel has no room (fs.inotify.max_user_watches), or lets us not look there.
        """
        if folder not in self._watches:
            self._watches[folder] = self._watched(folder)

    def keep(self, folders: Collection[str]) -> None:
        """These of the watched ones, and none else."""
        for folder in self._watches.keys() - set(folders):
            self._drop(folder)

    def refresh(self) -> list[str]:
        """Folders of which something may have been missed: what stands there now is watched anew, or is gone.

        Raises OSError as add() does, when it has looked at all of them: then look at every file. The next
        call tries again.
        """
        changed, failure = [], None
        for folder, before in [*self._watches.items()]:
            try:
                if _identity(folder) != (before and before.identity):
                    self._drop(folder)
                    self._watches[folder] = None
                    self._watches[folder] = self._watched(folder)
                    changed.append(folder)
            except OSError as exc:
                failure = exc
        if failure:
            raise failure
        return changed

    def read(self) -> Closed:
        """What has been closed since the last time; it waits for nothing."""
        folders: dict[int, list[str]] = {}
        for folder, watch in self._watches.items():
            if watch:
                folders.setdefault(watch.number, []).append(folder)
        files, is_all = set(), True
        for number, mask, name in self._events():
            if mask & _CLOSE_WRITE:
                files |= {os.path.join(folder, name) for folder in folders.get(number, ())}
            elif mask & _Q_OVERFLOW or number in folders:  # else it is one that we have dropped
                is_all = False
            if mask & _IGNORED:
                for folder in folders.pop(number, ()):
                    self._watches[folder] = None
        return Closed(frozenset(files), is_all)

    def _events(self) -> Iterator[tuple[int, int, str]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                yield from _parsed(os.read(self._descriptor, _READ_BYTES))

    def _watched(self, folder: str) -> _Watch | None:
        """None when it is not there. Looked at first: refresh() finds what comes in its place meanwhile."""
        identity = _identity(folder)
        if identity is None:
            return None
        mask = _CLOSE_WRITE | _ONLYDIR
        try:
            number = _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _Watch(number, identity)

    def _drop(self, folder: str) -> None:
        watch = self._watches.pop(folder)
        if watch and all(watch.number != (other and other.number) for other in self._watches.values()):
            # Refused only when it has gone by itself (inotify_rm_watch(2)).
            _libc.inotify_rm_watch(self._descriptor, watch.number)


def _identity(folder: str) -> _Identity | None:
    try:
        about = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return about.st_dev, about.st_ino


def _parsed(events: bytes) -> Iterator[tuple[int, int, str]]:
    """Number of the watch, what has happened, and to which name (inotify(7), Reading events)."""
    at = 0
    while at < len(events):
        number, mask, _, length = _EVENT.unpack_from(events, at)
        at += _EVENT.size
        yield number, mask, os.fsdecode(events[at : at + length].rstrip(b"\0"))
        at += length


def _checked(result: int) -> int:
    """Raises OSError for what libc has told by -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
