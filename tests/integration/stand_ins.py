"""What may lie at the server's socket in place of a server that is well: one function for each illness."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from noojee_agi.session import handoff

_READ_BYTES = 65536
_LIMIT_SECONDS = 20.0
Guest = socket.socket


@contextmanager
def absent(path: Path) -> Iterator[None]:
    assert not path.exists()
    yield


@contextmanager
def stale(path: Path) -> Iterator[None]:
    """What a server leaves that was killed."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with _unlinked(path):
        yield


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Nobody is let in, and its queue has no place left."""
    with _unlinked(path), contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(path))
        yield


@contextmanager
def lets_nobody_in(path: Path) -> Iterator[None]:
    """As a server that was stopped: the kernel connects, and that is all."""
    with _unlinked(path), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(100)
        yield


def says_nothing(path: Path) -> contextlib.AbstractContextManager[None]:
    return _answering(path, lambda guest: _until_it_leaves(guest))


def hangs_up_at_once(path: Path) -> contextlib.AbstractContextManager[None]:
    return _answering(path, lambda guest: None)


def says_something_else(path: Path) -> contextlib.AbstractContextManager[None]:
    return _answering(path, lambda guest: guest.sendall(b"200 OK\r\n\r\n"), reads=True)


def takes_and_dies(path: Path) -> contextlib.AbstractContextManager[None]:
    return _answering(path, lambda guest: guest.sendall(handoff.TAKEN), reads=True)


def dies_after_go(path: Path) -> contextlib.AbstractContextManager[None]:
    def take(guest: Guest) -> None:
        guest.sendall(handoff.TAKEN)
        assert guest.recv(1) == handoff.GO

    return _answering(path, take, reads=True)


@contextmanager
def slow(path: Path, server: Path, seconds: Callable[[], float]) -> Iterator[None]:
    """In front of a real server, whose every word comes so many seconds late."""

    def pass_on(guest: Guest) -> None:
        with socket.socket(socket.AF_UNIX) as behind:
            behind.connect(str(server))
            deadline = time.monotonic() + seconds()
            _connect(guest, behind, deadline)

    with _answering(path, pass_on):
        yield


def _connect(guest: Guest, behind: Guest, deadline: float) -> None:
    """Pass on what each says until one leaves; the server's words not before the deadline."""
    with selectors.DefaultSelector() as selector:
        selector.register(guest, selectors.EVENT_READ, behind)
        selector.register(behind, selectors.EVENT_READ, guest)
        while True:
            for key, _ in selector.select(_LIMIT_SECONDS):
                speaker = behind if key.fileobj is behind else guest
                said, descriptors, _, _ = socket.recv_fds(speaker, _READ_BYTES, 2)
                if speaker is behind:
                    time.sleep(max(0.0, deadline - time.monotonic()))
                if not said:
                    return
                socket.send_fds(key.data, [said], descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)


@contextmanager
def _answering(path: Path, answer: Callable[[Guest], None], reads: bool = False) -> Iterator[None]:
    """Let everybody in, hear the message if `reads`, and hang up after `answer`."""

    def serve() -> None:
        with contextlib.suppress(OSError):  # also that of the listener's end
            while True:
                guest = listener.accept()[0]
                with guest, contextlib.suppress(OSError):
                    guest.settimeout(_LIMIT_SECONDS)
                    if reads:
                        guest.recv(_READ_BYTES)
                    answer(guest)

    with _unlinked(path), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(100)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _until_it_leaves(guest: Guest) -> None:
    while guest.recv(_READ_BYTES):
        pass


@contextmanager
def _unlinked(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
