"""uvicorn on the socket that the server listens at, on the loop of its process."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from noojee_agi.web.protocol import REQUEST_SECONDS, Connection, Unadmitted

_HEAD_BYTES = 16384
_FINISH_SECONDS = 15  # for answers that have begun: a start is over by then, a long download is cut off
_LOOPBACK = ["127.0.0.0/8", "::1"]


class Serving(uvicorn.Server):
    """tls: None for HTTP without it. unadmitted: see protocol."""

    def __init__(self, app: ASGIApp, tls: ssl.SSLContext | None, unadmitted: Unadmitted) -> None:
        # What anybody can provoke, such as a request that is none, stands in no log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                h11_max_incomplete_event_size=_HEAD_BYTES,
                timeout_graceful_shutdown=_FINISH_SECONDS,
                # A proxy on this machine says who its client is.
                proxy_headers=True,
                forwarded_allow_ips=_LOOPBACK,
            )
        )
        self._tls = tls
        self._unadmitted = unadmitted

    def end(self) -> None:
        """Take no more connections, and come to the end."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with a limit for the handshake of TLS, before which it knows of no connection."""
        await self.lifespan.startup()
        connection = partial(
            Connection,
            self._unadmitted,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        limit = REQUEST_SECONDS if self._tls else None
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(connection, sock=each, ssl=self._tls, ssl_handshake_timeout=limit)
            for each in sockets or []
        ]
        self.started = True
