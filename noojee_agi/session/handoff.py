"""Hands an AGI session to `noojee-agi serve`, or has this process serve it: the plain way.

It imports next to nothing, since that is what the caller waits for. The server's other half is `worker`.

The message: its length in four bytes, then program, configuration file, number of words, the words and the
AGI environment, a NUL between each. A server with another configuration hangs up. Else it says TAKEN once a
thread of it is free, and begins when we say GO; so what we have given up on is never begun. Standard input
and output go with GO (unix(7), SCM_RIGHTS): in a silent server's queue they would stay open when we end, and
Asterisk waits for their end.
"""

import _socket
import os
import sys

from noojee_agi import paths

PATIENCE_SECONDS = 0.04  # for a server that is there; then the call goes the plain way
_SESSION_SECONDS = 60.0  # longer than any session of the server's takes
FINISH = "finish_record"
STATUS = b"status"  # the message that asks the server how it is
LENGTH_BYTES = 4
_INT = 4  # bytes of a process, user and group in unix(7)'s SO_PEERCRED
TAKEN, GO, DONE = b"T", b"G", b"D"

_READ_BYTES = 65536
_STREAMS = b"".join(descriptor.to_bytes(4, sys.byteorder) for descriptor in (0, 1))


def run_agi(program: str) -> None:
    """Serve this process's one AGI session, then end the process, since Asterisk waits for that."""
    configuration = paths.configuration(os.environ)
    server = _connect(paths.socket(configuration))
    environment, is_continued = b"", False
    if server:
        environment = _read_environment()
        taken, done = _hand_over(server, program, configuration, environment, _STREAMS)
        if done:
            os._exit(0)
        is_continued = taken
        server.close()
    from noojee_agi.session import plain

    plain.run_agi(program, environment, is_continued)


def run_finish() -> None:
    """MixMonitor's end command: finish_record.py <configuration or -> <leg id> <file>."""
    configuration = "" if sys.argv[1] == "-" else sys.argv[1]
    server = _connect(paths.socket(configuration))
    if server and _hand_over(server, FINISH, configuration, b"", b"")[1]:
        os._exit(0)
    from noojee_agi.session import plain

    plain.run_finish()


def pack(program: str, configuration: str, words: list[bytes], environment: bytes) -> bytes:
    head = [program.encode(), os.fsencode(configuration), b"%d" % len(words)]
    return framed(b"\0".join([*head, *words, environment]))


def unpack(body: bytes) -> "tuple[str, str, list[str], bytes]":
    """Program, configuration, words and environment of such a message. Raises ValueError when it is none."""
    program, configuration, count, rest = body.split(b"\0", 3)
    if not 0 < len(count) <= 3:
        raise ValueError("no number of words")
    *words, environment = rest.split(b"\0", int(count))
    if len(words) != int(count):
        raise ValueError("fewer words than announced")
    decoded = [word.decode("utf-8", "replace") for word in words]
    return program.decode(), os.fsdecode(configuration), decoded, environment


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def is_ours(connection: "_socket.socket") -> bool:
    """Whether who is at the other end is our own user, or root. Raises OSError."""
    told = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 3 * _INT)
    return int.from_bytes(told[_INT : 2 * _INT], sys.byteorder) in (0, os.geteuid())


def _connect(path: str) -> "_socket.socket | None":
    """A connection to the server; None when there is none, it is full, or it belongs to somebody else."""
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    server.settimeout(PATIENCE_SECONDS)
    try:
        server.connect(path)
        if is_ours(server):
            return server
    except OSError:
        pass
    server.close()
    return None


def _hand_over(
    server: "_socket.socket", program: str, configuration: str, environment: bytes, streams: bytes
) -> "tuple[bool, bool]":
    """Whether the server has begun, and whether it has come to the end."""
    words = [os.fsencode(word) for word in sys.argv[1:]]
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)] if streams else []
    taken = False
    try:
        server.sendall(pack(program, configuration, words, environment))
        if server.recv(1) != TAKEN:
            return False, False
        taken = True
        server.sendmsg([GO], rights)
        server.settimeout(_SESSION_SECONDS)
        return True, server.recv(1) == DONE
    except OSError:
        return taken, False


def _read_environment() -> bytes:
    """All that Asterisk says before it waits for us: up to the blank line, or the end."""
    environment = b""
    while not environment.endswith(b"\n\n"):
        read = os.read(0, _READ_BYTES)
        if not read:
            break
        environment += read
    return environment
