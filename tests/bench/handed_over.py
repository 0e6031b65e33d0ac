"""A hand-over AGI session without the start of a Python: what the server itself holds it for."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from bench.call import Call
from noojee_agi.session import handoff

_LIMIT_SECONDS = 20.0
_READ_BYTES = 65536


def hold(server: Path, configuration: Path, call: Call) -> float:
    """Milliseconds, from the connection until the server says that it is done."""
    words = [b"410", b"INV-22", b"Fred"]
    message = handoff.pack("start_record", str(configuration), words, call.environment)
    ours, theirs = socket.socketpair()  # the program's standard input and output
    begun = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as program, ours:
        program.settimeout(_LIMIT_SECONDS)
        ours.settimeout(_LIMIT_SECONDS)
        program.connect(str(server))
        program.sendall(message)
        assert program.recv(1) == handoff.TAKEN
        with theirs:
            socket.send_fds(program, [handoff.GO], [theirs.fileno(), theirs.fileno()])
        received = b""
        while read := ours.recv(_READ_BYTES):
            *commands, received = (received + read).split(b"\n")
            for command in commands:
                ours.sendall(call.reply(command))
        assert program.recv(1) == handoff.DONE
    assert not call.failure(), call.failure()
    return (time.perf_counter() - begun) * 1000


def numbered(number: int, key: str) -> Call:
    """One of this process's own."""
    return Call(number, int(time.time()) + os.getpid(), key.encode())
