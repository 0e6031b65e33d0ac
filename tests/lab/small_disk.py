"""A disk that is soon full, for tests of what happens then."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.unavailable import LabUnavailable


@contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """Give a folder of root's, which all can enter, that holds about `size` bytes (in memory, whole pages).

    Raises LabUnavailable for everybody but root: only root may mount.
    """
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise LabUnavailable("a small disk must be mounted, and only root may do that: run this test as root")
    folder = Path(tempfile.mkdtemp(prefix="lab-disk-"))
    try:
        _mount(folder, size)
        try:
            yield folder
        finally:
            # Lazy: a server that the test did not stop must not keep us from cleaning up.
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()


def fill(ballast: Path, but: int = 0) -> None:
    """Write this file until its disk is full, then leave `but` bytes of that free again."""
    with ballast.open("wb", buffering=0) as file:
        for piece in (1024 * 1024, 4096):
            with suppress(OSError):
                while True:
                    file.write(b"x" * piece)
        file.truncate(max(file.tell() - but, 0))


def _mount(folder: Path, size: int) -> None:
    options = f"size={max(size, 1)},mode=0755"  # size=0 would be no limit
    command = ["mount", "-t", "tmpfs", "-o", options, "lab-disk", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabUnavailable(f"this machine lets root mount nothing: {done.stderr.strip()}")
