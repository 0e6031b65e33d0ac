"""One connection: uvicorn's, which gets limits that uvicorn does not have."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from noojee_agi.web import answers

REQUEST_SECONDS = 10.0  # for one request, however its bytes are spread, and for the pause before it
_STALL_SECONDS = 30.0  # for the next 48 kB of an answer to be taken: less than 2 kB a second
_PIECE_BYTES = 1024
_NO_REQUEST = "this is no HTTP request, or its head is too large: 16384 bytes are allowed"


class Unadmitted(Protocol):
    """Connections that have asked for nothing yet: when there are too many, some must go."""

    def add(self, connection: Connection, address: str) -> None: ...
    def remove(self, connection: Connection) -> None: ...


class Connection(H11Protocol):
    """Its time for a request begins with it, and anew when an answer is complete."""

    def __init__(self, unadmitted: Unadmitted, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._unadmitted = unadmitted
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def give_up(self) -> None:
        """Whatever was waited for has taken too long, or others need the room."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        """In pieces: h11 looks at its limit only when something is missing."""
        for begin in range(0, len(data), _PIECE_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[begin : begin + _PIECE_BYTES])
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
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(_STALL_SECONDS, self.give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall:
            self._stall.cancel()
            self._stall = None

    def _look(self) -> None:
        """Whether a request is waited for."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering and not self.cycle.more_body:
            self._end_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.give_up)
            self._unadmitted.add(self, self.client[0] if self.client else "")

    def _end_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
            self._unadmitted.remove(self)
