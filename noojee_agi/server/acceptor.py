"""Takes the server's connections and reads how they begin: who shows no key, or is silent, holds no thread.

A FastAGI peer is asked for the apiKey here. It has KEY_SECONDS for all of that, however it spreads its bytes;
when there are too many, the oldest of the address that has most are sent away, and a right call is young.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from noojee_agi.server import fastagi
from noojee_agi.server.complaints import Complaints
from noojee_agi.session.handoff import LENGTH_BYTES, TAKEN

logger = logging.getLogger(__name__)

KEY_SECONDS = 2.0  # Asterisk says its environment at once, and answers at once
_HANDSHAKE_SECONDS = 0.25  # of a program, which answers at once; frozen, it does the work when it wakes up
_QUEUE_SECONDS = 10.0  # in the kernel's queue: whoever has waited longer is not kept any longer
_MAX_BEGIN = 65536
_MAX_GUESTS = 2000
_AT_A_TIME = 16  # connections that are taken before those that are here are heard again
_PAUSE_SECONDS = 0.2
_LOOK_SECONDS = 0.05
_STREAMS = 2
_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: process, user, group
_TCP_INFO_BYTES, _LAST_DATA_RECEIVED = 64, 52  # linux/tcp.h, struct tcp_info, in milliseconds

Begin = Callable[[bytes, list[int]], None]


@dataclass(eq=False)
class Guest:
    """A connection that has begun; whoever takes it closes it.

    received: what a FastAGI session reads. told: what its channel has said of itself, the key among it.
    begin: of a program, told what follows.
    """

    socket: socket.socket
    address: str
    read: Callable[[Guest], bool]
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    environment_end: int = 0
    mark: str = ""
    told: dict[str, str] = field(default_factory=dict)
    begin: Begin | None = None

    def close(self) -> None:
        self.socket.close()


class Acceptor:
    """One process's. Those who take a guest, whose beginning is whole, must not wait for anything.

    take_network: a FastAGI session whose key is known. take_local: a program's message; what is to be called
    once it says GO, or None when the guest is gone. waiting, take_waiting: where calls of all
    processes wait for a thread, and what takes one of them, if there is one. free_threads: how many there are
    now. is_full: whether no process has one. count_lost: called for each call that no thread could take.
    """

    def __init__(
        self,
        network: socket.socket | None,
        local: socket.socket,
        take_network: Callable[[Guest], None],
        take_local: Callable[[Guest, bytes], Begin | None],
        waiting: socket.socket,
        take_waiting: Callable[[], bool],
        free_threads: Callable[[], int],
        is_full: Callable[[], bool],
        count_lost: Callable[[], None],
    ) -> None:
        self._network = network
        self._local = local
        self._take_network = take_network
        self._take_local = take_local
        self._waiting = waiting
        self._take_waiting = take_waiting
        self._free_threads = free_threads
        self._is_full = is_full
        self._count_lost = count_lost
        self._selector = selectors.DefaultSelector()
        self._guests: dict[Guest, None] = {}  # the oldest first
        self._of_address: Counter[str] = Counter()
        self._ready: deque[Guest] = deque()  # programs that wait for a thread
        self._invited = 0
        self._is_closing = False
        self._listened_to: set[socket.socket] = set()
        self._look_at = 0.0
        self._complaints = Complaints(logger)
        self._wakes = os.pipe()
        for end in self._wakes:
            os.set_blocking(end, False)

    def run(self, lifeline: int) -> None:
        """Until the other end of lifeline is closed, and everybody who came before that was taken."""
        self._selector.register(lifeline, selectors.EVENT_READ)
        self._selector.register(self._wakes[0], selectors.EVENT_READ, self._woken)
        is_open = True
        while is_open or self._guests:
            self._invite()
            if is_open:
                self._listen()
            for key, _ in self._selector.select(self._patience()):
                if key.fd == lifeline:
                    is_open = False
                    self._close(lifeline)
                elif is_open or key.fileobj not in self._listeners:
                    key.data()
            self._send_away_the_slow()
            self._complaints.tell()
        self._complaints.tell(is_last=True)

    def wake(self) -> None:
        """A thread is free: from any thread."""
        if len(self._listened_to) < len(self._listeners) or self._ready:
            with contextlib.suppress(BlockingIOError):  # it has been told often enough
                os.write(self._wakes[1], b"w")

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakes[0], _MAX_BEGIN)

    @property
    def _listeners(self) -> list[socket.socket]:
        return [self._waiting, self._local, *([self._network] if self._network else [])]

    def has_room(self) -> bool:
        """Whether a thread is free that no program was promised; from any thread."""
        return self._is_closing or self._free_threads() > self._invited

    def _wanted(self) -> set[socket.socket]:
        """While all threads here are busy, the next calls are another process's.

        When all are, programs are taken nevertheless: they wait here as long as their patience lasts, and one
        may ask how the server is.
        """
        if self._free_threads() <= 0:
            return {self._local} if self._is_full() else set()
        return {each for each in self._listeners if each is not self._waiting or self.has_room()}

    def _listen(self) -> None:
        wanted = self._wanted()
        for listener in wanted - self._listened_to:
            self._selector.register(listener, selectors.EVENT_READ, lambda each=listener: self._accept(each))
        for listener in self._listened_to - wanted:
            self._selector.unregister(listener)
        self._listened_to = wanted
        if self._wanted() - wanted:  # since just now, and wake() may have seen the former set
            self._listen()

    def _close(self, lifeline: int) -> None:
        """Take in those who wait there, and nobody else; another process may listen on."""
        self._selector.unregister(lifeline)
        self._is_closing = True
        for listener in self._listeners:
            while self._accept(listener):
                pass
            if listener in self._listened_to:
                self._selector.unregister(listener)
            if listener is not self._waiting:
                listener.close()
        self._listened_to = set(self._listeners)

    def _patience(self) -> float | None:
        if self._guests:
            return _LOOK_SECONDS
        return (
            self._complaints.patience() if len(self._listened_to) == len(self._listeners) else _PAUSE_SECONDS
        )

    def _accept(self, listener: socket.socket) -> bool:
        """Some of those who wait there; another process may have been quicker. Whether there may be more."""
        if listener is self._waiting:
            return self._take_one_that_waits()
        for _ in range(_AT_A_TIME):
            try:
                connection, address = listener.accept()
            except BlockingIOError:
                return False
            except ConnectionError:
                continue  # gone before we looked
            except OSError as exc:  # no descriptor left, say: it waits in the kernel's queue
                self._complaints.add("a connection cannot be taken now: %s", exc)
                if not self._send_away_the_oldest(_AT_A_TIME):
                    time.sleep(_PAUSE_SECONDS)
                return False
            if listener is self._local:
                self._greet(Guest(connection, "", self._read_message, time.monotonic() + KEY_SECONDS))
            elif _waited(connection) > _QUEUE_SECONDS:
                self._complaints.add(
                    "%s waited for a thread for %g s and was sent away", address[0], _QUEUE_SECONDS
                )
                self._count_lost()
                connection.close()
            else:
                read = self._read_environment
                self._greet(Guest(connection, address[0], read, time.monotonic() + KEY_SECONDS))
        return True

    def _take_one_that_waits(self) -> bool:
        try:
            return self._take_waiting()
        except OSError as exc:
            self._complaints.add("%s", exc)
            self._count_lost()
            return False

    def _greet(self, guest: Guest) -> None:
        if not guest.address and not _is_ours(guest.socket):
            guest.close()
            return
        if guest.read(guest):
            return  # a probe that is gone again, say
        if len(self._guests) >= _MAX_GUESTS:
            self._complaints.add("%d connections show no apiKey yet: the oldest were sent away", _MAX_GUESTS)
            self._send_away_the_oldest(1)
        self._guests[guest] = None
        self._of_address[guest.address] += 1
        self._selector.register(guest.socket, selectors.EVENT_READ, lambda: self._read_on(guest))

    def _read_on(self, guest: Guest) -> None:
        if guest not in self._guests:
            return  # sent away, just before its turn
        descriptor = guest.socket.fileno()
        if guest.read(guest):
            self._forget(guest, descriptor)

    def _forget(self, guest: Guest, descriptor: int) -> None:
        """It is somebody else's now, or closed."""
        with contextlib.suppress(KeyError, OSError):
            self._selector.unregister(descriptor)
        del self._guests[guest]
        self._of_address[guest.address] -= 1
        if not self._of_address[guest.address]:
            del self._of_address[guest.address]
        if guest in self._ready:
            self._ready.remove(guest)
        elif guest.begin:
            self._invited -= 1

    def _send_away(self, guest: Guest) -> None:
        self._forget(guest, guest.socket.fileno())
        guest.close()

    def _send_away_the_oldest(self, count: int) -> bool:
        """So many guests of the address that has most of them. Whether there was one."""
        if not self._guests:
            return False
        address = max(self._of_address, key=self._of_address.__getitem__)
        oldest = (guest for guest in self._guests if guest.address == address)
        for guest in [guest for guest, _ in zip(oldest, range(count))]:  # noqa: B905
            self._send_away(guest)
        return True

    def _send_away_the_slow(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        for guest in [guest for guest in self._guests if guest.deadline < now]:
            if guest.mark:
                self._complaints.add(
                    "%s showed no apiKey within %g s and was sent away", guest.address, KEY_SECONDS
                )
            self._send_away(guest)

    def _read_environment(self, guest: Guest) -> bool:
        """Of a FastAGI session: up to the blank line. Then it is asked for the key."""
        is_there = self._receive(guest)
        if not is_there:
            return is_there is None
        try:
            guest.environment_end = fastagi.environment_end(guest.received)
            if guest.environment_end:
                guest.read = self._read_key
                guest.mark = os.urandom(8).hex()
                guest.socket.send(fastagi.question(guest.mark), socket.MSG_DONTWAIT)
        except (OSError, ValueError):
            guest.close()
            return True
        return False

    def _read_key(self, guest: Guest) -> bool:
        """Whether there is nothing more to be read: the key, or the guest, is gone."""
        is_there = self._receive(guest)
        if not is_there:
            return is_there is None
        try:
            answer = fastagi.answered(bytes(guest.received), guest.environment_end, guest.mark)
        except ValueError:  # this is no Asterisk
            guest.close()
            return True
        if answer is None:
            return False
        guest.received, guest.told = bytearray(answer[0]), answer[1]
        with contextlib.suppress(KeyError):  # before another process has it, see epoll(7)
            self._selector.unregister(guest.socket)
        self._take_network(guest)
        return True

    def _read_message(self, guest: Guest) -> bool:
        """Of our own programs: see handoff. Whether there is nothing more to be read."""
        is_there = self._receive(guest)
        if is_there and len(guest.received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(guest.received[:LENGTH_BYTES], "big")
            if len(guest.received) >= end:
                guest.begin = self._take_local(guest, bytes(guest.received[LENGTH_BYTES:end]))
                guest.read = self._read_go
                if guest.begin:
                    self._ready.append(guest)
                return guest.begin is None
        return is_there is None

    def _invite(self) -> None:
        """Programs, one for each thread that is free; each then has little time to say GO."""
        while self._ready and self._free_threads() > self._invited:
            guest = self._ready.popleft()
            self._invited += 1
            guest.deadline = time.monotonic() + _HANDSHAKE_SECONDS
            try:
                guest.socket.send(TAKEN, socket.MSG_DONTWAIT)
            except OSError:  # its patience is over
                self._send_away(guest)

    def _read_go(self, guest: Guest) -> bool:
        try:
            go, streams, _, _ = socket.recv_fds(guest.socket, 1, _STREAMS, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            go, streams = b"", []
        if guest in self._ready or not guest.begin:
            go = b""  # it speaks out of turn, or has gone
        if guest.begin:
            guest.begin(go, list(streams))
        return True

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


def _is_ours(connection: socket.socket) -> bool:
    """Whether it comes from our own user, or from root."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(credentials)[1] in (0, os.geteuid())


def _waited(connection: socket.socket) -> float:
    """How many seconds ago it has said something, or connected (tcp(7), TCP_INFO)."""
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int.from_bytes(told[_LAST_DATA_RECEIVED : _LAST_DATA_RECEIVED + 4], sys.byteorder) / 1000
