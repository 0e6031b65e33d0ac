"""One connection: uvicorn's, which gets limits that uvicorn does not have."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 10.0  # for one request, however its bytes are spread, and for the pause before it
_STALL_SECONDS = 30.0  # for the next 48 kB of an answer to be taken: less than 2 kB a second


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
        super().data_received(data)
        self._look()

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
