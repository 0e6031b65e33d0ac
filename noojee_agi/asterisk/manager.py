"""Asterisk's manager interface (AMI): the only one who speaks it.

A client of our own: noojee_agi/README.md says what those of others do when Asterisk does not answer, or when
a value holds a line end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from noojee_agi import text
from noojee_agi.asterisk import message
from noojee_agi.asterisk.message import Message
from noojee_agi.config import Config
from noojee_agi.errors import ManagerUnavailable, NoojeeError, NoSuchCall

T = TypeVar("T")


class InThread(Protocol):
    """Does some work, and returns what it returns, or raises what it raises."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


# That a session waits for all answers together, so that a call hears of a dead manager interface within 3 s,
# whenever it died. Asterisk takes one second to refuse a wrong secret (manager.c authenticate).
PATIENCE_SECONDS = 2.5

_READ_BYTES = 65536
_MAX_MESSAGE = 1 << 20
_NO_SUCH_CHANNEL = "No such channel"
# Errors that are none: a MixMonitor that has ended already, an Asterisk without res_parking.
_TOLERATED = {"StopMixMonitor": "Could not stop monitoring", "ParkedCalls": "Invalid/unknown command"}
_NOT_ALLOWED = ("Permission denied", "Access Forbidden")
_END = b"\r\n\r\n"


class Manager:
    """One connection, made by the first action and made again when it broke; close() ends it.

    Every method raises ManagerUnavailable: not reachable, wrong secret, rights missing, or no answer in time;
    after that nothing more is tried.
    """

    def __init__(self, config: Config, in_thread: InThread = lambda work: work()) -> None:
        """in_thread: where the waiting for Asterisk is done."""
        self._config = config
        self._in_thread = in_thread
        self._place = f"manager interface at {config.manager_host}:{config.manager_port}"
        self._connection: socket.socket | None = None
        self._received = b""
        self._failure = ""
        self._patience = PATIENCE_SECONDS

    @property
    def is_configured(self) -> bool:
        return bool(self._config.manager_username)

    def close(self) -> None:
        connection, self._connection, self._received = self._connection, None, b""
        if connection:
            connection.close()

    def renew_patience(self) -> None:
        """For the next work on a connection that is kept."""
        self._patience = PATIENCE_SECONDS

    def fileno(self) -> int:
        """Of the connection that the first action has made."""
        assert self._connection is not None
        return self._connection.fileno()

    def arrived(self) -> list[Message]:
        """The messages that nobody has asked for, as far as they are there. Does not wait."""
        assert self._connection is not None
        try:
            self._connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while read := self._connection.recv(_READ_BYTES):
                    self._received += read
                raise ConnectionResetError("it closes the connection")
        except OSError as exc:
            raise self._failed(f"{self._place}: {_reason(exc)}") from exc
        *whole, self._received = self._received.split(_END)
        if len(self._received) > _MAX_MESSAGE:
            raise self._failed(f"{self._place} says what no Asterisk says: look at [manager] port")
        return [message.parse(each) for each in whole]

    def get(self, channel: str, name: str) -> str:
        """A variable or function of the channel; empty when it is unset. Raises NoSuchCall."""
        return self.act("Getvar", {"Channel": channel, "Variable": name}).get("Value")

    def set(self, channel: str, name: str, value: str) -> None:
        """Set a variable of the channel; control characters in value become blanks. Raises NoSuchCall."""
        self.act("Setvar", {"Channel": channel, "Variable": name, "Value": value})

    def act(self, action: str, fields: Mapping[str, str], is_repeatable: bool = True) -> Message:
        """Asterisk's answer. is_repeatable: once more on a new connection, if this one breaks meanwhile.

        Raises NoSuchCall when there is no such channel (any more).
        """
        return self._in_thread(lambda: self._exchange(action, fields, "", is_repeatable))[0]

    def events(self, action: str, last: str, fields: Mapping[str, str]) -> list[Message]:
        """Asterisk's answer, and the events that follow it, up to the one that is called `last`."""
        return self._in_thread(lambda: self._exchange(action, fields, last, is_repeatable=True))

    def _exchange(
        self, action: str, fields: Mapping[str, str], last: str, is_repeatable: bool
    ) -> list[Message]:
        """last: empty when no events follow."""
        if self._failure:
            raise ManagerUnavailable(self._failure)
        try:
            is_connected = self._connection is not None
            try:
                return self._once(action, fields, last)
            except ConnectionError:
                if not is_repeatable or not is_connected:
                    raise
                self.close()
                return self._once(action, fields, last)
        except OSError as exc:
            raise self._failed(f"{self._place}: {_reason(exc)}; see [manager], and manager.conf") from exc
        except ManagerUnavailable as exc:
            raise self._failed(str(exc)) from exc

    def _once(self, action: str, fields: Mapping[str, str], last: str) -> list[Message]:
        if not self._connection:
            self._log_in()
        mark = self._send(action, fields)
        answer = self._answer(mark)
        if answer.get("Response") == "Success":
            return [answer, *(self._events(mark, last) if last else ())]
        said = answer.get("Message")
        if action in _TOLERATED and said.startswith(_TOLERATED[action]):
            return [answer]
        raise self._refused(action, said)

    def _events(self, mark: str, last: str) -> Iterator[Message]:
        """Those of a list, `last` included.

        An empty line in somebody's text cuts his event in pieces: the first is yielded, as doubtful, the
        others are his words. The ActionID, which he cannot know, stands in the last one.
        """
        is_cut, name = False, ""
        while name != last:
            event = self._message()
            is_end = mark in event.marks
            if not is_cut:
                name = event.get("Event") if is_end else ""
                yield event if is_end else event._replace(is_doubtful=True)
            is_cut = not is_end

    def _failed(self, reason: str) -> ManagerUnavailable:
        """From now on every action fails with this at once."""
        self._failure = reason
        self.close()
        return ManagerUnavailable(reason)

    def _log_in(self) -> None:
        address = (self._config.manager_host, self._config.manager_port)
        with self._waiting() as seconds:
            self._connection = socket.create_connection(address, seconds)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read_until(b"\r\n")  # the greeting
        challenge = self._answer(self._send("Challenge", {"AuthType": "MD5"})).get("Challenge")
        secret = challenge + self._config.manager_secret
        key = hashlib.md5(secret.encode(), usedforsecurity=False).hexdigest()
        name = self._config.manager_username
        mark = self._send("Login", {"AuthType": "MD5", "Username": name, "Key": key, "Events": "off"})
        if self._answer(mark).get("Response") != "Success":
            raise ManagerUnavailable(
                f"{self._place} refuses user {text.plain(name)}:"
                " compare username and secret with manager.conf, and its permit lines"
            )

    def _refused(self, action: str, said: str) -> NoojeeError:
        if said == _NO_SUCH_CHANNEL:
            return NoSuchCall("that call has just ended")
        if any(words in said for words in _NOT_ALLOWED):
            return ManagerUnavailable(
                f"{self._place}: user {text.plain(self._config.manager_username)} may not {action}:"
                " give it write = system,call in manager.conf"
            )
        return ManagerUnavailable(f"{self._place} refuses {action}: {text.plain(said)}")

    def _send(self, action: str, fields: Mapping[str, str]) -> str:
        """Returns the ActionID, which nobody can guess: what a channel is called may be anybody's text."""
        mark = os.urandom(8).hex()
        lines = [message.line(*pair) for pair in {"Action": action, "ActionID": mark, **fields}.items()]
        assert self._connection is not None
        with self._waiting() as seconds:
            self._connection.settimeout(seconds)
            self._connection.sendall(b"\r\n".join([*lines, b"", b""]))
        return mark

    def _answer(self, mark: str) -> Message:
        """The next message with this ActionID; events that nobody asked for are passed over."""
        while mark not in (said := self._message()).marks:
            pass
        return said

    def _message(self) -> Message:
        return message.parse(self._read_until(_END))

    def _read_until(self, end: bytes) -> bytes:
        """Raises TimeoutError and ConnectionError."""
        assert self._connection is not None
        searched = 0
        while (at := self._received.find(end, searched)) < 0:
            if len(self._received) > _MAX_MESSAGE:
                raise ManagerUnavailable(f"{self._place} says what no Asterisk says: look at [manager] port")
            searched = max(0, len(self._received) - len(end) + 1)
            with self._waiting() as seconds:
                self._connection.settimeout(seconds)
                read = self._connection.recv(_READ_BYTES)
            if not read:
                raise ConnectionResetError("it closes the connection")
            self._received += read
        message, self._received = self._received[:at], self._received[at + len(end) :]
        return message

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[float]:
        """For so many seconds at most; what it takes is taken off. Raises TimeoutError when none is left."""
        if self._patience <= 0:
            raise TimeoutError
        begun = time.monotonic()
        try:
            yield self._patience
        finally:
            self._patience -= time.monotonic() - begun


def _reason(exc: OSError) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return exc.strerror or str(exc)
