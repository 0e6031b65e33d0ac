"""Plays Asterisk towards a FastAGI server: so many calls at once, the next when one is over.

It shares the processor with the server that it measures, so it is one process with one epoll, bytes and
little else. Unlike Asterisk it sends the AGI environment in one piece.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.call import Call

SILENT_SECONDS = 15.0
BROKEN = "the connection broke"
SILENT = "no word from the server"

_LONGEST_READ = 16384


@dataclass
class Outcome:
    """Of some calls; milliseconds: of those that went well, from connecting to the server's close."""

    milliseconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    own_cpu_seconds: float = 0.0


class Callers:
    """All who call one server. No two of their calls are the same."""

    def __init__(self, port: int, key: str, silent_seconds: float = SILENT_SECONDS) -> None:
        self._address = ("127.0.0.1", port)
        self._silent_seconds = silent_seconds
        day, numbers = int(time.time()), itertools.count(1)
        self._calls: Iterator[Call] = (Call(number, day, key.encode()) for number in numbers)

    def place(self, count: int, connections: int) -> Outcome:
        """So many calls, counted as failed when the server says no word for long, with all that are left."""
        outcome = Outcome()
        begun, own_begun = time.perf_counter(), time.process_time()
        lines: dict[int, _Line] = {}
        with select.epoll() as epoll:
            try:
                self._place(count, connections, epoll, lines, outcome)
            finally:
                for line in lines.values():
                    line.socket.close()
        outcome.seconds = time.perf_counter() - begun
        outcome.own_cpu_seconds = time.process_time() - own_begun
        return outcome

    def _place(
        self, left: int, connections: int, epoll: select.epoll, lines: dict[int, _Line], outcome: Outcome
    ) -> None:
        while left or lines:
            while left and len(lines) < connections:
                line = _Line(self._address, next(self._calls), epoll)
                lines[line.socket.fileno()] = line
                left -= 1
            events = epoll.poll(self._silent_seconds)
            if not events:
                outcome.failures[SILENT] += len(lines) + left
                return
            for descriptor, _ in events:
                if lines[descriptor].serve(outcome):
                    del lines[descriptor]


class _Line:
    """One connection, for one call."""

    __slots__ = ("_begun", "_call", "_epoll", "_received", "_unsent", "socket")

    def __init__(self, address: tuple[str, int], call: Call, epoll: select.epoll) -> None:
        self._call = call
        self._epoll = epoll
        self._received = b""
        self._unsent = call.environment
        self._begun = time.perf_counter()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket.connect_ex(address)
        with contextlib.suppress(OSError):  # not connected yet, or never: the next event tells
            self.socket.send(call.environment)  # it is far smaller than the socket's buffer
            self._unsent = b""
        epoll.register(self.socket, select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0))

    def serve(self, outcome: Outcome) -> bool:
        """Do what can be done without waiting; whether the call is over, and told."""
        try:
            if self._unsent:
                self.socket.send(self._unsent)
                self._unsent = b""
                self._epoll.modify(self.socket, select.EPOLLIN)
                return False
            received = self.socket.recv(_LONGEST_READ)
            if received:
                self._answer(received)
                return False
        except OSError:
            self.socket.close()
            outcome.failures[BROKEN] += 1
            return True
        self.socket.close()
        failure = self._call.failure()
        if failure:
            outcome.failures[failure] += 1
        else:
            outcome.milliseconds.append((time.perf_counter() - self._begun) * 1000)
        return True

    def _answer(self, received: bytes) -> None:
        *commands, self._received = (self._received + received).split(b"\n")
        if commands:
            self.socket.send(b"".join(map(self._call.reply, commands)))
