"""One connection: uvicorn's, which gets limits that uvicorn does not have."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from noojee_agi.web import answers, networks

REQUEST_SECONDS = 10.0  # for one request, however its bytes are spread, and for the pause before it
_STALL_SECONDS = 30.0  # in which something of an answer must be taken
_UNTAKEN_BYTES = 65536  # of an answer, in our own memory
_PIECE_BYTES = 1024
_NO_REQUEST = "this is no HTTP request, or its head is too large: 16384 bytes are allowed"


class Newcomer(Protocol):
    """A connection that has asked for nothing yet."""

    def give_up(self) -> None: ...


class Admission(Protocol):
    """Those that there are: when there are too many, some must go."""

    def add(self, session: Newcomer, address: str) -> None: ...
    def remove(self, session: Newcomer) -> None: ...
    def send_one_away(self) -> bool: ...


class Connection(H11Protocol):
    """Its time for a request begins with it, and anew when an answer has been taken."""

    def __init__(self, admission: Admission, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._admission = admission
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    @property
    def is_answering(self) -> bool:
        """Whether a whole request is here, and its answer not given yet."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def give_up(self) -> None:
        """Whatever was waited for has taken too long, or others need the room."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(_UNTAKEN_BYTES)
        if self.client:  # a socket of both families has IPv4 in IPv6
            self.client = (networks.canonical(self.client[0]), self.client[1])
        self._look()

    def data_received(self, data: bytes) -> None:
        """In pieces: h11 looks at its limit only when something is missing."""
        for begin in range(0, len(data), _PIECE_BYTES):
            if self.transport.is_closing():
                return
            try:
                super().data_received(data[begin : begin + _PIECE_BYTES])
            except h11.LocalProtocolError:  # garbage behind a request that was refused already
                self.give_up()
                return
        self._look()

    def send_400_response(self, msg: str) -> None:
        """As each other answer."""
        answer = answers.error(400, _NO_REQUEST, {**answers.HEADERS, "Connection": "close"})
        head = h11.Response(status_code=400, headers=answer.raw_headers, reason=b"Bad Request")
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        self._end_stall()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._begin_stall()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall()

    # ---- A request is waited for

    def _look(self) -> None:
        if self.is_answering:
            self._end_deadline()
        elif self.transport.get_write_buffer_size():  # the answer before it is still being taken
            self._begin_stall()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.give_up)
            self._admission.add(self, self.client[0] if self.client else "")

    def _end_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
            self._admission.remove(self)

    # ---- An answer is being taken

    def _begin_stall(self) -> None:
        if self._stall is None:
            untaken = self.transport.get_write_buffer_size()
            self._stall = self.loop.call_later(_STALL_SECONDS, self._is_taken, untaken)

    def _is_taken(self, before: int) -> None:
        """Whether there is less of it than before."""
        self._stall = None
        untaken = self.transport.get_write_buffer_size()
        if untaken and untaken >= before:
            self.give_up()
        elif untaken:
            self._begin_stall()
        else:
            self._look()

    def _end_stall(self) -> None:
        if self._stall:
            self._stall.cancel()
            self._stall = None
