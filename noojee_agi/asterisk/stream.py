"""The two directions of one AGI session, over pipes or a socket, with a time limit."""

import io
import os
import select
import time
from collections import deque

SESSION_SECONDS = 30.0  # all that we wait for ourselves takes 5 s at most
REPLY_SECONDS = 5.0  # Asterisk answers at once, also when it is at its limit

_READ_BYTES = 65536


class Stream(io.TextIOBase):
    """Reads lines from one descriptor and writes to another, UTF-8, as long as its time lasts.

    Bytes that are no UTF-8 become U+FFFD: a caller's name in another encoding must not stop us. read_already:
    what somebody else has read before us. After its time, in seconds, every method raises TimeoutError.
    is_timed: the socket has time limits of its own (socket(7), SO_RCVTIMEO), which costs less than to poll.
    """

    def __init__(
        self,
        reading: int,
        writing: int,
        read_already: bytes = b"",
        is_timed: bool = False,
        seconds: float | None = None,
    ) -> None:
        self._is_timed = is_timed
        self._reading = reading
        self._writing = writing
        self._lines: deque[str] = deque()
        self._begun = b""  # of the line that is not whole yet
        self._deadline = time.monotonic() + (SESSION_SECONDS if seconds is None else seconds)
        self._take(read_already)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """The next line with its end; cut off at the end of all, and beyond some size. Raises OSError."""
        while not self._lines:
            self._wait(self._reading, select.POLLIN)
            read = os.read(self._reading, _READ_BYTES)
            self._take(read)
            if not read or 0 <= size < len(self._begun):
                begun, self._begun = self._begun, b""
                return begun.decode("utf-8", "replace")
        return self._lines.popleft()

    def write(self, text: str, /) -> int:
        """Send text at once. Raises OSError."""
        rest = text.encode("utf-8", "replace")
        while rest:
            self._wait(self._writing, select.POLLOUT)
            rest = rest[os.write(self._writing, rest) :]
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def _take(self, read: bytes) -> None:
        whole, newline, self._begun = (self._begun + read).rpartition(b"\n")
        if newline:
            self._lines.extend(f"{line}\n" for line in whole.decode("utf-8", "replace").split("\n"))

    def _wait(self, descriptor: int, event: int) -> None:
        left = min(self._deadline - time.monotonic(), REPLY_SECONDS)
        if left > 0 and not self._is_timed:
            poll = select.poll()
            poll.register(descriptor, event)
            left = len(poll.poll(left * 1000))
        if left <= 0:
            raise TimeoutError("the other side takes too long")
