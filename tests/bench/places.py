"""Where the files of a measurement lie."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 512 * 1024 * 1024
DISK = Path("/var/tmp")


@dataclass(frozen=True)
class Places:
    """memory: for audio, spools, logs. disk: for databases."""

    memory: Path
    disk: Path


@contextlib.contextmanager
def in_memory() -> Iterator[Places]:
    """All in memory, all servers' databases too: no disk tells them apart, and a commit costs nothing."""
    with _folder(_memory()) as folder:
        yield Places(folder, folder)


@contextlib.contextmanager
def make(disk: Path | None = None) -> Iterator[Places]:
    """Audio and spools lie in memory, if there is enough; all databases, the others' and ours, on a disk.

    A commit that is forced to the disk costs something on a disk only, and there each server has to pay it
    as a real one does. Audio and spool lie in memory since a new file would cost whatever was deleted before:
    for minutes, an ext4 without a journal passes over each inode that was freed (fs/ext4/ialloc.c
    recently_deleted), up to a millisecond for one file.
    """
    disk = disk or (DISK if DISK.is_dir() else None)
    with _folder(_memory()) as memory, _folder(disk) as folder:
        yield Places(memory, folder)


def _memory() -> Path | None:
    has_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED
    return MEMORY if has_memory else None


@contextlib.contextmanager
def _folder(below: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=below, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
