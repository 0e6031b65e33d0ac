"""FastAGI peers without a key that stay: python -m lab.bad_company PORT KIND COUNT ADDRESS.

At the lowest priority, as lab.http_company: their place is another machine, and those who come again at once
must not take the processor from the calls that are measured beside them.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from contextlib import AbstractContextManager

from bench.call import Call

from lab import beside

KINDS = ("silent", "silent after environment", "dripping environment", "dripping reply", "unread replies")
_DRIP_SECONDS = 0.1
_ENVIRONMENT = Call(1, 1, b"").environment
_WRONG = b"200 result=1 (no-key"


def bad_company(port: int, kind: str, count: int, address: str) -> AbstractContextManager[None]:
    """So many of them, all connected, as long as the block runs; whoever is sent away comes again."""
    return beside.running("lab.bad_company", str(port), kind, str(count), address)


class _Peer:
    def __init__(self, port: int, kind: str, address: str) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((address, 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self._reads = kind != "unread replies"
        self._mark = b""
        self._drops = iter(b"")
        if kind == "dripping environment":
            self._drops = iter(_ENVIRONMENT)
        elif kind != "silent":
            self._say(_ENVIRONMENT)
        if kind == "unread replies":
            self._say(b"200 result=1\n" * 200)
        self._answers = kind == "dripping reply"

    def is_sent_away(self) -> bool:
        """Takes in what the server says, too, if it is one who reads."""
        with contextlib.suppress(BlockingIOError):
            flags = 0 if self._reads else socket.MSG_PEEK
            try:
                said = self.socket.recv(4096, flags)
            except ConnectionError:
                return True
            if said and self._answers:
                mark = said.rstrip(b'"\n').rpartition(b"}")[2]
                self._drops = iter(_WRONG + mark + b")\n")
            return not said
        return False

    def drip(self) -> None:
        for byte in self._drops:
            self._say(bytes([byte]))
            return

    def _say(self, words: bytes) -> None:
        with contextlib.suppress(OSError):  # he may be sent away at any time
            self.socket.send(words)


def _stay(port: int, kind: str, count: int, address: str) -> None:
    peers = {peer.socket: peer for peer in (_Peer(port, kind, address) for _ in range(count))}
    print(beside.READY, flush=True)
    while True:
        deadline = time.monotonic() + _DRIP_SECONDS
        poll = select.poll()
        numbers = {each.fileno(): each for each in peers}
        for number in numbers:
            poll.register(number, select.POLLIN if kind != "unread replies" else select.POLLRDHUP)
        for number, _ in poll.poll(_DRIP_SECONDS * 1000):
            each = numbers[number]
            if peers[each].is_sent_away() or kind == "unread replies":
                del peers[each]
                each.close()
                another = _Peer(port, kind, address)
                peers[another.socket] = another
        for peer in peers.values():
            peer.drip()
        time.sleep(max(deadline - time.monotonic(), 0))


if __name__ == "__main__":
    os.nice(19)
    _stay(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
