"""The stage `http` of `noojee-agi check`: each fault with its cure, and what is no fault."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from lab import certificates
from lab.certificates import Pair
from lab.site import PROGRAMS, Site

from noojee_agi import certificate
from noojee_agi.cli.check import http, server
from noojee_agi.cli.check.stage import Stage, look
from noojee_agi.config import Config


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("http") / "site")


@pytest.fixture
def site(lasting: Site) -> Site:
    lasting.configure()
    return lasting


@pytest.fixture(autouse=True)
def check_is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer for an answer than check waits for it."""
    monkeypatch.setattr(http, "_ANSWER_SECONDS", 20.0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("pair"), days=100)


def stage(site: Site) -> Stage:
    config = Config.load(str(site.conf))
    return look("http", lambda: http.check(config, "nobody", str(PROGRAMS)))


@pytest.fixture(autouse=True)
def usual_port_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have 8080 on this machine; nobody has 0, which is any that is free."""
    monkeypatch.setitem(server._USUAL_PORTS, "http", 0)


def configured(site: Site, listen: str = "127.0.0.1:0", options: dict[str, str] | None = None) -> Site:
    site.configure({"http.listen": listen, **(options or {})})
    return site


WITHOUT = "; without [manager] it starts and stops nothing"


def passes_later(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    later = SimpleNamespace(time=lambda: time.time() + days * 86400)
    monkeypatch.setattr(certificate, "time", later)


# --- before a server runs ---


def test_without_a_listen_there_is_nothing_to_look_at(site: Site) -> None:
    assert stage(site) == Stage("http", "ok", "not configured")


def lacks_only_a_server(found: Stage) -> bool:
    return found.has_failed and found.text.startswith("[http] listen is set, and no server runs")


def test_without_a_server_it_is_said_that_none_runs(site: Site, pair: Pair) -> None:
    found = stage(configured(site))
    assert lacks_only_a_server(found)
    assert found.cure == f"{PROGRAMS}/noojee-agi serve"
    assert lacks_only_a_server(stage(configured(site, "0.0.0.0:0", pair.options)))


def test_networks_that_are_none(site: Site) -> None:
    found = stage(configured(site, options={"http.allow": "192.0.2.0/33"}))
    assert found.has_failed
    assert "[http] allow: '192.0.2.0/33'" in found.text


def test_parts_that_are_not_installed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("uvicorn", "starlette") else real(name)
    )

    found = stage(configured(site))

    assert found.has_failed
    assert found.text.startswith("uvicorn, starlette: not installed: ")
    assert found.cure == f"{PROGRAMS}/pip install '.[web]' # in a checkout of noojee-agi"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_an_address_that_others_reach_without_a_certificate(site: Site, listen: str) -> None:
    found = stage(configured(site, listen))

    assert found.has_failed
    assert "without a certificate no server begins at " in found.text
    subprocess.run(["bash", "-c", found.cure], check=True)
    assert "[http]\nlisten = 127.0.0.1:0" in site.conf.read_text()
    assert lacks_only_a_server(stage(site))


@pytest.mark.parametrize("listen", ["nowhere.invalid:0", "192.0.2.1:0"])
def test_an_address_that_this_machine_has_not(site: Site, pair: Pair, listen: str) -> None:
    found = stage(configured(site, listen, pair.options if "192" in listen else {}))

    assert found.text.startswith(f"[http] listen = {listen} cannot be had (")
    subprocess.run(["bash", "-c", found.cure], check=True)
    assert lacks_only_a_server(stage(site))


def test_a_port_that_another_program_has(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        found = stage(configured(site, listen))
        assert found.text.startswith(f"[http] listen = {listen} cannot be had: another program has that port")
        subprocess.run(["bash", "-c", found.cure], check=True)

        assert lacks_only_a_server(stage(site))


@pytest.mark.parametrize("missing", ["certificate", "certificate_key"])
def test_one_of_the_two_files_alone(site: Site, pair: Pair, missing: str) -> None:
    options = {name: value for name, value in pair.options.items() if name != f"http.{missing}"}

    found = stage(configured(site, options=options))

    assert found.text.startswith(f"[http] {missing} is missing: ")
    assert found.cure == f"the line {missing} of [http] in {site.conf}"


@pytest.mark.parametrize("name", ["certificate", "certificate_key"])
def test_a_file_that_is_not_there(site: Site, pair: Pair, name: str) -> None:
    found = stage(configured(site, options={**pair.options, f"http.{name}": "/nonexistent/pbx.pem"}))

    assert found.text.startswith(f"[http] {name} = /nonexistent/pbx.pem is no file: ")
    assert found.cure == f"the line {name} of [http] in {site.conf}"


def test_a_key_that_asterisk_s_user_may_not_read(
    site: Site, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read all, so it is said here that it may not."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(pair.key) and real(path, mode))

    found = stage(configured(site, options=pair.options))

    assert found.text.startswith(f"{pair.key} cannot be read by user ")
    assert found.cure == f"chgrp nogroup {pair.key} && chmod 0640 {pair.key}"


def test_files_that_do_not_fit_or_are_none(site: Site, pair: Pair, tmp_path: Path) -> None:
    other = certificates.make(tmp_path, "other")
    locked = certificates.make(tmp_path, "locked", password="a password")

    def said(own: Path, key: Path) -> str:
        text = stage(configured(site, options=Pair(own, key).options)).text
        return text.partition(" is ")[2].partition(": ")[0]

    assert said(pair.certificate, other.key) == "the key of another certificate"
    assert said(pair.certificate, pair.certificate) == "no key in PEM without a password"
    assert said(locked.certificate, locked.key) == "no key in PEM without a password"
    assert said(pair.key, pair.key) == "no certificate in PEM"


def test_a_certificate_that_has_expired(site: Site, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    passes_later(monkeypatch, 101)

    found = stage(configured(site, options=pair.options))

    assert found.has_failed
    assert found.text.startswith(f"{pair.certificate} has expired: renew {pair.certificate}, then ")


def test_one_that_expires_soon_is_said_before_it_does_harm(
    site: Site, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes_later(monkeypatch, 90)

    found = stage(configured(site, options=pair.options))

    assert f"; {pair.certificate} expires in 10 days: renew it" in found.text


# --- while a server runs ---


class Answering(BaseHTTPRequestHandler):
    status = 200
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def answering(site: Site, pair: Pair | None = None, host: str = "127.0.0.1") -> Iterator[str]:
    """A server that has the Unix socket, and answers HTTP; where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    if pair:
        made = certificate.context(str(pair.certificate), str(pair.key))
        server.socket = made.wrap_socket(server.socket, server_side=True)
    listen = f"{host}:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        with running(configured(site, listen, pair.options if pair else {})):
            yield listen
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def running(site: Site) -> Iterator[None]:
    path = Config.load(str(site.conf)).socket_path
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(path)
        local.listen()
        try:
            yield
        finally:
            os.unlink(path)


@pytest.mark.parametrize("status", [200, 403])
def test_one_that_answers_is_asked_for_what_needs_no_key(
    site: Site, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answering, "status", status)
    monkeypatch.setattr(Answering, "asked", [])

    with answering(site) as listen:
        assert stage(site) == Stage("http", "ok", f"http://{listen} answers{WITHOUT}")

    assert Answering.asked == ["/openapi.json"]


def test_one_that_answers_by_tls_at_all_addresses(
    site: Site, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(site, pair, "0.0.0.0") as listen:
        assert stage(site) == Stage("http", "ok", f"https://{listen} answers{WITHOUT}")
        passes_later(monkeypatch, 99)
        assert "expires in 1 days: renew it" in stage(site).text


def test_another_program_that_answers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answering, "status", 404)

    with answering(site) as listen:
        found = stage(site)

    assert found.text.startswith(f"http://{listen} is another program: it answers 404: ")
    assert found.cure == f"kill {os.getpid()}"


def test_nobody_answers(site: Site, pair: Pair) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # nobody else can take it, and nobody is heard there
        configured(site, f"127.0.0.1:{nobody.getsockname()[1]}")
        with running(site):
            found = stage(site)
        assert found.has_failed
        assert " does not answer (Connection refused): " in found.text
        assert found.cure == f"kill {os.getpid()}"
    with answering(site) as listen:
        site.configure({"http.listen": listen, **pair.options})
        assert f"https://{listen} does not answer (" in stage(site).text


def test_one_that_says_nothing_is_not_waited_for_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        configured(site, f"127.0.0.1:{silent.getsockname()[1]}")
        with running(site):
            found = stage(site)

    assert " does not answer (timed out): " in found.text


def test_one_that_speaks_something_else(site: Site) -> None:
    def speak(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"Asterisk Call Manager/9.0.0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as other:
        thread = threading.Thread(target=speak, args=(other,))
        thread.start()
        configured(site, f"127.0.0.1:{other.getsockname()[1]}")
        with running(site):
            found = stage(site)
        thread.join()

    assert " does not answer (it does not speak HTTP): " in found.text
