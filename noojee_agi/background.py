"""Work that no caller waits for: a forked child in a session of its own, and the drain that it becomes."""

import os
import sys
import time
from collections.abc import Callable

from noojee_agi import snapshot
from noojee_agi.config import Config

READ_WITHIN_SECONDS = 1.0
_NICENESS = 10  # audio has the processor first


def fork(work: Callable[[], None]) -> int:
    """Run work in a child that holds none of our pipes, and return its process id. Raises OSError.

    The child ends with work: it never returns into the caller's code.
    """
    child = os.fork()
    if child:
        return child
    try:
        _detach()
        work()
    finally:
        os._exit(0)


def become_drain(config: Config) -> None:
    """Replace this process by a drain, which also renews the snapshot. Raises OSError."""
    os.execv(sys.executable, [sys.executable, "-I", "-m", "noojee_agi.drain", config.path or "-"])


def read_database(config: Config) -> None:
    """Have the snapshot renewed, and wait for it for one second at most; the drain goes on beyond that."""
    before = snapshot.load(config.snapshot_file)
    try:
        child = fork(lambda: become_drain(config))
    except OSError:
        return  # no process to be had: what is known must do
    deadline = time.monotonic() + READ_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if snapshot.load(config.snapshot_file) != before or os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.01)


def _detach() -> None:
    """Let go of Asterisk: it waits for our pipes to close (res_agi.c run_agi), and its signals end here."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.setsid()
    os.nice(_NICENESS)
