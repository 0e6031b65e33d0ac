"""Work that no caller waits for: a forked child in a session of its own, and the drain that it becomes."""

import contextlib
import os
import sys
import time
from collections.abc import Callable

from noojee_agi import snapshot
from noojee_agi.config import Config

READ_WITHIN_SECONDS = 1.0
UMASK = 0o027  # whatever Asterisk's is: for files, folders and the database that we make
_NO_HOME = "/nonexistent"
_NICENESS = 10  # audio has the processor first


def fork(work: Callable[[], None], log_file: str) -> int:
    """Run work in a child that holds none of our pipes, and return its process id. Raises OSError.

    The child ends with work: it never returns into the caller's code. What nobody foresaw, in it or in the
    program it becomes, is a traceback in log_file.
    """
    child = os.fork()
    if child:
        return child
    try:
        _detach(log_file)
        work()
    finally:
        failure = sys.exc_info()
        if failure[0]:
            sys.excepthook(*failure)  # into the log file
        os._exit(1 if failure[0] else 0)


def become(module: str, config: Config, *words: str) -> None:
    """Replace this process by `python -m noojee_agi.<module>`. Raises OSError."""
    command = [sys.executable, "-I", "-m", f"noojee_agi.{module}", config.path or "-", *words]
    os.execve(sys.executable, command, {**os.environ, "HOME": home()})


def home() -> str:
    """Where this process's own user has its certificates for libpq: HOME may be another's, such as root's.

    A folder that it cannot look into, as under systemd's ProtectHome, is none: libpq would fail there
    (fe-secure-openssl.c), although it needs no certificate.
    """
    import pwd  # no caller waits for it, nor for a directory service that is asked

    try:
        own = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # it has no name here
        own = os.environ.get("HOME", _NO_HOME)
    try:
        os.stat(os.path.join(own, ".postgresql"))
    except PermissionError:
        return _NO_HOME
    except OSError:  # there are no certificates
        pass
    return own


def read_database(config: Config) -> None:
    """Have the snapshot renewed, and wait for it for one second at most; the reader goes on beyond that."""
    before = snapshot.load(config.snapshot_file)
    try:
        child = fork(lambda: become("renew_snapshot", config), config.log_file)
    except OSError:
        return  # no process to be had: what is known must do
    deadline = time.monotonic() + READ_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if snapshot.load(config.snapshot_file) != before or os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.01)


def _detach(log_file: str) -> None:
    """Let go of Asterisk: it waits for our pipes to close (res_agi.c run_agi), and its signals end here."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    with contextlib.suppress(OSError):
        os.dup2(os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), 2)
    os.setsid()
    os.nice(_NICENESS)
