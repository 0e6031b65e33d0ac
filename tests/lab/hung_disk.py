"""A disk that can be made to hang, as with an NFS server that is away: FUSE's bindfs, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import debian, processes
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until


class HungDisk:
    """`path` is its folder, root's, which all can enter; all there waits between hang() and answer()."""

    def __init__(self, path: Path, server: subprocess.Popen[bytes]) -> None:
        self.path = path
        self._server = server

    def hang(self) -> None:
        """From when all threads of its server stand still: whoever waits for a question that one of them has
        read just before that cannot be killed (fs/fuse/dev.c, request_wait_answer).
        """
        self._server.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._server.pid, os.WSTOPPED)

    def answer(self) -> None:
        self._server.send_signal(signal.SIGCONT)


@contextmanager
def hung_disk() -> Iterator[HungDisk]:
    """Works as any other disk until it is made to hang. Raises LabUnavailable."""
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise LabUnavailable("a disk that hangs is a FUSE mount: run this test as root, where /dev/fuse is")
    root = debian.unpack("bindfs", debian.own_suite())
    # Its options: nothing is known for longer than it was asked for, so that every question hangs.
    options = "-oallow_other,attr_timeout=0,entry_timeout=0,negative_timeout=0"
    with tempfile.TemporaryDirectory(prefix="lab-disk-") as parent:
        below, path = Path(parent, "below"), Path(parent, "disk")
        for folder in (below, path):
            folder.mkdir()
        Path(parent).chmod(0o755)
        below.chmod(0o755)
        program = [*debian.loader_command(root), str(root / "usr/bin/bindfs")]
        server = subprocess.Popen(
            [*processes.dies_with_us(), *program, "-f", options, str(below), str(path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            wait_until(lambda: server.poll() is not None or os.path.ismount(path), 10, "the mount")
            if server.poll() is not None:
                said = server.communicate()[1].decode(errors="replace")
                raise LabUnavailable(f"this machine lets root mount no FUSE: {said.strip()}")
            yield HungDisk(path, server)
        finally:
            server.send_signal(signal.SIGCONT)
            subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)
            server.terminate()
            server.communicate()
