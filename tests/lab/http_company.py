"""Bad company at the HTTP port, from a process of its own: python -m lab.http_company KIND PORT [TARGET].

It works at the lowest priority: its place is another machine, and here it must not take the processor from
those who are measured beside it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from lab import beside, web

_SILENT, _SLOW, _BUSY, _DEAF = 1000, 200, 64, 16
_BYTE_SECONDS = 1.0
_AGAIN_SECONDS = 0.2
_READ_BYTES = 65536
_GUESSES_OF_AN_ADDRESS = 10
_GET = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n"
KINDS = ("silent", "slow", "guessers", "deaf", "flood")


def company(kind: str, port: int, target: str = "") -> AbstractContextManager[None]:
    """Of that kind, as long as the block runs. target: of the audio for which the deaf ask."""
    return beside.running("lab.http_company", kind, str(port), target)


class _Peer:
    """One connection; made anew when the server has closed it."""

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex((web.HERE, port))
        selector.register(self.socket, selectors.EVENT_READ, self)

    def say(self, words: bytes) -> None:
        with contextlib.suppress(OSError):
            self.socket.send(words)

    def is_open(self, reads: bool = True) -> bool:
        """Reads what is there."""
        try:
            return bool(self.socket.recv(_READ_BYTES)) if reads else True
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self._selector.unregister(self.socket)
        self.socket.close()


def _guess() -> Iterator[bytes]:
    """Each address of loopback guesses as often as it may; a proxy on this machine says who it is."""
    for number in itertools.count():
        address = f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        for _ in range(_GUESSES_OF_AN_ADDRESS):
            head = f"POST {web.CALLS}/start?extenOrUniqueId=410 HTTP/1.1\r\nHost: a\r\n"
            yield f"{head}X-Forwarded-For: {address}\r\nX-Api-Key: x{number}\r\n\r\n".encode()


def _keep(port: int, count: int, words: Callable[[], bytes], reads: bool, answers: bool) -> None:
    """So many connections that say these words, and with answers the next when something has come."""
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            _Peer(port, selector)
        for key in [*selector.get_map().values()]:
            key.data.say(words())
        print(beside.READY, flush=True)
        while True:
            for key, _ in selector.select(_AGAIN_SECONDS):
                peer = key.data
                if not peer.is_open(reads):
                    peer.close()
                    peer = _Peer(port, selector)
                    peer.say(words())
                elif answers:
                    peer.say(words())
            if not reads:
                time.sleep(_AGAIN_SECONDS)


def _drip(port: int) -> None:
    """One byte a second on each connection."""
    words = itertools.cycle(_GET + b"X: " + b"x" * 1000)
    with selectors.DefaultSelector() as selector:
        for _ in range(_SLOW):
            _Peer(port, selector)
        print(beside.READY, flush=True)
        while True:
            letter = bytes([next(words)])
            for key in [*selector.get_map().values()]:
                if key.data.is_open():
                    key.data.say(letter)
                else:
                    key.data.close()
                    _Peer(port, selector)
            time.sleep(_BYTE_SECONDS)


def main(kind: str, port: int, target: str) -> None:
    os.nice(19)
    guesses = _guess()
    if kind == "silent":
        _keep(port, _SILENT, bytes, reads=True, answers=False)
    elif kind == "slow":
        _drip(port)
    elif kind == "guessers":
        _keep(port, _BUSY, lambda: next(guesses), reads=True, answers=True)
    elif kind == "deaf":
        words = f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        _keep(port, _DEAF, lambda: words, reads=False, answers=False)
    elif kind == "flood":
        _keep(port, _BUSY, lambda: _GET + b"\r\n", reads=True, answers=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
