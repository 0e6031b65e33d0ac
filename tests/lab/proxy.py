"""A TCP proxy before a server: the network, or the server behind it, fails when a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from types import TracebackType

PIECE = 65536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER, on, no time: close() then resets


class Proxy:
    """Passes connections on to the port `target` of 127.0.0.1, until it is told otherwise; a context manager.

    freeze(): no byte passes any more, nor the end of a connection; new ones are taken and get no answer.
    freeze_at(): freeze by itself, in the middle of what a client says.
    hold_answers(): the server does what it is asked, and nobody hears of it.
    forget(): what is connected now is never heard of again, on neither side; new connections pass.
    cut(): everything is reset, new connections too.
    thaw(): all is well again; what was only frozen arrives now.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._connections: set[_Connection] = set()
        self._forgotten: set[_Connection] = set()
        self._is_frozen = False
        self._holds_answers = False
        self._is_cut = False
        self._trap: tuple[bytes, bool] | None = None

    def __enter__(self) -> Proxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def is_frozen(self) -> bool:
        """Whether it is frozen now; after freeze_at(): whether a client has come so far."""
        return self._is_frozen

    def freeze(self) -> None:
        self._do(self._freeze)

    def freeze_at(self, words: bytes, is_heard: bool = False) -> None:
        """Freeze when a client says `words`; is_heard: the server does it, its answer is lost."""
        self._do(lambda: setattr(self, "_trap", (words, is_heard)))

    def hold_answers(self) -> None:
        self._do(self._hold_answers)

    def forget(self) -> None:
        self._do(self._forget)

    def cut(self) -> None:
        self._do(self._cut)

    def thaw(self) -> None:
        self._do(self._thaw)

    def _do(self, work: Callable[[], object]) -> None:
        """In the proxy's own thread; it is done when this returns."""

        async def run() -> None:
            work()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _freeze(self) -> None:
        self._is_frozen, self._trap = True, None
        self._hold_answers()
        for connection in self._connections:
            connection.asking.clear()

    def _hold_answers(self) -> None:
        self._holds_answers = True
        for connection in self._connections:
            connection.answering.clear()

    def _forget(self) -> None:
        self._freeze()
        self._forgotten |= self._connections
        self._connections.clear()
        self._is_frozen, self._holds_answers = False, False

    def _cut(self) -> None:
        self._is_cut = True
        for connection in self._connections | self._forgotten:
            connection.reset()

    def _thaw(self) -> None:
        self._is_frozen, self._holds_answers, self._is_cut, self._trap = False, False, False, None
        for connection in self._connections:
            connection.asking.set()
            connection.answering.set()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        connection = _Connection(writer)
        if self._is_cut:
            connection.reset()
            return
        if not self._is_frozen:
            connection.asking.set()
        if not self._holds_answers:
            connection.answering.set()
        self._connections.add(connection)
        try:
            await self._connect(reader, connection)
        except OSError:
            pass  # one of the two has gone, or the server was not there
        finally:
            self._connections.discard(connection)
            self._forgotten.discard(connection)
            connection.reset()

    async def _connect(self, questions: StreamReader, connection: _Connection) -> None:
        await connection.asking.wait()
        answers, connection.server = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(
            _pass(questions, connection.server, connection.asking, self._at_question),
            _pass(answers, connection.client, connection.answering),
        )

    def _at_question(self, data: bytes) -> bool:
        """Freeze when these are the words; whether they pass all the same."""
        if self._trap is None or self._trap[0] not in data:
            return False
        _, is_heard = self._trap
        self._freeze()
        return is_heard


class _Connection:
    """One client and, once it is connected, its server."""

    def __init__(self, client: StreamWriter) -> None:
        self.client = client
        self.server: StreamWriter | None = None
        self.asking = asyncio.Event()
        self.answering = asyncio.Event()

    def reset(self) -> None:
        self.asking.set()
        self.answering.set()
        for side in (self.client, self.server):
            if side is not None and not side.is_closing():
                side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                side.transport.abort()


async def _pass(
    reader: StreamReader,
    writer: StreamWriter,
    may_pass: asyncio.Event,
    passes: Callable[[bytes], bool] = lambda data: False,
) -> None:
    """Until the reader's end, which is passed on too. passes: whether these bytes do not wait."""
    while data := await reader.read(PIECE):
        if not passes(data):
            await may_pass.wait()
        writer.write(data)
        await writer.drain()
    await may_pass.wait()
    writer.close()
