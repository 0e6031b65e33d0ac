"""The program behind lab.loaded_command: command_server.py PROGRAM SOCKET loads `noojee-agi` and forks it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

# What commands load when they need it.
import alembic.command  # noqa: F401
import sqlalchemy.dialects.postgresql.psycopg2
import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401

from noojee_agi import cli

REQUEST_BYTES = 1 << 20


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
    data, streams, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 3)
    request = json.loads(data)
    pid = os.fork()
    if pid == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(request["folder"])
        os.umask(request["umask"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv[:] = [program, *request["words"]]
        os._exit(_exit_code())
    _, status = os.waitpid(pid, 0)
    connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _exit_code() -> int:
    """As Python ends a program."""
    try:
        cli.main()
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
