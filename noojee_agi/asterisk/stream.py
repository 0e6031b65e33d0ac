"""The two directions of one AGI session, over pipes or a socket, with limits of time and size."""

import io
import os
import select
import time
from collections.abc import Callable

SESSION_SECONDS = 30.0  # all that we wait for ourselves takes 5 s at most
REPLY_SECONDS = 5.0  # Asterisk answers at once, also when it is at its limit

_READ_BYTES = 65536
_TOO_LONG = "the other side takes too long"

# Waits until poll's event comes at a descriptor, for so many seconds at most; whether it has come.
Wait = Callable[[int, int, float], bool]


def poll(descriptor: int, event: int, seconds: float) -> bool:
    """Wait where nothing else is to be done meanwhile (poll(2))."""
    waiting = select.poll()
    waiting.register(descriptor, event)
    return bool(waiting.poll(seconds * 1000))


class Stream(io.TextIOBase):
    """Reads lines from one descriptor and writes to another, UTF-8, as long as its time lasts.

    Bytes that are no UTF-8 become U+FFFD: a caller's name in another encoding must not stop us. read_already:
    what somebody else has read before us. blocks: a write may; else it is waited for only when there is no
    room. After its time, in seconds, or when it has read more than
    most_bytes, if that is given, every method raises OSError.
    """

    def __init__(
        self,
        reading: int,
        writing: int,
        read_already: bytes = b"",
        wait: Wait = poll,
        seconds: float | None = None,
        most_bytes: int | None = None,
        blocks: bool = True,
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._wait_for = wait
        self._blocks = blocks
        self._lines = io.StringIO()
        self._begun = b""  # of the line that is not whole yet
        self._bytes_left = most_bytes
        self._deadline = time.monotonic() + (SESSION_SECONDS if seconds is None else seconds)
        self._take(read_already)

    def extend(self, seconds: float) -> None:
        """From now on it has so much time, and as many bytes as come."""
        self._deadline = time.monotonic() + seconds
        self._bytes_left = None

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """The next line with its end; cut off at the end of all, and beyond some size. Raises OSError."""
        while not (line := self._lines.readline()):
            self._wait(self._reading, select.POLLIN)
            read = os.read(self._reading, _READ_BYTES)
            self._count(len(read))
            self._take(read)
            if not read or 0 <= size < len(self._begun):
                begun, self._begun = self._begun, b""
                return begun.decode("utf-8", "replace")
        return line

    def write(self, text: str, /) -> int:
        """Send text at once. Raises OSError."""
        rest = text.encode("utf-8", "replace")
        must_wait = self._blocks
        while rest:
            if must_wait:
                self._wait(self._writing, select.POLLOUT)
            else:
                self._left()
            try:
                rest = rest[os.write(self._writing, rest) :]
            except BlockingIOError:
                must_wait = True
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def _count(self, read: int) -> None:
        if self._bytes_left is not None:
            self._bytes_left -= read
            if self._bytes_left < 0:
                raise OSError("the other side says too much")

    def _take(self, read: bytes) -> None:
        """All lines before it have been read. Only a newline ends one, and none is cut within a character."""
        received = self._begun + read
        end = received.rfind(b"\n") + 1
        self._begun = received[end:]
        self._lines = io.StringIO(received[:end].decode("utf-8", "replace"), newline="\n")

    def _wait(self, descriptor: int, event: int) -> None:
        if not self._wait_for(descriptor, event, self._left()):
            raise TimeoutError(_TOO_LONG)

    def _left(self) -> float:
        """How many seconds a reply may take now. Raises TimeoutError."""
        left = min(self._deadline - time.monotonic(), REPLY_SECONDS)
        if left <= 0:
            raise TimeoutError(_TOO_LONG)
        return left
