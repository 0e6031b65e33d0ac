"""The server's half of a hand-over, the other is `session.handoff`: straight-line code of a session."""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from noojee_agi.asterisk.stream import Wait
from noojee_agi.session.handoff import GO, LENGTH_BYTES, TAKEN

_HANDSHAKE_SECONDS = 0.25  # a program answers at once; frozen, it does the work when it wakes up
_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: process, user, group


def is_ours(connection: socket.socket) -> bool:
    """Whether it comes from our own user, or from root."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(credentials)[1] in (0, os.geteuid())


def message(connection: socket.socket, wait: Wait, seconds: float, most_bytes: int) -> bytes | None:
    """What the program says, whole; None when it has gone, or says too much, or takes too long."""
    received, end = bytearray(), LENGTH_BYTES
    deadline = time.monotonic() + seconds
    while len(received) < end:
        if not wait(connection.fileno(), select.POLLIN, deadline - time.monotonic()):
            return None
        try:
            read = connection.recv(most_bytes)
        except OSError:
            return None
        received += read
        if not read or len(received) > most_bytes:
            return None
        if len(received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(received[:LENGTH_BYTES], "big")
    return bytes(received[LENGTH_BYTES:end])


def take(connection: socket.socket, wait: Wait, count: int) -> list[int] | None:
    """Tell the program that its session is taken; so many streams of it, once it says GO.

    None when it does not: its patience is over, say, and it does the work itself.
    """
    try:
        connection.send(TAKEN)
        if not wait(connection.fileno(), select.POLLIN, _HANDSHAKE_SECONDS):
            return None
        said, streams, _, _ = socket.recv_fds(connection, 1, count)
    except OSError:
        return None
    if said == GO and len(streams) == count:
        return list(streams)
    close(list(streams))
    return None


def close(streams: list[int]) -> None:
    for descriptor in streams:
        os.close(descriptor)
