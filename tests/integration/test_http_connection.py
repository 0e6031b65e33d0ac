"""A connection's limits: who takes an answer slowly gets it, and who takes nothing is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from lab import certificates
from lab.certificates import Pair
from lab.waiting import wait_until
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from noojee_agi import certificate
from noojee_agi.web import protocol
from noojee_agi.web.serving import Serving

PIECE = 65536
SIZE = 160 * PIECE
STALL_SECONDS = 3.0  # of which a busy machine may take one
ASKED = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """In pieces, as audio is sent."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(SIZE // PIECE):
            yield b"x" * PIECE

    await StreamingResponse(pieces(), headers={"Content-Length": str(SIZE)})(scope, receive, send)


class Everybody:
    """Takes in all that come."""

    def __init__(self) -> None:
        self.waiting: set[object] = set()

    def add(self, session: object, address: str) -> None:
        self.waiting.add(session)

    def remove(self, session: object) -> None:
        self.waiting.discard(session)

    def send_one_away(self) -> bool:
        return False


class Served(NamedTuple):
    """connect: a new connection, whose kernel keeps little unread. connections: those that there are."""

    connect: Callable[[], socket.socket]
    connections: Collection[object]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return certificates.make(tmp_path)


@pytest.fixture(params=[False, True], ids=["http", "https"])
def served(request: pytest.FixtureRequest, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """By a server that has 10 MB for everybody."""
    monkeypatch.setattr(protocol, "_STALL_SECONDS", STALL_SECONDS)
    tls = certificate.context(str(pair.certificate), str(pair.key)) if request.param else None
    trusting = ssl.create_default_context(cafile=str(pair.certificate))
    trusting.check_hostname = False
    listener = socket.create_server(("127.0.0.1", 0))
    serving = Serving(large, tls, Everybody(), lambda _: True, lambda: False, lambda _: None)
    thread = threading.Thread(target=lambda: asyncio.run(serving.serve([listener])))
    thread.start()
    wait_until(lambda: serving.started, 10, "the server")

    def connected() -> socket.socket:
        caller = socket.socket()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        caller.settimeout(20)
        caller.connect(listener.getsockname())
        return trusting.wrap_socket(caller) if request.param else caller

    yield Served(connected, serving.server_state.connections)
    serving.end()
    thread.join()


def test_who_takes_it_slowly_gets_all_of_it(served: Served) -> None:
    """At 400 kB a second for twice the limit, then the rest at once."""
    with served.connect() as caller:
        caller.sendall(ASKED)
        taken, end = b"", time.monotonic() + 2 * STALL_SECONDS
        while time.monotonic() < end:
            taken += caller.recv(20_000)
            time.sleep(0.05)
        while piece := caller.recv(65536):
            taken += piece

    assert len(taken.partition(b"\r\n\r\n")[2]) == SIZE


def test_who_takes_nothing_is_cut_off(served: Served) -> None:
    with served.connect() as caller:
        caller.sendall(ASKED)
        assert caller.recv(1)  # so there is a connection
        wait_until(lambda: not served.connections, 20, "its end")
        assert rest(caller) < SIZE


def rest(caller: socket.socket) -> int:
    """How many bytes there are until the end, whichever it is."""
    taken = 0
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := caller.recv(65536):
            taken += len(piece)
    return taken
