"""What /metrics sees of a real installation: its disk, its spools, and its legs that are open."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from lab.site import Site
from unit import fakes

from noojee_agi.config import Config
from noojee_agi.recordings import history, recording, rejected, spool
from noojee_agi.recordings.recording import Leg
from noojee_agi.server.counters import Counters
from noojee_agi.server.drain_process import DrainProcess
from noojee_agi.web.gauges import Gauges
from noojee_agi.web.readings import Readings


@pytest.fixture
def known(tmp_path: Path) -> Config:
    return Config.load(str(Site(tmp_path / "site").conf))


@pytest.fixture
def counters() -> Counters:
    return Counters(1)


@pytest.fixture
def drain_process(known: Config, counters: Counters) -> DrainProcess:
    return DrainProcess(lambda: known, known, -1, -1, counters, [])


def read(known: Config) -> Readings:
    return asyncio.run(Gauges(lambda: known, Counters(1).counted).read())


def begun(known: Config, minutes_ago: float = 0, server: str = "") -> Leg:
    """A leg whose file nobody writes yet, and its event."""
    started = recording.now() - timedelta(minutes=minutes_ago)
    leg_id = recording.new_id()
    file = recording.file_path(known.recordings_directory, "1.2", leg_id, "wav", started)
    name = server or known.server_name
    leg = fakes.leg(id=leg_id, server=name, call_uniqueid=f"{name}-1.2", file=file, started_at=started)
    spool.put(known.spool_directory, leg)
    return leg


def test_what_waits_is_counted_with_the_age_of_the_oldest(known: Config) -> None:
    assert (found := read(known).disk)
    assert (found.waiting, found.oldest_seconds, found.rejected) == (0, 0.0, 0)
    assert 0 < found.free_bytes < found.bytes
    begun(known, minutes_ago=2)
    begun(known)
    rejected.set_aside(known.spool_directory, b'{"kind": "?"}', "nobody knows it")

    found = read(known).disk

    assert found
    assert (found.waiting, found.rejected) == (2, 1)
    assert 120 <= found.oldest_seconds < 150


def test_what_waits_where_recordings_were_kept_before_is_counted_too(known: Config, tmp_path: Path) -> None:
    begun(known)
    history.remember(known.state_directory, known.server_name, known.recordings_directory)
    (tmp_path / "elsewhere").mkdir()
    moved = known._replace(recordings_directory=str(tmp_path / "elsewhere"))
    begun(moved)

    found = read(moved).disk

    assert found
    assert found.waiting == 2


def test_a_disk_that_is_not_the_one_that_was_used_is_not_up(known: Config) -> None:
    begun(known)
    history.remember(known.state_directory, known.server_name, known.recordings_directory)
    Path(known.recordings_directory).rename(f"{known.recordings_directory}.mounted")
    Path(known.recordings_directory).mkdir()

    readings = read(known)

    assert (readings.disk, readings.open_legs) == (None, 0)


def test_open_legs_are_those_of_this_server(
    known: Config, drain_process: DrainProcess, counters: Counters
) -> None:
    for server in ("", "", "another"):
        begun(known, server=server)
    assert drain_process._run_own(known).stored == 3
    drain_process._run_own(known)  # which finds nothing, and is none

    assert read(known).open_legs == 2
    assert sum(counters.counted().drains.counts) == 1
    assert 0 < counters.counted().drains.sum < 10


def test_a_database_that_is_away_hides_nothing_else(known: Config) -> None:
    readings = read(known._replace(database_url="sqlite:////nonexistent/folder/noojee.db"))

    assert readings.open_legs is None
    assert readings.disk
