"""Hangs up on a database server that has gone silent in the middle of a transaction.

libpq waits for an answer for ever: connect_timeout ends with the connecting, statement_timeout is the
server's own business, and a kernel acknowledges what a stopped server does not read.
"""

import contextlib
import logging
import math
import os
import socket
import threading
import time

logger = logging.getLogger(__name__)


class Watch:
    """Of one connection's socket, beginning now. What waits there fails when no answer comes in time."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self._seconds = seconds
        self._over = threading.Event()
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self.begin()
        threading.Thread(target=self._run, name="database watch", daemon=True).start()

    def begin(self) -> None:
        """A question is asked: the time to answer begins."""
        self._deadline = time.monotonic() + self._seconds

    def rest(self) -> None:
        """It is answered; what we do meanwhile is no silence of the server's."""
        self._deadline = math.inf

    def end(self) -> None:
        """Look on no longer."""
        self._over.set()

    def _run(self) -> None:
        with self._socket:
            while (left := self._deadline - time.monotonic()) > 0:
                if self._over.wait(min(left, self._seconds)):
                    return
            logger.error("the database has not answered for %g s: connection closed", self._seconds)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
