"""The stage `server` of `noojee-agi check`, with real servers that are well and ill."""

from __future__ import annotations

import copy
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import network_call, processes
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until

from noojee_agi.cli.check import server
from noojee_agi.cli.check.stage import Stage, look
from noojee_agi.config import Config
from noojee_agi.server import about


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture(autouse=True)
def check_is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer for an answer than check waits for it."""
    monkeypatch.setattr(server, "_ANSWER_SECONDS", 20.0)


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    with Served(site) as running:
        yield running


def stage(site: Site) -> Stage:
    return look("server", lambda: server.check(Config.load(str(site.conf))))


def wait_for_trouble(served: Served, kind: str) -> None:
    wait_until(lambda: served.status()[kind], 30, kind)


def test_without_a_server_each_call_is_said_to_start_its_own_program(site: Site) -> None:
    assert stage(site) == Stage("server", "ok", "not running, each call starts its own program")


def test_a_server_that_is_well_tells_how_much_it_has_done(served: Served, site: Site) -> None:
    assert network_call.place(served.port, site.key).status == "200"
    wait_for_trouble(served, "drained_at")
    wait_until(lambda: served.status()["sessions"], 10, "the session's end")

    found = stage(site)

    assert not found.has_failed
    assert found.text.startswith("1 sessions since 2")
    assert ", 0 running, 0 failed or sent away unheard; last drain 2" in found.text
    assert found.text.endswith(", 0 times the database was away")


def test_the_socket_of_a_server_that_was_killed_is_named(served: Served, site: Site) -> None:
    served.kill()

    found = stage(site)

    assert found.has_failed
    assert found.text.startswith(f"{served.socket} is there, but nobody answers")
    assert found.cure == f"rm {served.socket}"
    Path(found.cure.partition(" ")[2]).unlink()
    assert stage(site).text.startswith("not running")


def test_a_server_whose_database_is_away_says_since_when(served: Served, site: Site) -> None:
    served.stop()
    served.start()  # now with a port of its own
    served.configure({"database.url": "sqlite:////nonexistent/folder/noojee.db"})
    served.reload()
    assert network_call.place(served.port, site.key).status == "200"
    wait_for_trouble(served, "trouble_since")

    found = stage(site)

    assert found.has_failed
    assert "1 times the database was away; away since 2" in found.text
    assert f"see {site.state_directory}/noojee-agi.log: kill {served.pid}" in found.text


def test_a_server_that_cannot_renew_the_snapshot_says_how_old_it_is(served: Served, site: Site) -> None:
    """A database that can be written, and a snapshot that cannot."""
    site.snapshot.unlink()
    site.snapshot.mkdir()
    network_call.place(served.port, "a wrong key")  # for which the database is asked at once
    wait_for_trouble(served, "snapshot_trouble_since")

    found = stage(site)

    assert found.has_failed
    assert "; apiKey and logins are those of 2" in found.text


def test_a_server_in_which_nobody_drains_says_so(
    served: Served, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not stage(site).has_failed
    os.kill(served.drain_process, signal.SIGSTOP)
    try:
        monkeypatch.setattr(server, "_NO_DRAIN_SECONDS", 0.1)
        found = wait_until(lambda: next((s for s in [stage(site)] if s.has_failed), None), 10, "a complaint")
    finally:
        os.kill(served.drain_process, signal.SIGCONT)

    assert found.cure == f"kill {served.pid}"
    assert ": nobody drains: see " in found.text


# --- faults of a server that runs, each with its cure as it is printed ---


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One for all of these: to make it takes longer than they do."""
    return Site(tmp_path_factory.mktemp("lasting") / "site")


@pytest.fixture
def running(lasting: Site) -> Iterator[Served]:
    with Served(lasting) as started:
        yield started


def cured(lasting: Site, words: str) -> Stage:
    found = stage(lasting)
    assert found.has_failed
    assert words in found.text
    subprocess.run(["bash", "-c", found.cure], check=True)
    wait_until(lambda: not stage(lasting).has_failed, 30, "the cure to work", lambda: stage(lasting))
    return found


def test_an_older_server_than_the_program_that_is_installed(
    running: Served, lasting: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(about, "program", lambda: "a later one")

    cured(lasting, "the server runs another noojee-agi than the one that is installed now")


def test_a_server_that_has_not_read_the_configuration_again(running: Served, lasting: Site) -> None:
    running.stop()
    running.start()
    running.configure({"recordings.format": "gsm"})

    found = cured(lasting, "has changed since the server has read it")

    assert found.cure == f"kill -HUP {running.pid}"


def test_a_server_that_listens_elsewhere_than_it_should_by_now(running: Served, lasting: Site) -> None:
    running.configure({"server.listen": "127.0.0.2:0"})

    cured(lasting, "listen, socket, threads or TLS has changed since the server began")


def test_a_server_that_has_read_another_file(running: Served, lasting: Site, tmp_path: Path) -> None:
    other = tmp_path / "noojee_agi.conf"
    other.write_text(lasting.conf.read_text())
    reader = copy.copy(lasting)
    reader.conf = other

    cured(reader, "so no call is handed over")


def test_a_server_that_is_frozen(running: Served, lasting: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_ANSWER_SECONDS", 0.3)
    for process in [running.pid, *processes.children(running.pid)]:
        os.kill(process, signal.SIGSTOP)

    cured(lasting, "is there, but nobody answers (timed out)")


def test_a_file_where_the_socket_should_be(lasting: Site) -> None:
    (lasting.state_directory / "agi.sock").touch()

    cured(lasting, "is there, but nobody answers")


def test_a_port_that_another_program_has(lasting: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        lasting.configure({"server.listen": address})

        found = cured(lasting, f"[server] listen = {address} cannot be had: another program has that port")

    assert found.cure.startswith("sed -i ")


@pytest.mark.parametrize("listen", ["203.0.113.9:4573", "nowhere.invalid:4573"])
def test_an_address_that_this_machine_has_not(lasting: Site, listen: str) -> None:
    lasting.configure({"server.listen": listen})

    found = stage(lasting)

    assert found.text.startswith(f"[server] listen = {listen} cannot be had (")
    subprocess.run(["bash", "-c", found.cure], check=True)
    assert "listen = 127.0.0.1:4573" in lasting.conf.read_text()


def test_no_secret_is_told_by_a_server(running: Served, lasting: Site) -> None:
    running.configure({"manager.secret": "hunter2"})
    running.reload()

    assert "hunter2" not in str(running.status())
