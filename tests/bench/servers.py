"""The FastAGI servers that are measured: the peers, and `noojee-agi serve`."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import processes
from lab.postgresql import free_port
from lab.site import PROGRAMS, Site
from lab.waiting import wait_until

from bench import processor
from bench.places import Places

TESTS = Path(__file__).parents[1]
PEERS = ("panoramisk", "pystrix", "pyst2")
OURS = "noojee-agi"
CEILING = "the client's own ceiling"
START_SECONDS = 20.0
STOP_SECONDS = 10.0
BACKLOG_SECONDS = 120.0
_AT_ONCE_SECONDS = 0.1
_PEER_KEY = "a-key-of-the-peers"
_OUR_TABLE = "recording_leg"
_SPOOL = ".spool"
# The callers run no end command. Their legs must not be taken for silent ones during somebody's later turn.
_END_LEGS = """\
UPDATE recording_leg SET status = 'completed', ended_at = started_at, duration_seconds = 0, bytes = 44
WHERE status = 'recording'"""


@dataclass(frozen=True)
class Server:
    """One that listens. table: has a row for each recording; a server without a database has none."""

    name: str
    port: int
    key: str
    process: int
    recordings: Path
    database: Path
    table: str

    def stored(self) -> int:
        """Recordings in the database."""
        return int(self._in_database(f"SELECT count(*) FROM {self.table}")[0][0]) if self.table else 0

    def wait_until_stored(self, count: int) -> None:
        """Until so many recordings are in the database."""
        if self.table:
            what = f"{count} recordings of {self.name} in its database"
            wait_until(lambda: self.stored() >= count, BACKLOG_SECONDS, what)

    def rest(self) -> None:
        """Wait until it does nothing any more, whatever it has left for later: of the others, nothing."""
        still = processor.STILL_SECONDS if self.table == _OUR_TABLE else _AT_ONCE_SECONDS
        processor.wait_until_still(lambda: [self.process], BACKLOG_SECONDS, still)

    def forget(self) -> None:
        """End what records, and remove the files, without any work for the server: the place is small."""
        if self.table == _OUR_TABLE:
            self._in_database(_END_LEGS)
        for file in self.recordings.rglob("[0-9]*"):
            if file.suffix in (".wav", ".json") and _SPOOL not in file.parts:
                file.unlink()

    def cpu_seconds(self) -> float:
        """What its processes have used until now, with their children that have ended."""
        return processor.seconds([self.process])

    def _in_database(self, statement: str) -> list[tuple[int]]:
        opened = sqlite3.connect(self.database, timeout=START_SECONDS)
        with contextlib.closing(opened) as connection, connection:
            return connection.execute(statement).fetchall()


@contextlib.contextmanager
def peer(name: str, where: Places) -> Iterator[Server]:
    """One of PEERS. It forces its commits to the disk, as ours does: SQLite's synchronous = FULL."""
    folder, database, port = where.memory / name, where.disk / f"{name}.db", free_port()
    recordings, output = folder / "recordings", folder / "output"
    recordings.mkdir(parents=True)
    words = [str(port), str(recordings), str(database), _PEER_KEY]
    command = [sys.executable, "-B", "-m", f"bench.peers.{name}_server", *words]
    with _running(command, dict(os.environ), output, lambda: _is_ready(output)) as process:
        yield Server(name, port, _PEER_KEY, process, recordings, database, "recording")


@contextlib.contextmanager
def instant(where: Places, program: Path) -> Iterator[Server]:
    """`program` is instant_server.c's: it asks for the key, says MixMonitor and 200, and that is all."""
    folder, port = where.memory / "instant", free_port()
    recordings, output = folder / "recordings", folder / "output"
    recordings.mkdir(parents=True)
    command = [str(program), str(port), str(recordings)]
    with _running(command, dict(os.environ), output, lambda: _is_ready(output)) as process:
        yield Server(CEILING, port, _PEER_KEY, process, recordings, folder, table="")


@contextlib.contextmanager
def ours(where: Places) -> Iterator[Server]:
    """`noojee-agi serve` on SQLite."""
    database, port = where.disk / f"{OURS}.db", free_port()
    site = Site(where.memory / OURS, f"sqlite:///{database}")
    site.configure({"server.listen": f"127.0.0.1:{port}", "log.level": "info"})
    site.cli("account", "add", "Fred")

    def is_ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    command = [str(PROGRAMS / "noojee-agi"), "serve"]
    with _running(command, site.environment, site.folder / "output", is_ready) as process:
        recordings = site.recordings_directory
        yield Server(OURS, port, site.key, process, recordings, database, _OUR_TABLE)


@contextlib.contextmanager
def all_of_them(where: Places, instant_server: Path | None) -> Iterator[list[Server]]:
    """Every server, all at once; with that program also the one that shows what the client can do."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(ours(where))]
        found += [stack.enter_context(peer(name, where)) for name in PEERS]
        if instant_server:
            found.append(stack.enter_context(instant(where, instant_server)))
        yield found


def _is_ready(output: Path) -> bool:
    return output.read_text().startswith("ready\n")


@contextlib.contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], output: Path, is_ready: Callable[[], bool]
) -> Iterator[int]:
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*processes.dies_with_us(), *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=TESTS,
            env={**environment},
        )
    try:
        wait_until(lambda: is_ready() or process.poll() is not None, START_SECONDS, " ".join(command))
        assert process.poll() is None, f"{' '.join(command)}: {output.read_text()}"
        yield process.pid
    finally:
        processes.end(process, STOP_SECONDS)
