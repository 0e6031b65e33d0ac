"""The program behind lab.loaded_command: command_server.py PROGRAM SOCKET loads `noojee-agi` and forks it.

It forks the drains of lab.loaded_drain, too, and servers that run on.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import selectors
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
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PRCTL = ctypes.CDLL(None).prctl
HIGH = 100  # above those of whoever asks
DRAINS: dict[str, Callable[..., None]] = {
    "noojee_agi.sync": drain.main,
    "noojee_agi.sync.renew_snapshot": renew_snapshot.main,
}


class CommandServer:
    """Whoever asks is told his command's process id and its exit code; when he ends before, it is killed."""

    def __init__(self, program: str, path: str) -> None:
        self._program = program
        self._selector = selectors.DefaultSelector()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(path + ".new")
        listener.listen(32)
        os.rename(path + ".new", path)
        self._when_readable(listener, lambda: self._accept(listener))

    def serve(self) -> None:
        gc.collect()
        gc.freeze()  # or the collections of each command would have it copy all our memory
        while True:
            (key, _), *_ = self._selector.select()  # one at a time: it may close what else is ready
            key.data()

    def _when_readable(self, waited_for: socket.socket | int, react: Callable[[], None]) -> None:
        self._selector.register(waited_for, selectors.EVENT_READ, react)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._when_readable(connection, lambda: self._begin(connection))

    def _begin(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        data, received, _, _ = socket.recv_fds(connection, REQUEST_BYTES, MAX_DESCRIPTORS)
        if not data:  # he has ended before he asked
            connection.close()
            return
        request = json.loads(data)
        hears, tells = os.pipe()
        pid = os.fork()
        if pid == 0:
            _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)
            self._close_all(connection)
            os.close(tells)
            _wait_for_end(hears)  # until we have closed our copies of its descriptors
            if "module" in request:
                _wait_for_end(received.pop())  # until who asks has closed his copies, the lock among them
            _become(request, received)
            os._exit(_exit_code(lambda: _run(self._program, request)))
        for descriptor in (*received, hears, tells):
            os.close(descriptor)
        _tell(connection, pid)
        ended = os.pidfd_open(pid)
        self._when_readable(connection, lambda: self._kill(connection, pid))
        self._when_readable(ended, lambda: self._end(connection, pid, ended))

    def _close_all(self, connection: socket.socket) -> None:
        """In the new process, which shall keep nobody's connection open."""
        connection.close()
        for key in [*self._selector.get_map().values()]:
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            else:
                os.close(key.fd)
        self._selector.close()

    def _kill(self, connection: socket.socket, pid: int) -> None:
        self._selector.unregister(connection)
        connection.close()
        os.kill(pid, signal.SIGKILL)  # which waits for us as a zombie at least

    def _end(self, connection: socket.socket, pid: int, ended: int) -> None:
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(ended)
        os.close(ended)
        if connection.fileno() >= 0:
            _tell(connection, os.waitstatus_to_exitcode(status))
            self._selector.unregister(connection)
            connection.close()


def _tell(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):
        connection.send(str(number).encode())


def _wait_for_end(pipe: int) -> None:
    os.read(pipe, 1)
    os.close(pipe)


def _become(request: Any, received: list[int]) -> None:
    if request.get("is_session"):
        os.setsid()
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
    CommandServer(*sys.argv[1:]).serve()
