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
START_SECONDS = 20.0
STOP_SECONDS = 10.0
BACKLOG_SECONDS = 120.0
_PEER_KEY = "a-key-of-the-peers"
# The callers run no end command. Their legs must not be taken for silent ones during somebody's later turn.
_END_LEGS = """\
UPDATE recording_leg SET status = 'completed', ended_at = started_at, duration_seconds = 0, bytes = 44
WHERE status = 'recording'"""


@dataclass(frozen=True)
class Server:
    """One that listens. table: has a row for each recording; spool: where they wait for that, if they do."""

    name: str
    port: int
    key: str
    process: int
    recordings: Path
    database: Path
    table: str
    spool: Path | None = None

    def stored(self) -> int:
        """Recordings in the database."""
        return int(self._in_database(f"SELECT count(*) FROM {self.table}")[0][0])

    def wait_until_stored(self, count: int) -> None:
        """Until so many recordings are in the database, and nothing waits for it."""

        def is_done() -> bool:
            return not self._has_backlog() and self.stored() >= count

        wait_until(is_done, BACKLOG_SECONDS, f"{count} recordings of {self.name} in its database")

    def forget(self) -> None:
        """End what records, and remove the files, without any work for the server: the disk is small."""
        if self.spool is not None:
            self._in_database(_END_LEGS)
        for file in self.recordings.rglob("[0-9]*"):
            if file.suffix in (".wav", ".json") and file.parent != self.spool:
                file.unlink()

    def cpu_seconds(self) -> float:
        """What its processes have used until now, with their children that have ended."""
        return processor.seconds([self.process])

    def _has_backlog(self) -> bool:
        return self.spool is not None and any(name.endswith(".json") for name in os.listdir(self.spool))

    def _in_database(self, statement: str) -> list[tuple[int]]:
        opened = sqlite3.connect(self.database, timeout=START_SECONDS)
        with contextlib.closing(opened) as connection, connection:
            return connection.execute(statement).fetchall()


@contextlib.contextmanager
def peer(name: str, where: Places, forces_commits: bool = True) -> Iterator[Server]:
    """One of PEERS; forces_commits: to the disk, as ours does (SQLite's synchronous = FULL, else NORMAL)."""
    title = name if forces_commits else f"{name}, commits not forced"
    folder_name = name if forces_commits else f"{name}-not-forced"  # a MixMonitor's file has no comma
    folder, database, port = where.memory / folder_name, where.disk / f"{folder_name}.db", free_port()
    recordings, output = folder / "recordings", folder / "output"
    recordings.mkdir(parents=True)
    words = [str(port), str(recordings), str(database), _PEER_KEY, "FULL" if forces_commits else "NORMAL"]
    command = [sys.executable, "-B", "-m", f"bench.peers.{name}_server", *words]

    def is_ready() -> bool:
        return output.read_text().startswith("ready\n")

    with _running(command, dict(os.environ), output, is_ready) as process:
        yield Server(title, port, _PEER_KEY, process, recordings, database, "recording")


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
        spool = recordings / ".spool"
        spool.mkdir(exist_ok=True)
        yield Server(OURS, port, site.key, process, recordings, database, "recording_leg", spool)


@contextlib.contextmanager
def all_of_them(where: Places) -> Iterator[list[Server]]:
    """Every server, all at once; also the fastest peer without what makes a commit last."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(peer(name, where)) for name in PEERS]
        generous = stack.enter_context(peer(PEERS[0], where, forces_commits=False))
        yield [stack.enter_context(ours(where)), *peers, generous]


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
