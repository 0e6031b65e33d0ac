"""Wrong keys beside a database that does not answer: one process asks it, however many calls come."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import processes
from lab.site import Site
from lab.waiting import wait_until

from noojee_agi.config import Config
from noojee_agi.recordings import snapshot
from noojee_agi.session import background
from noojee_agi.sync import renew_snapshot

CALLS = 4


@pytest.fixture
def silent_database(tmp_path: Path) -> Iterator[Config]:
    """A site whose PostgreSQL takes connections and says nothing."""
    site = Site(tmp_path / "site")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"postgresql+psycopg2://a:b@127.0.0.1:{silent.getsockname()[1]}/noojee"
        site.configure({"database.url": url})
        yield Config.load(str(site.conf))
    wait_until(lambda: not readers(site.conf), 2 * renew_snapshot.READ_SECONDS, "the end of all readers")


def readers(conf: Path) -> list[int]:
    marks = (os.fsencode(conf), b"noojee_agi.sync.renew_snapshot")
    return [pid for pid, words in processes.told("cmdline") if all(mark in words for mark in marks)]


def test_one_process_at_a_time_asks_the_database(silent_database: Config) -> None:
    begun = time.monotonic()
    for _ in range(CALLS):
        background.read_database(silent_database)
        assert len(readers(Path(silent_database.path))) == 1
    assert time.monotonic() - begun >= CALLS * background.READ_WITHIN_SECONDS, "each has waited its second"


def test_a_reader_that_another_call_has_started_serves_this_one(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    known = Config.load(str(site.conf))
    site.snapshot.unlink()
    first = background._start_reader(known)
    assert first
    assert not background._start_reader(known), "two at a time"

    wait_until(lambda: os.waitpid(first, os.WNOHANG)[0], 20, "the first reader")

    assert snapshot.load(known.snapshot_file) is not None
    second = background._start_reader(known)
    assert second, "the lock goes with its holder"
    os.waitpid(second, 0)
