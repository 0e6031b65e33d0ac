"""The program behind lab.loaded_command: command_server.py PROGRAM SOCKET loads `noojee-agi` and forks it.

It forks the drains of lab.loaded_drain, too, and servers that run on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

# What commands load when they need it.
import alembic.command  # noqa: F401
import sqlalchemy.dialects.postgresql.psycopg2
import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401

from noojee_agi import cli
from noojee_agi.server import server  # noqa: F401
from noojee_agi.sync import __main__ as drain
from noojee_agi.sync import renew_snapshot

REQUEST_BYTES = 1 << 20
MAX_DESCRIPTORS = 8
HIGH = 100  # above those of whoever asks
DRAINS: dict[str, Callable[..., None]] = {
    "noojee_agi.sync": drain.main,
    "noojee_agi.sync.renew_snapshot": renew_snapshot.main,
}


def serve(program: str, path: str) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path + ".new")
    listener.listen(32)
    os.rename(path + ".new", path)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(connection, program)
            os._exit(0)
        connection.close()


def _answer(connection: socket.socket, program: str) -> None:
    """Whoever asks is told its process id and waits for the end; when he has ended himself, it is killed."""
    data, received, _, _ = socket.recv_fds(connection, REQUEST_BYTES, MAX_DESCRIPTORS)
    request = json.loads(data)
    pid = os.fork()
    if pid == 0:
        connection.close()
        if request.get("is_session"):
            os.setsid()
        _become(request, received)
        os._exit(_exit_code(lambda: _run(program, request)))
    for descriptor in received:
        os.close(descriptor)
    with contextlib.suppress(OSError):
        connection.send(str(pid).encode())
    ended = os.pidfd_open(pid)
    if ended not in select.select([ended, connection.fileno()], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request: Any, received: list[int]) -> None:
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH) for descriptor in received]
    for descriptor in received:
        os.close(descriptor)
    for descriptor, wanted in zip(high, request["descriptors"], strict=True):
        os.dup2(descriptor, wanted)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.nice(request.get("niceness", 0))
    os.environ.clear()
    os.environ.update(request["environment"])


def _run(program: str, request: Any) -> None:
    sys.argv[:] = [program, *request["words"]]
    module = request.get("module")
    if module:
        DRAINS[module](*request["words"])
    else:
        cli.main()


def _exit_code(run: Callable[[], None]) -> int:
    """As Python ends a program."""
    try:
        run()
        code: object = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


if __name__ == "__main__":
    serve(*sys.argv[1:])
