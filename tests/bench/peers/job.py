"""What each of the peers does for a call, AGI apart: the key, the file's name, one row in SQLite."""

from __future__ import annotations

import argparse
import hmac
import sqlite3
import threading
import time

TABLE = """\
CREATE TABLE IF NOT EXISTS recording (
    id INTEGER PRIMARY KEY, uniqueid TEXT, channel TEXT, source TEXT, destination TEXT, tag TEXT, file TEXT,
    started_at REAL
)"""
INSERT = """\
INSERT INTO recording (uniqueid, channel, source, destination, tag, file, started_at)
VALUES (?, ?, ?, ?, ?, ?, ?)"""
LOCK_SECONDS = 5


class Job:
    """One connection stays open for all calls and threads, and each INSERT is a transaction of its own.

    Each commit is forced to the disk, which is SQLite's default and our own store's.
    """

    def __init__(self, folder: str, database: str, key: str) -> None:
        self._folder = folder
        self._key = key.encode()
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            database, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(TABLE)

    def is_key(self, asked: str | None) -> bool:
        return hmac.compare_digest((asked or "").encode(), self._key)

    def file(self, uniqueid: str) -> str:
        return f"{self._folder}/{uniqueid}.wav"

    def store(self, uniqueid: str, channel: str, source: str, destination: str, tag: str, file: str) -> None:
        """Insert and commit."""
        with self._lock:
            self._connection.execute(INSERT, (uniqueid, channel, source, destination, tag, file, time.time()))


def from_arguments() -> tuple[int, Job]:
    """The port to listen on, and the job, by the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    for name in ("folder", "database", "key"):
        parser.add_argument(name)
    given = parser.parse_args()
    return given.port, Job(given.folder, given.database, given.key)


def tell_ready() -> None:
    """The server listens."""
    print("ready", flush=True)
