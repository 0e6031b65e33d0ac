"""`noojee-agi serve` begins, is killed in parts, and ends: what was begun is finished, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import footprint, network_call, processes, spooled
from lab.flood import flood
from lab.loaded_command import loaded
from lab.network_call import NetworkCall
from lab.served import Served
from lab.site import PROGRAMS, Site
from lab.waiting import wait_until

from noojee_agi.actions import access
from noojee_agi.database import settings
from noojee_agi.database.store import Store

Tell = Callable[[str], None]

_TOLD = re.compile(r" start_record 200 .*: leg \S+, uniqueid (\S+),")
RUNNING = 12  # sessions, more than there are threads


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    with Served(site, {"log.level": "info", "server.threads": "4"}) as running:
        yield running


@pytest.fixture
def first(served: Served) -> NetworkCall:
    """A call that has brought about the first drain, from which on the server sees when a recording ends."""
    call = recorded(served)
    served.wait_for("sees_ends", 1)
    return call


def recorded(served: Served) -> NetworkCall:
    call = network_call.place(served.port, served.site.key)
    assert call.status == "200"
    return call


@contextlib.contextmanager
def begun_calls(served: Served, count: int) -> Iterator[list[NetworkCall]]:
    """Calls that have said their environment, some of which have shown the key."""
    with contextlib.ExitStack() as stack:
        calls = [stack.enter_context(NetworkCall(served.port, served.site.key)) for _ in range(count)]
        for call in calls:
            call.begin()
        unasked = list(calls)

        def are_running() -> bool:
            for call in select.select(unasked, [], [], 0)[0]:
                unasked.remove(call)
                call.show_key()
            return served.status()["running"] == count

        wait_until(are_running, 10, "sessions")
        yield calls


def refuses(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) != 0


def uniqueids(site: Site) -> list[str]:
    """Of the legs in the database, while nothing else brings them there."""
    return sorted(leg["uniqueid"] for leg in site.legs())


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not is_alive(process), 10, "its end")


def wait_for_children(served: Served, count: int) -> None:
    wait_until(lambda: len(processes.children(served.pid)) == count, 20, f"{count} processes of the server")


def begin_another(site: Site) -> subprocess.CompletedProcess[str]:
    """A server that is expected to say why it cannot begin."""
    return site.run_cli("serve")


def test_sigterm_lets_every_session_finish_takes_no_new_one_and_drains(
    served: Served, site: Site, first: NetworkCall
) -> None:
    with begun_calls(served, RUNNING) as calls:
        late = [NetworkCall(served.port, site.key) for _ in range(3)]  # connected, with nothing said
        served.terminate()
        wait_until(lambda: refuses(served.port), 10, "a port that is given back")
        assert not served.socket.exists()

        calls[0].show_key()  # whatever is asked: a session waits for five seconds only
        network_call.finish_together([*calls[1:], *late], 20, begun=calls)
        served.terminate()  # once more does not matter
        os.kill(served.pid, signal.SIGHUP)
        calls[0].finish()

    assert [call.status for call in (*calls, *late)] == ["200"] * (RUNNING + 3)
    assert served.stop() == 0
    assert spooled.is_empty(site.recordings_directory)
    assert uniqueids(site) == sorted(call.uniqueid for call in (first, *calls, *late))


def test_the_next_server_may_begin_while_the_sessions_of_the_last_one_finish(
    served: Served, site: Site, first: NetworkCall
) -> None:
    with begun_calls(served, 3) as calls:
        served.terminate()
        wait_until(lambda: refuses(served.port), 10, "a port that is given back")
        served.configure()  # the port is known now
        hears, tells = os.pipe()
        # A fork: the sessions wait for no more than five seconds, which imports may take on a busy machine.
        following = loaded(PROGRAMS / "noojee-agi").start(["serve"], site.environment, [0, tells, 2])
        os.close(tells)
        try:
            with open(hears, encoding="utf-8") as said:
                assert said.readline().startswith(f"serves agi://127.0.0.1:{served.port} and {served.socket}")
            assert network_call.place(served.port, site.key).status == "200"
            assert [call.finish() for call in calls] == ["200"] * 3
            assert served.stop() == 0
            assert network_call.place(served.port, site.key).status == "200"
            wait_until(lambda: served.status()["sessions"] == 2, 10, "the next server at the socket")
        finally:
            following.terminate()
            assert following.wait(60) == 0
    stored = uniqueids(site)
    assert len(stored) == 6
    assert {first.uniqueid, *(call.uniqueid for call in calls)} < {*stored}


def test_when_the_server_is_killed_its_processes_finish_what_they_began_and_end(
    served: Served, site: Site, first: NetworkCall
) -> None:
    children = processes.children(served.pid)
    with begun_calls(served, RUNNING) as calls:
        os.kill(served.pid, signal.SIGKILL)
        wait_until(lambda: refuses(served.port), 10, "a port that is given back")
        network_call.finish_together(calls, 20, begun=calls)
    wait_until(lambda: not any(map(is_alive, children)), 20, "the end of all processes")
    served.kill()

    assert [call.status for call in calls] == ["200"] * RUNNING
    assert served.socket.exists(), "nobody was left to remove it"
    served.start()
    site.wait_for_legs(count=RUNNING + 1)
    assert uniqueids(site) == sorted(call.uniqueid for call in (first, *calls))


@pytest.mark.usefixtures("first")
def test_a_killed_worker_is_replaced_and_the_others_serve_on(served: Served, site: Site) -> None:
    before = served.workers()
    victim = before[0]
    kill(victim)
    statuses = [network_call.place(served.port, site.key).status for _ in range(50)]
    wait_for_children(served, len(before) + 1)

    assert victim not in served.workers()
    assert statuses == ["200"] * 50 or len(before) == 1
    served.wait_for("sees_ends", 1)
    served.wait_for("running", 0)
    assert "started again" in site.log()


def test_all_processes_killed_again_and_again_lose_no_call_that_was_told_200(
    served: Served, site: Site, first: NetworkCall, is_long: bool, tell: Tell
) -> None:
    rounds = 40 if is_long else 4
    told, broken, seed = [first.uniqueid], 0, random.randrange(2**32)
    generator = random.Random(seed)
    for _ in range(rounds):
        with contextlib.ExitStack() as stack:
            calls = [stack.enter_context(NetworkCall(served.port, site.key)) for _ in range(20)]
            deadline = time.monotonic() + generator.uniform(0, 0.05)
            victims = processes.children(served.pid)
            killed = False
            for call in calls:
                with contextlib.suppress(ConnectionError):
                    call.begin()
                    call.finish()
                if not killed and time.monotonic() > deadline:
                    processes.send(signal.SIGKILL, victims)
                    killed = True
        told += [call.uniqueid for call in calls if call.status == "200"]
        broken += sum(call.status != "200" for call in calls)
        wait_for_children(served, len(victims))
        told.append(recorded(served).uniqueid)
        served.wait_for("sees_ends", 1)
    assert served.stop() == 0
    tell(f"all processes killed {rounds} times: {len(told)} calls with status 200, {broken} broken, 0 lost")
    stored = uniqueids(site)
    assert [each for each in told if stored.count(each) != 1] == [], f"seed {seed}"


@pytest.mark.usefixtures("first")
def test_who_ends_while_its_drain_process_is_dead_still_drains(served: Served, site: Site) -> None:
    """It rests for a second since a worker has died, and is told to end before it knows of the other."""
    drain_process, worker = served.drain_process, served.workers()[0]
    kill(worker)
    wait_until(lambda: "started again" in site.log(), 20, "the server to know of the dead worker")
    kill(drain_process)
    call = recorded(served)
    assert served.stop() == 0

    assert spooled.is_empty(site.recordings_directory)
    assert call.uniqueid in uniqueids(site)


@pytest.mark.usefixtures("first")
def test_a_drain_process_that_is_killed_in_the_middle_loses_nothing(
    served: Served, site: Site, is_long: bool, tell: Tell
) -> None:
    kills = 50 if is_long else 3
    with flood(served.port, site.key, 2):
        for _ in range(kills):
            wait_until(lambda: not spooled.is_empty(site.recordings_directory), 20, "events")
            time.sleep(random.uniform(0, 0.3))
            kill(served.drain_process)
        calls = [network_call.place(served.port, site.key) for _ in range(20)]
    assert [call.status for call in calls] == ["200"] * 20
    served.wait_for("running", 0)  # a session of the flood's may still bring its event
    wait_until(lambda: spooled.is_empty(site.recordings_directory), 60, "an empty spool")

    stored, told = uniqueids(site), set(_TOLD.findall(site.log()))
    lost = told - set(stored)
    tell(
        f"{kills} drain processes killed in the middle: {len(told)} calls told 200, {len(lost)} lost, 0 twice"
    )
    assert lost == set()
    assert len(stored) == len(set(stored))
    assert {call.uniqueid for call in calls} <= told
    assert not spooled.set_aside(site.recordings_directory)


def test_sigterm_in_a_loop_of_dying_drain_processes_ends_the_server(served: Served) -> None:
    for _ in range(3):
        processes.send(signal.SIGKILL, [served.drain_process])
    assert served.stop() == 0


def test_a_second_server_at_the_same_socket_says_so_and_harms_nobody(served: Served, site: Site) -> None:
    done = begin_another(site)

    assert done.returncode == 1
    assert done.stderr == f"Error: {served.socket}: another noojee-agi serve is running\n"
    assert served.status()["running"] == 0


def test_a_second_server_at_the_same_port_says_so_and_harms_nobody(
    served: Served, site: Site, tmp_path: Path
) -> None:
    elsewhere = Site(tmp_path / "elsewhere")
    elsewhere.configure({"server.listen": f"127.0.0.1:{served.port}"})

    done = begin_another(elsewhere)

    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: [server] listen = 127.0.0.1:{served.port}: ")
    assert done.stderr.count("\n") == 1
    assert not (elsewhere.state_directory / "agi.sock").exists()
    assert network_call.place(served.port, site.key).status == "200"


def test_a_socket_file_that_nobody_listens_at_is_replaced(site: Site) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(site.state_directory / "agi.sock"))
    with Served(site) as served:
        assert served.status()["running"] == 0


def test_what_is_no_socket_is_never_replaced(site: Site) -> None:
    precious = site.state_directory / "precious"
    precious.write_text("data")
    site.configure({"server.listen": "", "server.socket": str(precious)})

    done = begin_another(site)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(precious) in done.stderr
    assert precious.read_text() == "data"


def test_a_replaced_process_has_the_configuration_that_was_read_last(served: Served, site: Site) -> None:
    served.configure({"recordings.min_free_percent": "100"})
    served.reload()
    for worker in (before := processes.children(served.pid)):
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not set(before) & set(processes.children(served.pid)), 20, "new processes")

    assert network_call.place(served.port, site.key).status == "507"


def test_a_configuration_that_is_wrong_leaves_all_as_it_was(served: Served, site: Site) -> None:
    served.configure({"server.nonsense": "1"})
    before = processes.children(served.pid)

    served.reload()

    assert "no such option" in site.log()
    assert network_call.place(served.port, site.key).status == "200"
    assert processes.children(served.pid) == before


@pytest.mark.usefixtures("first")
def test_sighup_again_and_again_disturbs_no_call_and_leaks_nothing(served: Served, site: Site) -> None:
    everybody = [served.pid, *processes.children(served.pid)]
    network_call.place(served.port, site.key)
    served.wait_for("sees_ends", 1)
    served.wait_for_workers()
    before = footprint.countable(everybody)
    statuses = []
    for _ in range(100):
        os.kill(served.pid, signal.SIGHUP)
        statuses.append(network_call.place(served.port, site.key).status)
    (site.state_directory / "noojee-agi.log").rename(site.state_directory / "noojee-agi.log.1")
    served.reload()

    assert statuses == ["200"] * 100
    wait_until(
        lambda: footprint.hold_no_more(everybody, before),
        20,
        f"{before}, the descriptors and threads of before",
        lambda: str(footprint.countable(everybody)),
    )
    assert processes.children(served.pid) == everybody[1:]
    legs: list[str] = []

    def is_logged() -> bool:
        """A worker that reads its signal late has the former file still."""
        legs.append(network_call.place(served.port, site.key).leg_id)
        return any(leg in site.log() for leg in legs)

    wait_until(is_logged, 10, "a call in the new log file")


def test_sighup_while_the_drain_process_waits_for_the_database_has_it_use_the_new_one(
    served: Served, site: Site
) -> None:
    """It comes in the middle of a drain, whose database does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg2://a:b@127.0.0.1:{silent.getsockname()[1]}/noojee"
        served.configure({"database.url": url})
        served.reload()
        drain_process = served.drain_process
        call = network_call.place(served.port, site.key)
        silent.accept()[0].close()
        connection = silent.accept()[0]  # now it waits
        served.configure()
        served.reload()
        connection.close()

    assert [leg["id"] for leg in site.wait_for_legs()] == [call.leg_id]
    assert served.drain_process == drain_process


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_of_the_start_ends_it(site: Site, what: signal.Signals, is_long: bool) -> None:
    """Before it has begun it may die of it; later it ends as it should, and leaves no socket."""
    site.configure({"server.listen": "127.0.0.1:0"})
    for number in range(60 if is_long else 4):
        server = subprocess.Popen(
            # Whoever runs the tests in the background may have had SIGINT ignored (bash(1), SIGNALS).
            ["env", "--default-signal=INT", PROGRAMS / "noojee-agi", "serve"],
            env={**os.environ, **site.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert server.stdout is not None
        with server.stdout as said:
            if number % 2:
                said.readline()
            else:
                time.sleep(random.uniform(0.2, 0.8))
            server.send_signal(what)
            exit_code = server.wait(60)
            has_begun = bool(number % 2) or "serves" in said.read()
        assert not processes.members(server.pid)
        if has_begun:
            assert exit_code == 0
            assert not (site.state_directory / "agi.sock").exists()


def test_who_reads_the_key_that_a_call_waits_for_is_not_nice(served: Served) -> None:
    """The drain is: on a busy machine it would take longer than the second for which a call waits."""
    threads = map(int, os.listdir(f"/proc/{served.drain_process}/task"))
    found = set()
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            found.add(os.getpriority(os.PRIO_PROCESS, thread))

    assert os.getpriority(os.PRIO_PROCESS, served.pid) in found


def test_a_key_that_was_changed_elsewhere_serves_many_calls_at_once(site: Site) -> None:
    """The snapshot is too old to refuse it, and every call waits for the answer of a database that works."""
    with Served(site) as served:
        for number in range(2):
            wait_until(lambda: spooled.is_empty(site.recordings_directory), 60, "the end of the drain")
            key = f"new-key-{number}"
            with Store(site.database_url).transaction() as connection:
                settings.set_key_digest(connection, access.digest(key))
            old = site.snapshot.with_suffix(".old")
            old.write_text(site.snapshot.read_text().replace('"read_at": "20', '"read_at": "19'))
            old.replace(site.snapshot)
            with contextlib.ExitStack() as stack:
                calls = [stack.enter_context(NetworkCall(served.port, key)) for _ in range(60)]
                network_call.finish_together(calls, 20)
            assert [call.status for call in calls] == ["200"] * 60
