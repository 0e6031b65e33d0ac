"""Stands between a client and a server, and can go silent: open connections through which nothing comes."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from lab.postgresql import free_port

CHUNK = 65536


class TcpProxy:
    """Forwards to a port of the loopback; a context manager."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._questions = threading.Event()
        self._answers = threading.Event()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> TcpProxy:
        self.speak()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.speak()

    def speak(self) -> None:
        """Forward again, also what was held back."""
        self._questions.set()
        self._answers.set()

    def go_silent(self) -> None:
        """Forward nothing more."""
        self._questions.clear()
        self._answers.clear()

    def hold_answers(self) -> None:
        """Forward to the server only: it does what it is asked, and nobody hears of it."""
        self._answers.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                self._pump(client, server, self._questions)
                self._pump(server, client, self._answers)

    def _pump(self, source: socket.socket, sink: socket.socket, may_pass: threading.Event) -> None:
        def run() -> None:
            with contextlib.suppress(OSError):
                while chunk := source.recv(CHUNK):
                    may_pass.wait()
                    sink.sendall(chunk)
                sink.shutdown(socket.SHUT_WR)

        threading.Thread(target=run, daemon=True).start()
