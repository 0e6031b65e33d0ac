"""noojee-agi serve under load and among bad company: nothing leaks, nobody is lost, nobody has to wait."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from bench.call import Call
from bench.callers import Callers
from lab import footprint, network_call, processes, spooled
from lab.flood import flood
from lab.network_call import NetworkCall
from lab.postgresql import free_port
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until

from noojee_agi.session import handoff

Tell = Callable[[str], None]

# A worker's heap grows with its first few thousand sessions, and then no more (--long: 4 kB in 5 000).
FIRST, WARM_UP = 1, 1500
FLAT_BYTES_PER_SESSION = 200  # a page now and then, no more
SQLITE_CACHE_BYTES = 2_000_000  # the drain process's, filled by and by
AT_ONCE = 1000
FLOOD_CONNECTIONS = 64
RIGHT_CONNECTIONS, BESIDE = 4, 80
ATTEMPTS, MOST_SLOW = 3, 3.0
OLD_SECONDS = 5.5  # the server believes a younger snapshot
BEGIN_LIMIT_SECONDS = 15.0  # the server's is 5
SESSION_LIMIT_SECONDS = 70.0  # the server's is 30, and once more for the last read
ROOM_OF_A_WORKER = 500
SPARE_DESCRIPTORS = 10
ROUNDS = 10
BEGIN_AT_ONCE = 16
SILENT_PEERS = 64
STUCK_SECONDS = 4.0  # less than a session waits for an answer
COUNTERS = ("sessions", "running", "failed", "troubles")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER, on, no time: close() then resets
REPLY_LIMIT_SECONDS = 15.0  # the server's is 5
HALF_ENVIRONMENT = b"agi_network: yes\nagi_network_script: start_record\nagi_cha"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with started(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests that compare it with itself: each leaves it as it was."""
    with started(tmp_path_factory.mktemp("shared")) as running:
        yield running


@contextlib.contextmanager
def started(folder: Path, **options: str) -> Iterator[Served]:
    """After its first drain, from which on it sees when a recording ends, and a first call."""
    with Served(Site(folder / "site"), {"log.level": "info", **options}) as running:
        call = network_call.place(running.port, running.site.key)
        assert call.status == "200"
        running.wait_for("sees_ends", 1)
        running.wait_for("sessions", 1)
        running.wait_for_workers()
        wait_until(lambda: call.leg_id in running.site.log(), 20, "the first call's line")  # its last trace
        yield running


def all_of(served: Served) -> list[int]:
    return [served.pid, *processes.children(served.pid)]


def stored(served: Served) -> int:
    """Legs in the database, once no event waits for it."""
    wait_until(lambda: spooled.is_empty(served.site.recordings_directory), 60, "an empty spool")
    return len(served.site.legs())


def wait_for_the_same(served: Served, before: dict[int, tuple[int, int]]) -> None:
    """As many descriptors and threads as before, in the same processes."""

    def is_same() -> bool:
        return footprint.hold_no_more(all_of(served), before)

    try:
        wait_until(is_same, 20)
    except AssertionError:
        assert is_same(), (footprint.countable(all_of(served)), before)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Served]:
    """One whose only worker has all sessions."""
    with started(tmp_path, **{"server.threads": "1"}) as running:
        yield running


def test_thousands_of_sessions_in_a_row_leave_nothing_behind(
    alone: Served, is_long: bool, tell: Tell
) -> None:
    """Memory: a leak grows as much in the second half as in the first, and this must not be."""
    half = 5_000 if is_long else 500
    callers = Callers(alone.port, alone.site.key)
    place_and_store(callers, alone, WARM_UP)
    before = footprint.of_all(all_of(alone))
    begun = time.monotonic()
    place_and_store(callers, alone, half)
    middle = footprint.of_all(all_of(alone))
    place_and_store(callers, alone, half)
    seconds = time.monotonic() - begun

    assert stored(alone) == FIRST + WARM_UP + 2 * half
    wait_for_the_same(alone, {process: held.countable for process, held in before.items()})
    after = footprint.of_all(all_of(alone))
    drain_process = alone.drain_process
    first, second = (
        max(to[worker].kilobytes - since[worker].kilobytes for worker in since if worker != drain_process)
        for since, to in ((before, middle), (middle, after))
    )
    kept = after[drain_process].kilobytes - middle[drain_process].kilobytes
    tell(
        f"{2 * half} sessions in a row, {2 * half / seconds:.0f} a second: descriptors and threads as before,"
        f" memory of a worker {first:+} kB in the first half, {second:+} in the second,"
        f" the drain process's {kept:+}"
    )
    assert 1024 * second < FLAT_BYTES_PER_SESSION * half
    assert 1024 * kept < FLAT_BYTES_PER_SESSION * half + SQLITE_CACHE_BYTES


def place_and_store(callers: Callers, served: Served, count: int) -> None:
    """So many calls, one after the other, and wait until they are in the database."""
    assert not callers.place(count, 1).failures
    stored(served)


def test_a_thousand_connections_at_once_are_all_served(served: Served, tell: Tell) -> None:
    key = served.site.key
    before = footprint.countable(all_of(served))
    with contextlib.ExitStack() as stack:
        begun = time.monotonic()
        calls = [stack.enter_context(NetworkCall(served.port, key)) for _ in range(AT_ONCE)]

        network_call.finish_together(calls, 60)

        seconds = time.monotonic() - begun
    assert [call.status for call in calls if call.status != "200"] == []
    tell(f"{AT_ONCE} connections at once: all with status 200 after {seconds:.1f} s")
    assert stored(served) == FIRST + AT_ONCE
    assert {leg["uniqueid"] for leg in served.site.legs()} > {call.uniqueid for call in calls}
    wait_for_the_same(served, before)


def test_the_drain_process_tells_of_its_drains_although_calls_never_pause(served: Served) -> None:
    with flood(served.port, served.site.key, FLOOD_CONNECTIONS):
        wait_until(lambda: served.status()["drained_at"], 20, "the first drain's end")
        first = served.status()["drained_at"]
        wait_until(lambda: served.status()["drained_at"] > first, 20, "the second drain's end")


def wait_until_sent_away(connections: list[socket.socket], limit: float) -> None:
    """Until the server has closed each of these connections, to which it has nothing to say."""
    deadline = time.monotonic() + limit
    for connection in connections:
        connection.settimeout(max(deadline - time.monotonic(), 0.1))
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""


def milliseconds_of_calls(served: Served, count: int) -> list[float]:
    """How long each of these calls was with the server, one after the other."""
    outcome = Callers(served.port, served.site.key).place(count, 1)
    assert not outcome.failures
    return sorted(outcome.milliseconds)


@contextlib.contextmanager
def silent_company(served: Served, said: Sequence[bytes]) -> Iterator[list[socket.socket]]:
    """Connections that say this much and no more."""
    with contextlib.ExitStack() as stack:
        found = []
        for words in said:
            found.append(stack.enter_context(socket.create_connection(("127.0.0.1", served.port))))
            found[-1].sendall(words)
        yield found


def test_a_probe_that_connects_and_closes_is_silent(shared: Served) -> None:
    """As monitoring does it, once a minute for years: with a close, with a reset, and after half a word."""
    served = shared
    before = footprint.countable(all_of(served))
    log = served.site.log()
    counted = {name: served.status()[name] for name in COUNTERS}
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", served.port)),
        (socket.AF_UNIX, str(served.socket)),
    ):
        for said, linger in itertools.product((b"", b"agi_"), (False, True)):
            for _ in range(20):
                with socket.socket(family) as probe:
                    if linger:
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    probe.connect(address)
                    probe.sendall(said)

    wait_for_the_same(served, before)
    assert served.site.log() == log
    assert {name: served.status()[name] for name in COUNTERS} == counted
    assert served.stderr == ""


def test_silent_connections_keep_nobody_waiting_and_are_sent_away(served: Served, tell: Tell) -> None:
    before = footprint.countable(all_of(served))
    milliseconds_of_calls(served, 50)
    shares: list[float] = []
    while len(shares) < ATTEMPTS and min(shares, default=MOST_SLOW) >= MOST_SLOW:
        without = milliseconds_of_calls(served, 150)
        with silent_company(served, [b""] * 500 + [HALF_ENVIRONMENT] * 100) as silent:
            beside = milliseconds_of_calls(served, 150)
            wait_until_sent_away(silent, BEGIN_LIMIT_SECONDS)
        shares.append(statistics.median(beside) / statistics.median(without))

    tell(f"a session beside 600 silent connections takes {shares[-1]:.2f} times as long as without them")
    assert shares[-1] < MOST_SLOW
    wait_for_the_same(served, before)
    calls = FIRST + 50 + 300 * len(shares)
    served.wait_for("sessions", calls)
    wait_until(lambda: len(served.site.log().splitlines()) >= 1 + calls, 20, "the line of the last call")
    assert len(served.site.log().splitlines()) == 1 + calls, "who says nothing is no line of the log"


def test_more_silent_connections_than_there_is_room_for_are_sent_away_and_calls_get_their_turn(
    shared: Served,
) -> None:
    served = shared
    before = footprint.countable(all_of(served))
    with silent_company(served, [b""] * (ROOM_OF_A_WORKER * len(served.workers()) + 50)) as silent:
        assert network_call.place(served.port, served.site.key).status == "200"
        wait_until_sent_away(silent, 2 * BEGIN_LIMIT_SECONDS)

    wait_for_the_same(served, before)


@pytest.mark.parametrize(
    ("piece", "count"),
    [
        pytest.param(b"x" * 65536, 160, id="10 MB in one line"),
        pytest.param(b"agi_arg_1: " + b"x" * 65524 + b"\n", 160, id="10 MB in long lines"),
        pytest.param(b"agi_arg_1: x\n" * 5000, 160, id="10 MB in short lines"),
        pytest.param(b"".join(b"agi_%d: x\n" % number for number in range(600)) + b"\n", 1, id="600 lines"),
    ],
)
def test_an_environment_without_measure_is_cut_short(shared: Served, piece: bytes, count: int) -> None:
    served = shared
    before = footprint.of_all(all_of(served))
    taken = 0
    with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
        with contextlib.suppress(ConnectionError):
            for _ in range(count):
                connection.sendall(piece)
                taken += 1
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""

    assert count == 1 or taken < count
    assert network_call.place(served.port, served.site.key).status == "200"
    wait_for_the_same(served, {process: held.countable for process, held in before.items()})
    for process, held in footprint.of_all(before).items():
        assert held.kilobytes - before[process].kilobytes < 5000


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(b"x" * 65536, id="a line without an end"),
        pytest.param(b"HANGUP\n" * 9000, id="lines that are no replies"),
        pytest.param(b"200 result=1 (" + b"x" * 65521 + b"\n", id="a value without an end"),
        pytest.param(b"200 result=1 (\n" * 4000, id="values without an end"),
        pytest.param(b"520-Invalid command syntax.  Proper usage follows:\n" * 1000, id="usage"),
        pytest.param(b"200 result=1 (x)\n" * 4000, id="replies to nothing"),
    ],
)
@pytest.mark.parametrize("knows_key", [False, True], ids=["before the key is known", "in a session"])
def test_an_answer_without_end_ends_the_session_not_the_server(
    shared: Served, knows_key: bool, flood: bytes
) -> None:
    before = footprint.of_all(all_of(shared))
    with NetworkCall(shared.port, shared.site.key) as call:
        call.begin()
        if knows_key:
            call.show_key()
        assert call.next_command()
        deadline = time.monotonic() + SESSION_LIMIT_SECONDS
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                call.socket.sendall(flood)
        assert time.monotonic() < deadline

    assert network_call.place(shared.port, shared.site.key).status == "200"
    wait_for_the_same(shared, {process: held.countable for process, held in before.items()})


def test_a_peer_that_says_nothing_more_is_sent_away(shared: Served, tell: Tell) -> None:
    before = footprint.countable(all_of(shared))
    with contextlib.ExitStack() as stack:
        silent, chatty = (stack.enter_context(NetworkCall(shared.port, shared.site.key)) for _ in range(2))
        for call in (silent, chatty):
            call.begin()
            call.show_key()
        seconds: list[float] = []
        begun = time.monotonic()
        while len(seconds) < 2:
            assert time.monotonic() - begun < SESSION_LIMIT_SECONDS
            assert network_call.place(shared.port, shared.site.key).status == "200"
            with contextlib.suppress(ConnectionError):
                chatty.socket.sendall(b"HANGUP\n")  # it is no reply
            if len(seconds) < sum(map(has_ended, (silent, chatty))):
                seconds.append(time.monotonic() - begun)
            time.sleep(0.25)

    tell(f"sent away: who never answers after {seconds[0]:.0f} s, who says no reply after {seconds[1]:.0f} s")
    assert seconds[0] < REPLY_LIMIT_SECONDS
    wait_for_the_same(shared, before)


def has_ended(call: NetworkCall) -> bool:
    """Whether the server has closed this connection; what it has said is passed over."""
    patience = call.socket.gettimeout()
    call.socket.setblocking(False)  # with a limit Python waits for a word first
    try:
        while call.socket.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    finally:
        call.socket.settimeout(patience)
    return True


def test_a_peer_that_ends_its_half_of_the_connection_is_let_go_at_once(shared: Served) -> None:
    before = footprint.countable(all_of(shared))
    with NetworkCall(shared.port, shared.site.key) as call:
        call.begin()
        call.socket.shutdown(socket.SHUT_WR)
        begun = time.monotonic()
        while call.next_command():
            pass
        assert time.monotonic() - begun < 5
    wait_for_the_same(shared, before)


def test_peers_that_know_the_key_and_say_nothing_more_do_not_hold_a_call(shared: Served) -> None:
    """They are sent away five seconds after their key, so they show it together."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(NetworkCall(shared.port, shared.site.key)) for _ in range(SILENT_PEERS)]
        for peer in peers:
            peer.begin()
        for peer in peers:
            peer.show_key()
        shared.wait_for("running", SILENT_PEERS)

        assert network_call.place(shared.port, shared.site.key).status == "200"

        assert not all(map(has_ended, peers)), "the call has waited until they were sent away"
    shared.wait_for("running", 0)


def test_all_calls_that_come_at_once_begin_at_once(shared: Served) -> None:
    """None waits for another: each has its session's first command before any of them answers."""
    for _ in range(ROUNDS):
        with contextlib.ExitStack() as stack:
            calls = [
                stack.enter_context(NetworkCall(shared.port, shared.site.key)) for _ in range(BEGIN_AT_ONCE)
            ]
            for call in calls:
                call.begin()
            for call in calls:
                call.show_key()
            for call in calls:
                call.socket.settimeout(STUCK_SECONDS)
            asked = [call.next_command() for call in calls]
            assert all(asked), "a session has not begun"
            for call, command in zip(calls, asked, strict=True):
                call.answer(command)
            network_call.finish_together(calls, 20, calls)
        shared.wait_for("running", 0)


def test_out_of_descriptors_connections_wait_and_it_goes_on_afterwards(served: Served) -> None:
    before = footprint.countable(all_of(served))
    limits = {}
    for worker in served.workers():
        limits[worker] = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        low = footprint.of(worker).descriptors + SPARE_DESCRIPTORS
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (low, limits[worker][1]))
    more_than_fit = SPARE_DESCRIPTORS * (len(limits) + 1)
    with silent_company(served, [HALF_ENVIRONMENT] * more_than_fit) as silent:
        wait_until(lambda: "Too many open files" in served.site.log(), 10, "no descriptor left")
        begun = time.monotonic()

        assert network_call.place(served.port, served.site.key).status in ("200", "401", "503")

        assert time.monotonic() - begun < 2 * BEGIN_LIMIT_SECONDS
        wait_until_sent_away(silent, 2 * BEGIN_LIMIT_SECONDS)
    for worker, limit in limits.items():
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limit)
    assert network_call.place(served.port, served.site.key).status == "200"
    wait_for_the_same(served, before)


def test_a_hand_over_whose_descriptors_are_lost_is_given_back(served: Served) -> None:
    """recvmsg(2) just leaves out what a process at its limit cannot hold.

    A worker waits for a quarter of a second only until a program says GO; then it gives it back for that.
    """
    workers = served.workers()
    words = [b"410", b"INV-22", b"Fred"]
    message = handoff.pack("start_record", str(served.site.conf), words, Call(1, 1, b"").environment)
    with socket.socket(socket.AF_UNIX) as program, open(os.devnull, "r+b") as null:
        program.settimeout(20)
        program.connect(str(served.socket))
        program.sendall(message)
        assert program.recv(1) == handoff.TAKEN
        for worker in workers:
            held = {int(entry.name) for entry in Path(f"/proc/{worker}/fd").iterdir()}
            none_free = next(limit for limit in itertools.count() if limit not in held)
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (none_free, 8192))

        with contextlib.suppress(ConnectionError):
            socket.send_fds(program, [handoff.GO], [null.fileno(), null.fileno()])
            assert program.recv(1) == b""
    assert not Path(f"/proc/{served.pid}/cwd/.spool").exists()


@contextlib.contextmanager
def url_of(trouble: str) -> Iterator[str]:
    if trouble == "closed":
        yield f"postgresql+psycopg2://a:b@127.0.0.1:{free_port()}/noojee"
    else:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
            yield f"postgresql+psycopg2://a:b@127.0.0.1:{silent.getsockname()[1]}/noojee"


@contextlib.contextmanager
def database_that_is(trouble: str, served: Served) -> Iterator[None]:
    """The server's database in this state, and the snapshot so old that a wrong key has it asked."""
    with contextlib.ExitStack() as stack:
        if trouble != "up":
            served.configure({"database.url": stack.enter_context(url_of(trouble))})
            served.reload()
            snapshot = served.site.snapshot
            older = snapshot.with_suffix(".older")
            older.write_text(snapshot.read_text().replace('"read_at": "20', '"read_at": "19'))
            older.replace(snapshot)
        yield


@pytest.mark.parametrize("trouble", ["up", "closed", "silent"])
def test_wrong_keys_at_full_speed_do_not_keep_right_ones_waiting(
    served: Served, trouble: str, tell: Tell
) -> None:
    """Compared with calls at the same speed that have the right key: the processors are shared by all.

    There are more of them than threads, and the first ones find out that the database is away.
    """
    callers = Callers(served.port, served.site.key)
    callers.place(100, 1)
    shares = []
    with database_that_is(trouble, served):
        for _ in range(ATTEMPTS):
            wrong, wrong_slow = median_and_slow(callers, served, "no-key")
            asked_at = time.monotonic()
            right, right_slow = median_and_slow(callers, served, served.site.key)
            shares.append((wrong_slow / right_slow, wrong / right))
            tell(
                f"database {trouble}: right key, median and 99 % {wrong:.0f} {wrong_slow:.0f} ms beside wrong"
                f" keys, {right:.0f} {right_slow:.0f} ms beside right ones"
            )
            if max(shares[-1]) < MOST_SLOW:
                break
            # Only then the database is asked again.
            wait_until(lambda: time.monotonic() > asked_at + OLD_SECONDS, 30, "an old answer")  # noqa: B023

    wait_until(lambda: " start_record 401 " in served.site.log(), 20, "the first wrong key to be refused")
    assert max(min(shares, key=max)) < MOST_SLOW


def median_and_slow(callers: Callers, served: Served, key: str) -> tuple[float, float]:
    """The median and the 99 % of how long calls are with the server beside a flood of calls with this key."""
    with flood(served.port, key, FLOOD_CONNECTIONS):
        outcome = callers.place(BESIDE, RIGHT_CONNECTIONS)
    assert not outcome.failures
    milliseconds = sorted(outcome.milliseconds)
    return statistics.median(milliseconds), milliseconds[int(len(milliseconds) * 0.99)]
