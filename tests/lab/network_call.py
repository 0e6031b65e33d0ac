"""A call whose AGI session goes over FastAGI, as Asterisk has it; a test may stop anywhere in it."""

from __future__ import annotations

import contextlib
import itertools
import re
import selectors
import socket
import time
from collections.abc import Container
from types import TracebackType

from bench.call import Call

ANSWER_SECONDS = 45.0  # longer than a session may take
_TOLD = re.compile(rb"RECORDING_(STATUS|ID)=([0-9a-f-]+)")
_LONGEST_READ = 65536
_day = int(time.time())
_numbers = itertools.count(1)


class NetworkCall:
    """Connected when it is made; `commands` are the server's lines so far, each without its end."""

    def __init__(self, port: int, key: str) -> None:
        number = next(_numbers)
        self.uniqueid = f"{_day}.{number}"
        self.commands: list[bytes] = []
        self.asterisk = Call(number, _day, key.encode())
        self.socket = socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS)
        self._received = b""

    def __enter__(self) -> NetworkCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def status(self) -> str:
        """What the dialplan was told; empty when it was told nothing."""
        return self._told(b"STATUS")

    @property
    def leg_id(self) -> str:
        return self._told(b"ID")

    def begin(self) -> None:
        """Say the AGI environment, all at once."""
        self.socket.sendall(self.asterisk.environment)

    def show_key(self) -> None:
        """Answer the server's first question: before that, no session has begun."""
        self.answer(self.next_command())

    def next_command(self) -> bytes:
        """The server's next line, unanswered; empty when it has closed."""
        while b"\n" not in self._received:
            received = self.socket.recv(_LONGEST_READ)
            if not received:
                return b""
            self._received += received
        command, _, self._received = self._received.partition(b"\n")
        self.commands.append(command)
        return command

    def answer(self, command: bytes) -> None:
        self.socket.sendall(self.asterisk.reply(command))

    def finish(self) -> str:
        """Answer everything until the server closes; the status."""
        while command := self.next_command():
            self.answer(command)
        self.socket.close()
        return self.status

    def _told(self, what: bytes) -> str:
        told: dict[bytes, bytes] = {}
        for line in self.commands:
            told.update(_TOLD.findall(line))
        return told.get(what, b"").decode()


def place(port: int, key: str) -> NetworkCall:
    """One whole call."""
    with NetworkCall(port, key) as call:
        call.begin()
        call.finish()
    return call


def finish_together(calls: list[NetworkCall], limit: float, begun: Container[NetworkCall] = ()) -> None:
    """Begin the sessions of all these connections at one moment, and answer until the server has closed all.

    begun: those that have begun already. A connection that breaks is left with what was told until then;
    AssertionError when the limit is over.
    """
    deadline = time.monotonic() + limit
    with selectors.DefaultSelector() as selector:
        for call in calls:
            selector.register(call.socket, selectors.EVENT_READ, call)
        for call in calls:
            if call not in begun:
                call.begin()
        while selector.get_map():
            assert time.monotonic() < deadline, f"{len(selector.get_map())} sessions have not ended"
            for key, _ in selector.select(1.0):
                _serve(key.data, selector)


def _serve(call: NetworkCall, selector: selectors.BaseSelector) -> None:
    command = b""
    with contextlib.suppress(ConnectionError):
        command = call.next_command()
        if command:
            call.answer(command)
    if not command:
        selector.unregister(call.socket)
        call.socket.close()
