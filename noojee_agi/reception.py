"""Takes the server's connections and reads how they begin, so that a silent one keeps no session waiting."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from noojee_agi.handoff import LENGTH_BYTES

logger = logging.getLogger(__name__)

BEGIN_SECONDS = 5.0  # Asterisk says all of it at once
_MAX_BEGIN = 65536
_MAX_GUESTS = 2000  # the others wait in the kernel's queue
_PAUSE_SECONDS = 0.2
_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: process, user, group


@dataclass(eq=False)
class Guest:
    """A connection that has begun; whoever takes it closes it."""

    socket: socket.socket
    deadline: float
    received: bytearray = field(default_factory=bytearray)

    def close(self) -> None:
        self.socket.close()


class Reception:
    """One process's. Those who take a guest, whose beginning is whole, must not wait for anything.

    has_room: whether another guest may be asked in.
    """

    def __init__(
        self,
        network: socket.socket | None,
        local: socket.socket,
        take_network: Callable[[Guest], None],
        take_local: Callable[[Guest, bytes], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._readers = {local: self._read_message}
        if network:
            self._readers[network] = self._read_environment
        self._take_network = take_network
        self._take_local = take_local
        self._has_room = has_room
        self._selector = selectors.DefaultSelector()
        self._guests: set[Guest] = set()
        self._is_listening = False

    def run(self, lifeline: int) -> None:
        """Until the other end of lifeline is closed, and everybody who came before that was taken."""
        self._selector.register(lifeline, selectors.EVENT_READ)
        is_open = True
        while is_open or self._guests:
            self._listen(is_open and len(self._guests) < _MAX_GUESTS and self._has_room())
            for key, _ in self._selector.select(_PAUSE_SECONDS if self._must_look_again() else None):
                if key.fd == lifeline:
                    is_open = False
                    self._close(lifeline)
                elif is_open or key.fileobj not in self._readers:
                    key.data()
            self._send_away_the_slow()

    def _listen(self, wanted: bool) -> None:
        if wanted and not self._is_listening:
            for listener in self._readers:
                self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))
        elif not wanted and self._is_listening:
            for listener in self._readers:
                self._selector.unregister(listener)
        self._is_listening = wanted

    def _close(self, lifeline: int) -> None:
        """Take in those who wait there, and nobody else; another process may listen on."""
        self._selector.unregister(lifeline)
        for listener in self._readers:
            self._accept(listener)
        self._listen(False)
        for listener in self._readers:
            listener.close()

    def _must_look_again(self) -> bool:
        return bool(self._guests) or not self._is_listening

    def _accept(self, listener: socket.socket) -> None:
        """Everybody who waits there; another process may have been quicker."""
        with contextlib.suppress(BlockingIOError):
            while len(self._guests) < _MAX_GUESTS and self._has_room():
                try:
                    connection = listener.accept()[0]
                except ConnectionError:
                    continue  # gone before we looked
                except BlockingIOError:
                    raise
                except OSError as exc:  # no descriptor left, say: it waits in the kernel's queue
                    logger.error("a connection cannot be taken now: %s", exc)
                    time.sleep(_PAUSE_SECONDS)
                    return
                self._greet(connection, self._readers[listener])

    def _greet(self, connection: socket.socket, read: Callable[[Guest], bool]) -> None:
        guest = Guest(connection, time.monotonic() + BEGIN_SECONDS)
        if read == self._read_message and not _is_ours(connection):
            guest.close()
            return
        if read(guest):
            return  # most say all of it at once
        self._guests.add(guest)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._read_on, guest, read))

    def _read_on(self, guest: Guest, read: Callable[[Guest], bool]) -> None:
        if read(guest):
            self._guests.discard(guest)
            self._selector.unregister(guest.socket)

    def _read_environment(self, guest: Guest) -> bool:
        """Of a FastAGI session: up to the blank line. Whether there is nothing more to be read."""
        is_there = self._receive(guest)
        if is_there and (b"\n\n" in guest.received or b"\n\r\n" in guest.received):
            self._take_network(guest)
            return True
        return is_there is None

    def _read_message(self, guest: Guest) -> bool:
        """Of our own programs: see handoff. Whether there is nothing more to be read."""
        is_there = self._receive(guest)
        if is_there and len(guest.received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(guest.received[:LENGTH_BYTES], "big")
            if len(guest.received) >= end:
                self._take_local(guest, bytes(guest.received[LENGTH_BYTES:end]))
                return True
        return is_there is None

    def _receive(self, guest: Guest) -> bool | None:
        """Whether there is something new; None when the guest has ended, or said too much: it is gone."""
        try:
            data = guest.socket.recv(_MAX_BEGIN, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        guest.received += data
        if not data or len(guest.received) > _MAX_BEGIN:
            guest.close()
            return None
        return True

    def _send_away_the_slow(self) -> None:
        now = time.monotonic()
        for guest in [guest for guest in self._guests if guest.deadline < now]:
            self._guests.discard(guest)
            self._selector.unregister(guest.socket)
            guest.close()


def _is_ours(connection: socket.socket) -> bool:
    """Whether it comes from our own user, or from root."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(credentials)[1] in (0, os.geteuid())
