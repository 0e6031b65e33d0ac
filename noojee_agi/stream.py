"""The two directions of one AGI session, over pipes or a socket, with time limits."""

import io
import os
import select
import time

SESSION_SECONDS = 30.0  # all that we wait for ourselves takes 5 s at most

_READ_BYTES = 65536


class Stream(io.TextIOBase):
    """Reads lines from one descriptor and writes to another, UTF-8, as long as its time lasts.

    Bytes that are no UTF-8 become U+FFFD: a caller's name in another encoding must not stop us. read_already:
    what somebody else has read before us. After its time every method raises TimeoutError.
    """

    def __init__(self, reading: int, writing: int, read_already: bytes = b"") -> None:
        self._reading = reading
        self._writing = writing
        self._unread = bytearray(read_already)
        self._deadline = time.monotonic() + SESSION_SECONDS
        self._readable = select.poll()
        self._readable.register(reading, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(writing, select.POLLOUT)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """The next line with its end; cut off at the end of all, and beyond size bytes. Raises OSError."""
        searched = 0
        while (end := self._unread.find(b"\n", searched) + 1) == 0:
            searched = len(self._unread)
            if 0 <= size <= searched:
                end = size
                break
            self._wait(self._readable)
            read = os.read(self._reading, _READ_BYTES)
            if not read:
                end = searched
                break
            self._unread += read
        line = self._unread[:end].decode("utf-8", "replace")
        del self._unread[:end]
        return line

    def write(self, text: str, /) -> int:
        """Send text at once. Raises OSError."""
        rest = text.encode("utf-8", "replace")
        while rest:
            self._wait(self._writable)
            rest = rest[os.write(self._writing, rest) :]
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def _wait(self, poll: select.poll) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError("the other side takes too long")
