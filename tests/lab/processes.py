"""Finds and ends the processes that a server of the lab has left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.waiting import wait_until

ALONE_SECONDS = 2.0
KILLED_SECONDS = 5.0


def dies_with_us() -> list[str]:
    """Return the words before a command that let it die when our own process is killed.

    The kernel means the thread that starts it, so there are none outside the main thread.
    """
    if threading.current_thread() is threading.main_thread() and shutil.which("setpriv"):
        return ["setpriv", "--pdeathsig", "KILL"]
    return []


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """With SIGTERM, or, when that has done nothing in so many seconds, with SIGKILL."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_session(session: int) -> None:
    """Give what is left of a session a moment to end alone, then end it with SIGKILL."""
    try:
        wait_until(lambda: not members(session), ALONE_SECONDS)
    except AssertionError:
        send(signal.SIGKILL, members(session))
        wait_until(lambda: not members(session), KILLED_SECONDS, f"the end of session {session}")


def members(session: int) -> list[int]:
    """Return the living processes of a session."""
    return _living(lambda _parent, its_session: its_session == session)


def children(process: int) -> list[int]:
    """Return the living processes that a process has started itself."""
    return _living(lambda parent, _session: parent == process)


def send(what: signal.Signals, targets: Iterable[int]) -> None:
    """Send a signal to processes that may have ended already."""
    for process in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, what)


def _living(fits: Callable[[int, int], bool]) -> list[int]:
    """Return the processes whose parent and session fit; not those that only wait for their parent to ask."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path("/proc", process, "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        words = stat.rpartition(")")[2].split()
        if words[0] not in "ZX" and fits(int(words[1]), int(words[3])):
            found.append(int(process))
    return found
