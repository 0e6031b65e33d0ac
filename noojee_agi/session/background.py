"""Work that no caller waits for: a forked child in a session of its own, and the drain that it becomes."""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable

from noojee_agi.config import Config
from noojee_agi.recordings import recording, snapshot

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
    """Have the snapshot renewed, and wait for it for one second at most; the reader goes on beyond that.

    There is one reader at a time: beside a database that does not answer, each wrong key would leave one.
    """
    begun, deadline = recording.now(), time.monotonic() + READ_WITHIN_SECONDS
    reader = 0
    while time.monotonic() < deadline:
        try:
            reader = reader or _start_reader(config)
        except OSError:
            return  # no process to be had: what is known must do
        known = snapshot.load(config.snapshot_file)
        if (known and known.read_at >= begun) or (reader and os.waitpid(reader, os.WNOHANG)[0]):
            return
        time.sleep(0.01)


def _start_reader(config: Config) -> int:
    """Its process id; 0 while there is another. It holds a lock, the folder's own, which needs no file."""
    folder = os.open(config.state_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without such locks
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
        return fork(lambda: _read(config, folder), config.log_file)
    finally:
        os.close(folder)


def _read(config: Config, lock: int) -> None:
    os.set_inheritable(lock, True)  # it is held until the reader ends
    become("sync.renew_snapshot", config)


def _detach(log_file: str) -> None:
    """Let go of Asterisk: it waits for our pipes to close (res_agi.c run_agi), and its signals end here."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    with contextlib.suppress(OSError):
        os.dup2(os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), 2)
    os.setsid()
    os.nice(_NICENESS)
