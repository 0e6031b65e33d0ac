"""How long a start from outside takes: by HTTP, by `noojee-agi record start`, and by AMI alone, side by side.

python -m bench.http_start (in tests/) prints the table. Real Asterisk, a live call for each start; the ways
take turns, and what a turn has begun is stopped before the next. AMI alone is MixMonitor and no more: no key,
no row, no look at which call is meant.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lab import asterisk, manager, web
from lab.asterisk import PrivateAsterisk
from lab.postgresql import free_port
from lab.served import Served
from lab.site import PROGRAMS, Site
from lab.waiting import wait_until

from bench import places, table
from bench.places import Places

HTTP, COMMAND, AMI = "HTTP", "noojee-agi record start", "AMI alone"
WAYS = (HTTP, COMMAND, AMI)
AT_ONCE, ROUNDS = (1, 8, 32), 4
STARTS, COMMANDS = 32, 8  # of a way in a turn; a command takes long
_LIMIT_SECONDS = 30.0
_READ_BYTES = 65536
_DIALPLAN = """
[globals]
apiKey={key}
[idle]
exten => s,1,Answer()
 same => n,Wait(3600)
"""

Milliseconds = Mapping[tuple[str, int], Sequence[float]]


@dataclass(frozen=True)
class Live:
    """One call: by its uniqueid, and by its channel."""

    uniqueid: str
    channel: str


class Office:
    """An Asterisk with live calls, and our server beside it."""

    def __init__(self, running: PrivateAsterisk, served: Served, manager_port: int, calls: int) -> None:
        self._served = served
        self._manager_port = manager_port
        running.originate_at_once([("s@idle/n", "s@idle")] * calls)
        wait_until(lambda: len(_live(running)) >= calls, 60, "the live calls")
        self.calls = _live(running)[:calls]
        self._environment = {**served.site.environment, "NOOJEE_AGI_KEY": served.site.key}

    def start(self, way: str, call: Live) -> float:
        """Milliseconds until it is told that it records."""
        begun = time.perf_counter()
        if way == HTTP:
            answer = web.start(self._served.http_port, self._served.site.key, call.uniqueid)
            assert answer.status == 200, answer
        elif way == COMMAND:
            self._command("start", call)
        else:
            self._ask_manager("MixMonitor", call, File=f"{call.uniqueid}.wav")
        return (time.perf_counter() - begun) * 1000

    def stop(self, way: str, call: Live) -> None:
        if way == AMI:
            self._ask_manager("StopMixMonitor", call)
        else:
            fields = {"extenOrUniqueId": call.uniqueid, "apiKey": self._served.site.key}
            assert web.ask(self._served.http_port, f"{web.CALLS}/stop", fields).status == 200

    def _command(self, what: str, call: Live) -> None:
        words = [str(PROGRAMS / "noojee-agi"), "record", what, call.uniqueid]
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def _ask_manager(self, action: str, call: Live, **fields: str) -> None:
        """As a client that connects for each of its actions, as our server does for each session."""
        with socket.create_connection((web.HERE, self._manager_port), _LIMIT_SECONDS) as connection:
            stream = connection.makefile("rb")
            with stream:
                stream.readline()
                _act(connection, Action="Login", Username=manager.USER, Secret=manager.SECRET, Events="off")
                assert _success(stream)
                _act(connection, Action=action, Channel=call.channel, **fields)
                assert _success(stream)


def _act(connection: socket.socket, **fields: str) -> None:
    connection.sendall("".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode() + b"\r\n")


def _success(stream: Iterator[bytes]) -> bool:
    """Of the next response; events come between."""
    found = False
    for line in stream:
        found = found or line.startswith(b"Response: ")
        if line.startswith(b"Response: Error"):
            return False
        if found and line == b"\r\n":
            return True
    return False


def _live(running: PrivateAsterisk) -> list[Live]:
    """One half of each call."""
    lines = (line.split("!") for line in running.rx("core show channels concise").splitlines())
    return [Live(words[-1], words[0]) for words in lines if words[0].endswith(";1")]


@contextlib.contextmanager
def office(where: Places, calls: int = STARTS) -> Iterator[Office]:
    """Raises LabUnavailable."""
    port = free_port()
    site = Site(where.memory / "start", f"sqlite:///{where.disk}/start.db", has_loaded_drains=False)
    options = {**manager.options(port), "http.listen": "127.0.0.1:0", "log.level": "info"}
    with (
        Served(site, options) as served,
        PrivateAsterisk(
            asterisk.find(22),
            where.memory / "asterisk",
            _DIALPLAN.format(key=site.key),
            {"manager.conf": manager.manager_conf(port)},
            site.environment,
            site.agi_directory,
            verbose=0,
        ) as running,
    ):
        yield Office(running, served, port, calls)


def measure(
    at: Office,
    rounds: int = ROUNDS,
    at_once: Sequence[int] = AT_ONCE,
    starts: int = STARTS,
    commands: int = COMMANDS,
) -> Milliseconds:
    """By way and by how many at once, after a first start of each that does not count."""
    found: dict[tuple[str, int], list[float]] = {}
    for way in WAYS:
        _turn(at, way, 1, 1)
    for _ in range(rounds):
        for count in at_once:
            for way in WAYS:
                calls = commands if way == COMMAND else starts
                found.setdefault((way, count), []).extend(_turn(at, way, count, calls))
    return found


def _turn(at: Office, way: str, at_once: int, starts: int) -> list[float]:
    calls = at.calls[:starts]
    with ThreadPoolExecutor(at_once) as threads:
        milliseconds = [*threads.map(lambda call: at.start(way, call), calls)]
        [*threads.map(lambda call: at.stop(way, call), calls)]
    return milliseconds


def ratio(found: Milliseconds, at_once: int, way: str, other: str) -> float:
    """Of the medians."""
    return statistics.median(found[way, at_once]) / statistics.median(found[other, at_once])


def p99(milliseconds: Sequence[float]) -> float:
    return sorted(milliseconds)[int(len(milliseconds) * 0.99)]


def text(found: Milliseconds) -> str:
    """The result for people."""
    head = ("a start", "at once", "median, ms", "99 %, ms", "÷ AMI alone", "÷ record start")
    rows = [
        (
            way,
            f"{at_once}",
            f"{statistics.median(milliseconds):.1f}",
            f"{p99(milliseconds):.1f}",
            *(
                f"{ratio(found, at_once, way, other):.2f}" if (other, at_once) in found else "-"
                for other in (AMI, COMMAND)
            ),
        )
        for (way, at_once), milliseconds in sorted(found.items(), key=lambda item: item[0][1])
    ]
    return table.text(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.http_start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of {STARTS} starts ({ROUNDS})")
    rounds = parser.parse_args().rounds
    with places.make() as where, office(where) as at:
        print(text(measure(at, rounds)))


if __name__ == "__main__":
    main()
