"""uvicorn on the socket that the server listens at, on the loop of its process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from noojee_agi.web import networks
from noojee_agi.web.protocol import REQUEST_SECONDS, Admission, Connection

_HEAD_BYTES = 16384
_FINISH_SECONDS = 2  # for answers to be taken, once all sessions have ended: a long download is cut off
_LOOK_SECONDS = 0.05
_PAUSE_SECONDS = 0.2
_LOOPBACK = ["127.0.0.0/8", "::1"]
# The kernel takes no more of an answer than this before the client has taken the rest; tcp(7) does not tell.
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
_UNSENT_BYTES = 65536


class Serving(uvicorn.Server):
    """tls: None for HTTP without it. may_come: whether there is an address from which requests may come.

    is_at_work: whether there are sessions. full: told what keeps a connection from being taken.
    """

    def __init__(
        self,
        app: ASGIApp,
        tls: ssl.SSLContext | None,
        admission: Admission,
        may_come: Callable[[str], bool],
        is_at_work: Callable[[], bool],
        full: Callable[[OSError], None],
    ) -> None:
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
        self._admission = admission
        self._may_come = may_come
        self._is_at_work = is_at_work
        self._full = full
        self._arriving: set[asyncio.Task[None]] = set()

    def end(self) -> None:
        """Take no more connections, and come to the end."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """We take the connections: of one that is in its handshake uvicorn does not know."""
        await self.lifespan.startup()
        self.servers = []
        self._make = partial(
            Connection,
            self._admission,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for listener in sockets or []:
            listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
            self._listen(listener)
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Whoever has not asked is sent away at once; sessions come to their end."""
        for listener in sockets or []:
            asyncio.get_running_loop().remove_reader(listener)
        for task in self._arriving:
            task.cancel()
        for connection in [*self.server_state.connections]:
            if isinstance(connection, Connection) and not connection.is_answering:
                connection.give_up()
        await asyncio.sleep(0)  # until they know
        while self._is_at_work():
            await asyncio.sleep(_LOOK_SECONDS)
        await super().shutdown(sockets)

    def _listen(self, listener: socket.socket) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, address = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # gone before we looked
        except OSError as exc:  # no descriptor left, say: it waits in the kernel's queue
            self._full(exc)
            if not self._admission.send_one_away():
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(_PAUSE_SECONDS, self._listen, listener)
            return
        host = networks.canonical(address[0])
        if not self._may_come(host):
            accepted.close()
            return
        task = asyncio.get_running_loop().create_task(self._take(accepted, host))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _take(self, accepted: socket.socket, host: str) -> None:
        """It counts from now on, as a connection does that asks for nothing."""
        accepted.setblocking(False)
        arriving = _Arriving(accepted)
        self._admission.add(arriving, host)
        limit = REQUEST_SECONDS if self._tls else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make, accepted, ssl=self._tls, ssl_handshake_timeout=limit
            )
        except OSError:  # it is gone, or took too long, or does not speak TLS
            accepted.close()
        finally:
            self._admission.remove(arriving)


class _Arriving:
    """A connection in its handshake."""

    def __init__(self, accepted: socket.socket) -> None:
        self._accepted = accepted

    def give_up(self) -> None:
        with contextlib.suppress(OSError):  # it has just gone
            self._accepted.shutdown(socket.SHUT_RDWR)
