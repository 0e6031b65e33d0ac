"""The stage `server` of `noojee-agi check`, with real servers that are well and ill."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import network_call
from lab.served import Served
from lab.site import PROGRAMS, Site
from lab.waiting import wait_until

from noojee_agi.cli import check, server_status
from noojee_agi.cli.check import Stage
from noojee_agi.config import Config


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    with Served(site) as running:
        yield running


def stage(site: Site) -> Stage:
    (found,) = [
        stage for stage in check.stages(Config.load(str(site.conf)), str(PROGRAMS)) if stage.name == "server"
    ]
    return found


def wait_for_trouble(served: Served, kind: str) -> None:
    wait_until(lambda: served.status()[kind], 30, kind)


def test_without_a_server_each_call_is_said_to_start_its_own_program(site: Site) -> None:
    assert stage(site) == Stage("server", True, "not running, each call starts its own program")


def test_a_server_that_is_well_tells_how_much_it_has_done(served: Served, site: Site) -> None:
    assert network_call.place(served.port, site.key).status == "200"
    wait_for_trouble(served, "drained_at")
    wait_until(lambda: served.status()["sessions"], 10, "the session's end")

    found = stage(site)

    assert found.is_ok
    assert found.text.startswith("1 sessions since 2")
    assert ", 0 running, 0 failed or sent away unheard; last drain 2" in found.text
    assert found.text.endswith(", 0 times the database was away")


def test_the_socket_of_a_server_that_was_killed_is_named(served: Served, site: Site) -> None:
    served.kill()

    found = stage(site)

    assert not found.is_ok
    assert found.text.startswith(f"{served.socket} is there, but nobody answers")
    assert found.text.endswith("start noojee-agi serve again")


def test_a_server_whose_database_is_away_says_since_when(served: Served, site: Site) -> None:
    served.configure({"database.url": "sqlite:////nonexistent/folder/noojee.db"})
    served.reload()
    assert network_call.place(served.port, site.key).status == "200"
    wait_for_trouble(served, "trouble_since")

    found = stage(site)

    assert not found.is_ok
    assert "1 times the database was away; away since 2" in found.text
    assert found.text.endswith(f"see {site.state_directory}/noojee-agi.log")


def test_a_server_that_cannot_renew_the_snapshot_says_how_old_it_is(served: Served, site: Site) -> None:
    """A database that can be written, and a snapshot that cannot."""
    site.snapshot.unlink()
    site.snapshot.mkdir()
    wait_for_trouble(served, "snapshot_trouble_since")

    found = stage(site)

    assert not found.is_ok
    assert "; apiKey and logins are those of 2" in found.text


def test_a_server_in_which_nobody_drains_says_so(
    served: Served, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stage(site).is_ok
    os.kill(served.drain_process, signal.SIGSTOP)
    try:
        monkeypatch.setattr(server_status, "_NO_DRAIN_SECONDS", 0.1)
        found = wait_until(lambda: next((s for s in [stage(site)] if not s.is_ok), None), 10, "a complaint")
    finally:
        os.kill(served.drain_process, signal.SIGCONT)

    assert found.text.endswith("and start noojee-agi serve again")
    assert ": nobody drains: see " in found.text
