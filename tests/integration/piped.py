"""One AGI program as a process, with Asterisk's side of its two pipes."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from lab.waiting import wait_until
from unit.fakes import FakeAsterisk

LIMIT_SECONDS = 30.0


class Piped:
    """The program runs while the block runs, at the longest; `asterisk` is the channel that it serves.

    before_reply and after_reply are called with a command's number, when it was carried out and when it was
    answered: a test breaks things there.
    """

    def __init__(
        self, asterisk: FakeAsterisk, command: Sequence[str | bytes], environment: Mapping[str, str]
    ) -> None:
        self._asterisk = asterisk
        self._command = command
        self._environment = dict(environment)
        self.before_reply: Callable[[int], None] = lambda number: None
        self.after_reply: Callable[[int], None] = lambda number: None
        self.stderr = ""

    def __enter__(self) -> Piped:
        self._begun = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to_program, self._from_program = self._process.stdin.fileno(), self._process.stdout.fileno()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self.stderr += self._process.communicate()[1].decode(errors="replace")

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self) -> float:
        """Answer until the program, and whoever else holds the pipes, has let go of them.

        Returns the seconds from the program's start to its end.
        """
        self._asterisk.streams()
        self._send(self._asterisk.pending())
        unfinished = b""
        while read := self._read():
            *lines, unfinished = (unfinished + read).split(b"\n")
            for line in lines:
                self._answer(line.decode("utf-8", "replace"))
        assert unfinished == b""
        self._process.wait(LIMIT_SECONDS)
        return time.monotonic() - self._begun

    def wait_until_read(self) -> None:
        """Until nobody has left anything unread."""
        wait_until(lambda: _unread(self._to_program) == 0, 10, "the reply to be read")

    def _answer(self, line: str) -> None:
        self._asterisk.receive(line + "\n")
        self.before_reply(self._asterisk.count)
        self._send(self._asterisk.pending())
        self.after_reply(self._asterisk.count)

    def _send(self, text: str) -> None:
        os.write(self._to_program, text.encode("utf-8", "surrogateescape"))

    def _read(self) -> bytes:
        ready, _, _ = select.select([self._from_program], [], [], LIMIT_SECONDS)
        assert ready, f"nothing was said for {LIMIT_SECONDS:g} s after {self._asterisk.lines}"
        return os.read(self._from_program, 65536)


def _unread(pipe: int) -> int:
    """The bytes that wait in a pipe (pipe(7), FIONREAD)."""
    count: int = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]
    return count
