"""FastAGI peers without a key, of every kind and many at once: no right call waits for them."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator

import pytest
from bench.call import Call
from bench.callers import Callers
from lab import footprint, network_call
from lab.bad_company import KINDS, bad_company
from lab.flood import flood
from lab.network_call import NetworkCall
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until

from noojee_agi.server import admission, fastagi
from noojee_agi.session import handoff

Tell = Callable[[str], None]

PROGRAMS = 64
OTHER, SAME = "127.0.0.2", "127.0.0.1"
CALLS = 50
ATTEMPTS = 5  # other work on the machine may spoil some
MOST = 5.0  # times as long, with the peers' own work on the same two processors; it was 1 000 and more
# Those that held calls up, and every kind in its largest number.
SOME = [("dripping reply", 20, OTHER), ("silent after environment", 320, OTHER)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    site = Site(tmp_path_factory.mktemp("strangers") / "site")
    with Served(site, {"log.level": "info"}) as running:
        assert network_call.place(running.port, site.key).status == "200"
        running.wait_for("sees_ends", 1)
        running.wait_for_workers()
        yield running


def median(served: Served) -> float:
    """Of so many calls, in milliseconds; all of them are recorded."""
    outcome = Callers(served.port, served.site.key).place(CALLS, 1)
    assert not outcome.failures
    return statistics.median(outcome.milliseconds)


@pytest.mark.parametrize(
    ("kind", "count", "address"),
    [*SOME, *((kind, 1000, SAME) for kind in KINDS)],
)
def test_no_peer_without_a_key_keeps_a_right_call_waiting(
    served: Served, kind: str, count: int, address: str, tell: Tell
) -> None:
    """From another address than the right calls, and from the same one. Whom peers hold up, they hold up in
    each attempt; other work on the machine makes now the one slow and now the other.
    """
    median(served)
    slowest_alone, quickest_beside = 0.0, math.inf
    for _ in range(ATTEMPTS):
        slowest_alone = max(slowest_alone, median(served))
        with bad_company(served.port, kind, count, address):
            quickest_beside = min(quickest_beside, median(served))
        share = quickest_beside / slowest_alone
        if share < MOST:
            break

    tell(f"a call beside {count} {kind} from {address}: {share:.2f} times as long")
    assert share < MOST


def test_a_peer_that_spreads_its_bytes_has_no_more_time_than_a_silent_one(served: Served) -> None:
    with NetworkCall(served.port, "no-key") as slow:
        slow.begin()
        begun = time.monotonic()
        said = b"200 result=1 (" + b"x" * 1000
        with contextlib.suppress(ConnectionError):
            for byte in said:
                slow.socket.sendall(bytes([byte]))
                time.sleep(0.02)
                slow.socket.settimeout(0.001)
                with contextlib.suppress(TimeoutError):
                    if not slow.socket.recv(4096):
                        break
                slow.socket.settimeout(5)
        assert time.monotonic() - begun < 3 * admission.KEY_SECONDS
    served.wait_for("running", 0)


def test_who_shows_a_wrong_key_is_told_so_though_many_others_do(served: Served) -> None:
    """A wrong key in the dialplan must be found by the one who wrote it."""
    with flood(served.port, "no-key", 8):
        call = network_call.place(served.port, "another-key")

    assert call.status == "401"


def test_wrong_keys_are_no_running_session_and_hold_no_right_call(served: Served) -> None:
    """They show it, and take nothing in after that."""
    served.wait_for("running", 0)
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            peer = stack.enter_context(NetworkCall(served.port, "no-key"))
            peer.begin()
            peer.show_key()
        assert served.status()["running"] == 0
        assert network_call.place(served.port, served.site.key).status == "200"


def test_frozen_programs_are_no_running_session_and_hold_no_call(served: Served) -> None:
    """They have handed over their message, and never say GO."""
    message = handoff.pack("start_record", str(served.site.conf), [b"410"], Call(1, 1, b"").environment)
    served.wait_for("running", 0)
    with contextlib.ExitStack() as stack:
        for _ in range(PROGRAMS):
            program = stack.enter_context(socket.socket(socket.AF_UNIX))
            program.connect(str(served.socket))
            program.sendall(message)

        assert served.status()["running"] == 0
        assert median(served) > 0
        served.wait_for("running", 0)


def test_at_most_so_many_wait_and_the_oldest_go_first(served: Served) -> None:
    """More than a server has room for: the newest ones, as a right call is, are heard."""
    before = footprint.countable(served.workers())
    room = admission._MOST * len(served.workers())
    silent: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        for _ in range(room + 50):
            silent.append(stack.enter_context(socket.create_connection((SAME, served.port))))
        assert network_call.place(served.port, served.site.key).status == "200"
    wait_until(lambda: footprint.hold_no_more(served.workers(), before), 20, "the descriptors of before")


def test_connections_that_have_waited_too_long_are_refused(served: Served) -> None:
    """While all processes are stopped, they wait in the kernel's queue, where nobody else is left."""
    assert network_call.place(served.port, served.site.key).status == "200"
    workers, failed = served.workers(), served.status()["failed"]
    for each in workers:
        os.kill(each, signal.SIGSTOP)
    try:
        with NetworkCall(served.port, served.site.key) as late:
            late.begin()
            begun = time.monotonic()
            wait_until(lambda: time.monotonic() > begun + fastagi._QUEUE_SECONDS + 0.5, 20)
            for each in workers:
                os.kill(each, signal.SIGCONT)
            late.socket.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                assert late.socket.recv(1) == b""
    finally:
        for each in workers:
            os.kill(each, signal.SIGCONT)
    assert "waited to be heard for 10 s and was sent away" in served.site.log()
    served.wait_for("failed", failed + 1)
    assert network_call.place(served.port, served.site.key).status == "200"
