"""HTTP of noojee-agi serve: its certificate, who may connect, starts that are refused, and its end."""

from __future__ import annotations

import contextlib
import http.client
import os
import pty
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import certificates, manager, network_call, processes, web
from lab.certificates import Pair
from lab.postgresql import free_port
from lab.served import Served
from lab.site import PROGRAMS, Site
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until

LISTEN = {"http.listen": "127.0.0.1:0", "log.level": "info"}
DOCUMENT = "/openapi.json"
START_SECONDS = 60.0
GOES_ON = "HTTP goes on with the configuration before"
STAYS = "the certificate before stays in use"
_FD = re.compile(r"socket:\[(\d+)\]")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    with Served(site, LISTEN) as running:
        yield running


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return certificates.make(tmp_path)


def client(pair: Pair) -> ssl.SSLContext:
    """One that trusts this certificate alone; it is for another name."""
    context = ssl.create_default_context(cafile=str(pair.certificate))
    context.check_hostname = False
    return context


@pytest.fixture
def safe(site: Site, pair: Pair) -> Iterator[Served]:
    """With TLS."""
    with Served(site, {**LISTEN, **pair.options}) as running:
        yield running
        assert "Traceback" not in running.site.log() + running.stderr


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One that is left as it is."""
    with Served(Site(tmp_path_factory.mktemp("asked") / "site"), LISTEN) as running:
        yield running


@pytest.fixture(scope="module")
def asked_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def asked_safely(tmp_path_factory: pytest.TempPathFactory, asked_pair: Pair) -> Iterator[Served]:
    """The same with TLS."""
    site = Site(tmp_path_factory.mktemp("safe") / "site")
    with Served(site, {**LISTEN, **asked_pair.options}) as running:
        yield running
        assert "Traceback" not in running.site.log() + running.stderr


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Where no server has come so far as to listen."""
    return Site(tmp_path_factory.mktemp("refusing") / "site")


def shown(served: Served) -> bytes | None:
    """The certificate that is served now."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", served.http_port), 10) as plain,
        anybody.wrap_socket(plain) as connection,
    ):
        return connection.getpeercert(binary_form=True)


def listening(port: int) -> list[int]:
    """The processes that hold this TCP port open."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inodes = {words[9] for words in lines if words[1].endswith(f":{port:04X}") and words[3] == "0A"}
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _holds(entry, inodes)
    ]


def _holds(process: Path, inodes: set[str]) -> bool:
    with contextlib.suppress(OSError):
        links = (os.readlink(entry) for entry in (process / "fd").iterdir())
        return any(found[1] in inodes for link in links if (found := _FD.fullmatch(link)))
    return False


def http_process(served: Served) -> int:
    """The child that listens at the port."""

    def found() -> list[int] | None:
        processes = [each for each in listening(served.http_port) if each != served.pid]
        return processes if len(processes) == 1 else None

    return wait_until(found, 30, "one process at the port")[0]


def test_a_browser_that_trusts_the_authority_is_served(asked_safely: Served, asked_pair: Pair) -> None:
    answer = web.get(asked_safely.http_port, DOCUMENT, client(asked_pair))
    assert answer.status == 200
    assert f"https://127.0.0.1:{asked_safely.http_port}" in asked_safely.stdout
    with pytest.raises(ssl.SSLCertVerificationError):
        web.get(asked_safely.http_port, DOCUMENT, ssl.create_default_context())


def test_who_speaks_without_tls_is_sent_away(asked_safely: Served) -> None:
    assert web.say(asked_safely.http_port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == b""


def test_tls_1_1_is_refused_and_1_2_is_not(asked_safely: Served, asked_pair: Pair) -> None:
    new = client(asked_pair)
    new.maximum_version = ssl.TLSVersion.TLSv1_2
    assert web.get(asked_safely.http_port, DOCUMENT, new).status == 200
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        web.get(asked_safely.http_port, DOCUMENT, old)


def test_a_renewed_certificate_is_served_after_sighup_and_a_broken_one_is_not(
    safe: Served, pair: Pair
) -> None:
    first, http = shown(safe), http_process(safe)
    certificates.make(pair.key.parent)
    assert shown(safe) == first

    safe.reload()
    wait_until(lambda: shown(safe) != first, 10, "the new certificate")
    second = shown(safe)
    certificates.make(pair.key.parent, "other").key.replace(pair.key)
    safe.reload()
    wait_until(lambda: STAYS in safe.site.log(), 10, "what is wrong to be said")

    assert shown(safe) == second
    assert "[http] certificate and certificate_key cannot be used" in safe.site.log()
    os.kill(http, signal.SIGKILL)
    wait_until(lambda: http_process(safe) != http, 20, "the next process")
    assert shown(safe) == second


def test_a_certificate_that_is_gone_stays_in_use(safe: Served, pair: Pair) -> None:
    first = shown(safe)
    pair.certificate.unlink()
    safe.reload()
    wait_until(lambda: STAYS in safe.site.log(), 10, "what is wrong to be said")
    assert shown(safe) == first


def test_from_http_to_https_it_takes_a_restart_and_the_log_says_so(served: Served, pair: Pair) -> None:
    served.configure(pair.options)
    served.reload()
    assert "whether there is TLS, change with a restart only" in served.site.log()
    assert web.get(served.http_port, DOCUMENT).status == 200


NOT_SAFE = "is not loopback, so it needs certificate and certificate_key"
Change = Callable[[Pair], dict[str, str]]


def _foreign_key(pair: Pair) -> dict[str, str]:
    certificates.make(pair.key.parent, "other").key.replace(pair.key)
    return pair.options


def _encrypted(pair: Pair) -> dict[str, str]:
    return certificates.make(pair.key.parent, password="secret").options


def _no_pem(pair: Pair) -> dict[str, str]:
    pair.certificate.write_bytes(b"\0" * 100)
    return pair.options


def _no_key(pair: Pair) -> dict[str, str]:
    return {"http.certificate": str(pair.certificate)}


def _no_certificate(pair: Pair) -> dict[str, str]:
    return {"http.certificate_key": str(pair.key)}


def _gone(pair: Pair) -> dict[str, str]:
    pair.key.unlink()
    return pair.options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (_no_key, "certificate and certificate_key go together"),
        (_no_certificate, "certificate and certificate_key go together"),
        (_foreign_key, "must be PEM, belong together, and need no password"),
        (_encrypted, "must be PEM, belong together, and need no password"),
        (_no_pem, "must be PEM, belong together, and need no password"),
        (_gone, "pbx.key': Asterisk's user must read it"),
        (
            lambda _: {"http.listen": "0.0.0.0:0"},
            NOT_SAFE,
        ),
        (lambda _: {"http.listen": "[::]:0"}, "is not loopback, so it needs certificate and certificate_key"),
        (lambda _: {"http.listen": ":8080"}, "must be address:port, or empty for no HTTP"),
        (lambda _: {"http.listen": "127.0.0.1:99999"}, "there is no port 99999: at most 65535"),
        (lambda _: {"http.listen": "192.0.2.1:0"}, "[http] listen = 192.0.2.1:0: "),
        (lambda _: {"http.allow": "192.0.2.1/24"}, "[http] allow: 192.0.2.1/24 has host bits set"),
        (lambda _: {"http.allow": "localhost"}, "must be networks such as 127.0.0.0/8, ::1"),
        (lambda _: {"http.allow_get": "1"}, "must be yes or no"),
    ],
)
def test_a_start_that_cannot_be_is_refused_with_what_to_do(
    refusing: Site, pair: Pair, options: Change, said: str
) -> None:
    assert said in refused(refusing, options(pair))
    assert not (refusing.state_directory / "agi.sock").exists()


def refused(site: Site, options: dict[str, str]) -> str:
    """The one line of a start that is refused."""
    site.configure({"server.listen": "127.0.0.1:0", "http.listen": "127.0.0.1:0", **options})
    done = site.run_cli("serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_port_that_is_in_use_is_named(asked: Served, refusing: Site) -> None:
    said = refused(refusing, {"http.listen": f"127.0.0.1:{asked.http_port}"})
    assert f"[http] listen = 127.0.0.1:{asked.http_port}: " in said
    assert "in use" in said


def test_the_same_port_twice_is_named(refusing: Site) -> None:
    port = free_port()
    said = refused(refusing, {"server.listen": f"127.0.0.1:{port}", "http.listen": f"127.0.0.1:{port}"})
    assert f"[http] listen = 127.0.0.1:{port}: " in said


def test_a_key_that_nobody_may_read_is_named(site: Site, pair: Pair) -> None:
    pair.key.chmod(0)
    words = [str(PROGRAMS / "noojee-agi"), "serve"]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            raise LabUnavailable("root reads every file, and there is no setpriv to give that up")
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *words]
    done = begin(site, pair.options, words, {})
    assert done.returncode == 1
    assert f"Permission denied: '{pair.key}': Asterisk's user must read it" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_the_extra_it_says_how_to_get_it(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['uvicorn'] = None\n")
    words = [str(PROGRAMS / "noojee-agi"), "serve"]
    done = begin(site, {}, words, {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == (
        "Error: [http] listen needs uvicorn, which is not installed: run agi/install --web, or"
        " pip install 'noojee-agi[web]'\n"
    )


def begin(
    site: Site, options: dict[str, str], words: list[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    site.configure({"server.listen": "127.0.0.1:0", "http.listen": "127.0.0.1:0", **options})
    return subprocess.run(
        words,
        env={**os.environ, **site.environment, **environment},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


def test_an_encrypted_key_does_not_have_the_terminal_asked(site: Site, pair: Pair) -> None:
    """With a terminal of its own, where OpenSSL would wait for a password."""
    site.configure({"server.listen": "127.0.0.1:0", **LISTEN, **_encrypted(pair)})
    program = str(PROGRAMS / "noojee-agi")
    process, terminal = pty.fork()
    if not process:
        os.execve(program, [program, "serve"], {**os.environ, **site.environment})
    said, deadline = b"", time.monotonic() + START_SECONDS
    with contextlib.suppress(OSError):  # EIO: nobody holds the terminal any more
        while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
            said += os.read(terminal, 4096)
    if time.monotonic() > deadline:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.close(terminal)
    assert (code, said.count(b"\n")) == (1, 1), said
    assert b"need no password" in said


def test_no_answer_waits_for_the_acknowledgement_of_its_head(asked: Served) -> None:
    """With Nagle's algorithm each but the first on a connection takes 40 ms (tcp(7), TCP_NODELAY)."""
    shortest = 1.0
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", asked.http_port, timeout=20)
    ) as connection:
        for _ in range(20):
            begun = time.perf_counter()
            connection.request("GET", DOCUMENT)
            connection.getresponse().read()
            shortest = min(shortest, time.perf_counter() - begun)
    assert shortest < 0.03


def test_a_thousand_who_come_at_once_find_room_in_the_queue(asked: Served) -> None:
    """Whoever finds none tries again after a second, then after three (tcp(7), tcp_syn_retries)."""
    words = ["ss", "--listening", "--tcp", "--numeric", "--no-header", f"sport = :{asked.http_port}"]
    if not shutil.which("ss"):
        raise LabUnavailable("no ss on this machine: apt-get install iproute2")
    assert web.get(asked.http_port, DOCUMENT).status == 200
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert int(said.split()[2]) == min(1024, most)


def test_an_address_that_is_not_allowed_is_refused_and_a_wrong_allow_leaves_it_so(site: Site) -> None:
    with Served(site, {**LISTEN, "http.allow": "192.0.2.0/24, ::1"}) as served:
        for path in (DOCUMENT, "/health", "/nothing"):
            answer = web.get(served.http_port, path)
            assert (answer.status, answer.json()["Code"]) == (403, -403)
            assert "[http] allow" in answer.json()["Message"]
        assert web.start(served.http_port, site.key).status == 403
        served.configure({"http.allow": "127.0.0.1/8"})
        served.reload()
        wait_until(lambda: GOES_ON in site.log(), 10, "what is wrong to be said")
        assert web.get(served.http_port, DOCUMENT).status == 403
        served.configure({"http.allow": "127.0.0.0/8"})
        served.reload()
        wait_until(lambda: web.get(served.http_port, DOCUMENT).status == 200, 10, "the new networks")


def test_who_it_is_says_a_proxy_on_this_machine_and_nobody_else_is_let_in(asked: Served) -> None:
    def of(address: str) -> int:
        return web.ask(asked.http_port, DOCUMENT, method="GET", headers={"X-Forwarded-For": address}).status

    assert of("192.0.2.1") == 403
    assert of("127.0.0.1") == 200
    assert of("x" * 1000) == 403


def test_nobody_but_the_process_for_http_holds_its_port(asked: Served) -> None:
    assert network_call.place(asked.port, asked.site.key).status == "200"
    assert http_process(asked) not in (asked.drain_process, *asked.workers())
    assert sorted(listening(asked.http_port)) == sorted([asked.pid, http_process(asked)])
    workers = set(asked.workers())
    assert set(listening(asked.port)) >= workers
    assert http_process(asked) not in listening(asked.port)


def test_a_killed_process_is_started_again(served: Served) -> None:
    before = http_process(served)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: "started again" in served.site.log(), 20, "another process")
    assert web.get(served.http_port, DOCUMENT).status == 200
    assert http_process(served) != before
    assert network_call.place(served.port, served.site.key).status == "200"


def refuses(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("is_killed", [False, True], ids=["SIGTERM", "its father killed"])
def test_at_the_end_a_start_that_is_under_way_is_answered(site: Site, is_killed: bool) -> None:
    """It waits for a manager interface that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as mute, contextlib.ExitStack() as stack:
        options = {**LISTEN, **manager.options(mute.getsockname()[1])}
        served = stack.enter_context(Served(site, {**options, "recordings.follow": "no"}))
        everybody = processes.children(served.pid)
        asked = f"{web.CALLS}/start?extenOrUniqueId=410&apiKey={site.key}"
        caller = stack.enter_context(socket.create_connection(("127.0.0.1", served.http_port), 20))
        caller.sendall(f"POST {asked} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        stack.enter_context(mute.accept()[0])
        if is_killed:
            os.kill(served.pid, signal.SIGKILL)
        else:
            served.terminate()
        wait_until(lambda: refuses(served.http_port), 10, "a port that is given back")
        ((status, headers),) = web.heads(web.said(caller))

        assert status == 503
        assert "no-store" in headers
        wait_until(lambda: not set(everybody) & set(alive(everybody)), 20, "the end of all processes")
        assert "start_record 503" in site.log()
        assert "Traceback" not in site.log() + served.stderr


def alive(some: list[int]) -> list[int]:
    def state(process: int) -> str:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return "X"

    return [process for process in some if state(process) not in "ZX"]


def test_at_the_end_nobody_waits_for_who_says_nothing(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        half = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"
        whole = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
        for words in (b"", b"GET / HTTP/1.1\r\nHo", half, whole) * 5:
            each = stack.enter_context(socket.create_connection(("127.0.0.1", served.http_port), 20))
            each.sendall(words)
        begun = time.monotonic()
        assert served.stop() == 0
    assert time.monotonic() - begun < 8
