"""Finds and ends the processes that a server of the lab has left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator

from lab.waiting import wait_until

ALONE_SECONDS = 2.0
KILLED_SECONDS = 30.0
_BYTES = 1 << 16  # of a command line
_THREADS = 17  # where their number is, after the process's name


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
    return [process for process, (_, its_session) in _living() if its_session == session]


def children(process: int) -> list[int]:
    """Return the living processes that a process has started itself."""
    return [child for child, (parent, _) in _living() if parent == process]


def with_descendants(targets: Iterable[int]) -> list[int]:
    """Return these processes and all living ones that come from them."""
    living, found = [*_living()], [*targets]
    for each in found:
        found += [child for child, (parent, _) in living if parent == each and child not in found]
    return found


def send(what: signal.Signals, targets: Iterable[int]) -> None:
    """Send a signal to processes that may have ended already."""
    for process in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, what)


def told(name: str) -> Iterator[tuple[int, bytes]]:
    """What /proc has in the file of that name, such as `cmdline`, of each process that is there."""
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = _read(f"/proc/{process}/{name}")
        except OSError:
            continue  # it ended while we looked
        yield int(process), text


def _read(path: str) -> bytes:
    """As little work as can be: who waits for the end of a process asks again and again."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, _BYTES)
    finally:
        os.close(file)


def _living() -> Iterator[tuple[int, tuple[int, int]]]:
    """Each process with its parent and session; not those that only wait for their parent to ask.

    One whose first thread has ended has its files open for as long as it has others (proc(5), num_threads).
    """
    for process, stat in told("stat"):
        fields = stat.rpartition(b")")[2].split(None, _THREADS + 1)
        if fields[0] not in b"ZX" or int(fields[_THREADS]) > 1:
            yield process, (int(fields[1]), int(fields[3]))
