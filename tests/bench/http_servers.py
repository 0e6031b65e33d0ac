"""The API's own application on several ASGI servers, side by side: python -m bench.http_servers (in tests/).

The servers take turns. Each is one process with the same application, without sessions and database: what is
measured is HTTP. granian is measured where it is installed; it is no part of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab import footprint, processes, web
from lab.postgresql import free_port
from lab.waiting import wait_until

from bench import table
from bench.http_app import SERVERS

ROUNDS, REQUESTS, CONNECTIONS = 5, 2000, 8
WORDS: Mapping[str, bytes] = {
    "/openapi.json": b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n",
    "start, wrong key": f"POST {web.CALLS}/start?apiKey=x HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
}
_TESTS = Path(__file__).parents[1]
_LIMIT_SECONDS = 20.0
_READ_BYTES = 65536
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_IMPORTS = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """One server's answers to so many requests."""

    per_second: float
    milliseconds: Sequence[float]
    megabytes: float


Turns = Mapping[tuple[str, str], Sequence[Turn]]


def installed() -> list[str]:
    return [name for name in SERVERS if importlib.util.find_spec(name)]


def measure(rounds: int = ROUNDS, requests: int = REQUESTS) -> Turns:
    """By server and what is asked, after a turn that does not count."""
    turns: dict[tuple[str, str], list[Turn]] = {}
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(_running(name)) for name in installed()}
        for number in range(1 + rounds):
            for asked, words in WORDS.items():
                for name in [*running][:: -1 if number % 2 else 1]:
                    turn = _turn(*running[name], words, requests)
                    if number:
                        turns.setdefault((name, asked), []).append(turn)
    return turns


@contextlib.contextmanager
def _running(name: str) -> Iterator[tuple[int, int]]:
    """Its process and its port."""
    port = free_port()
    command = [sys.executable, "-m", "bench.http_app", name, str(port)]
    process = subprocess.Popen(
        [*processes.dies_with_us(), *command],
        cwd=_TESTS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _answers(port), _LIMIT_SECONDS, name)
        yield process.pid, port
    finally:
        children = processes.with_descendants([process.pid])
        processes.end(process, _LIMIT_SECONDS)
        wait_until(lambda: not [each for each in children if Path(f"/proc/{each}").exists()], 10, "its end")


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return web.get(port, "/openapi.json").status == 200
    return False


def _turn(process: int, port: int, words: bytes, requests: int) -> Turn:
    begun = time.perf_counter()
    milliseconds = _ask(port, words, requests)
    seconds = time.perf_counter() - begun
    held = sum(footprint.of(each).kilobytes for each in processes.with_descendants([process]))
    return Turn(requests / seconds, milliseconds, held / 1024)


class _Line:
    """One connection, and what has come of an answer."""

    def __init__(self, port: int, words: bytes) -> None:
        self.socket = socket.create_connection((web.HERE, port), _LIMIT_SECONDS)
        self._words = words
        self.ask()

    def ask(self) -> None:
        self.begun = time.perf_counter()
        self._answer = b""
        self.socket.sendall(self._words)

    def is_answered(self) -> bool:
        read = self.socket.recv(_READ_BYTES)
        assert read, "the server has closed"
        self._answer += read
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        return bool(end) and length is not None and len(body) >= int(length[1])


def _ask(port: int, words: bytes, count: int) -> list[float]:
    """Milliseconds of each of so many requests."""
    found: list[float] = []
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            line = _Line(port, words)
            stack.enter_context(line.socket)
            selector.register(line.socket, selectors.EVENT_READ, line)
        while len(found) < count:
            for key, _ in selector.select(_LIMIT_SECONDS):
                if key.data.is_answered():
                    found.append((time.perf_counter() - key.data.begun) * 1000)
                    key.data.ask()
    return found


def import_milliseconds(package: str) -> float:
    """Beyond Python's own start, the shortest of some."""

    def seconds(statement: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - begun

    shortest = [min(seconds(each) for _ in range(_IMPORTS)) for each in (f"import {package}", "pass")]
    return (shortest[0] - shortest[1]) * 1000


def packages(name: str) -> int:
    """How many come with it, itself included."""
    known: set[str] = set()
    waiting = [name]
    while waiting:
        known.add(each := waiting.pop().lower())
        for line in importlib.metadata.requires(each) or ():
            found = _NAME.match(line)
            is_needed = ";" not in line
            if found and is_needed and found[0].lower() not in known:
                waiting.append(found[0])
    return len(known)


def text(turns: Turns) -> str:
    """The result for people."""
    head = (
        "8 at once",
        "asked",
        "a second",
        "median, ms",
        "99 %, ms",
        "memory, MB",
        "import, ms",
        "packages",
    )
    rows = []
    for (name, asked), of_server in turns.items():
        milliseconds = sorted(each for turn in of_server for each in turn.milliseconds)
        rows.append(
            (
                name,
                asked,
                f"{statistics.median(turn.per_second for turn in of_server):.0f}",
                f"{statistics.median(milliseconds):.1f}",
                f"{milliseconds[int(len(milliseconds) * 0.99)]:.1f}",
                f"{max(turn.megabytes for turn in of_server):.0f}",
                f"{import_milliseconds(name):.0f}",
                f"{packages(name)}",
            )
        )
    return table.text(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.http_servers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each ({ROUNDS})")
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"of a turn ({REQUESTS})")
    given = parser.parse_args()
    print(text(measure(given.rounds, given.requests)))


if __name__ == "__main__":
    main()
