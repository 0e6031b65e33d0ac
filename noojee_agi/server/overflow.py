"""FastAGI calls whose key is right, and for which their process has no thread: one that has takes them."""

from __future__ import annotations

import json
import socket

from noojee_agi.server.acceptor import Guest

_MAX_BYTES = 131072


class Overflow:
    """A queue that the workers share, made before they are forked; it outlives each of them."""

    def __init__(self) -> None:
        self.waiting, self._entrance = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.waiting, self._entrance):
            end.setblocking(False)

    def give(self, guest: Guest) -> bool:
        """Whether it is in the queue now, and ours no more; not when that is full."""
        told = [guest.address, guest.deadline, guest.received.decode("latin-1"), guest.told]
        message = json.dumps(told).encode()
        if len(message) > _MAX_BYTES:
            return False
        try:
            socket.send_fds(self._entrance, [message], [guest.socket.fileno()])
        except OSError:
            return False
        guest.close()
        return True

    def take(self) -> Guest | None:
        """Whoever has waited longest; None when another process was quicker. Raises OSError."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self.waiting, _MAX_BYTES, 1)
        except BlockingIOError:
            return None
        if not descriptors:
            raise OSError("a call was lost: no descriptor is left for it")
        address, deadline, received, told = json.loads(message)
        connection = socket.socket(fileno=descriptors[0])
        return Guest(connection, address, _is_read, deadline, bytearray(received, "latin-1"), told=told)


def _is_read(guest: Guest) -> bool:
    return True
