"""The database fails in every way it can: no call feels it, and afterwards every recording is in it."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from integration.recorder import Recorder, ended
from lab import asterisk, audit
from lab.asterisk import PrivateAsterisk
from lab.postgresql import PrivatePostgreSQL
from lab.proxy import Proxy
from lab.site import Site
from lab.small_disk import fill, small_disk
from lab.traffic import LINE, TALK_SECONDS, Call, Traffic
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until
from sqlalchemy import func, select

from noojee_agi.database import settings
from noojee_agi.database.store import Store
from noojee_agi.database.tables import recording_leg
from noojee_agi.recordings import files, journal, recording, rejected, spool
from noojee_agi.recordings.recording import Event, Leg

pytestmark = [pytest.mark.asterisk, pytest.mark.postgresql]

# Of the medians, in an outage to healthy: who waits for a database waits 1 s, some five times as long.
# What is less is seen by unit/test_imports.py (a driver is loaded) and bench/test_conditions.py (alone).
LONGER_AT_MOST = 2.5
ROUNDS_AT_MOST = 6  # of calls, before a longer one counts: noise gets less, a cause stays
DRAIN_SECONDS = 1.2  # from the end of a call until its drain is over, or longer
GIVES_UP_WITHIN = 90.0  # seconds: a server that works has answered or given up after 60
DISK_BYTES = 256 * 1024 * 1024  # a new cluster takes 40 MB

Tell = Callable[[str], None]


class Office:
    """A site, its calls since a test began, and its database past every proxy."""

    def __init__(self, traffic: Traffic, store: Store) -> None:
        self.traffic = traffic
        self.site = traffic.site
        self.store = store
        self.begin()

    def begin(self) -> None:
        self._calls_before = len(self.traffic.calls())
        self._log_before = len(self.site.log())

    @property
    def spool(self) -> str:
        return spool.directory_in(str(self.site.recordings_directory))

    def calls(self) -> list[Call]:
        return self.traffic.calls()[self._calls_before :]

    def log(self) -> list[str]:
        return self.site.log()[self._log_before :].splitlines()

    def sync(self) -> None:
        """`noojee-agi sync`, once no drain is at work any more: it has nothing to complain of."""
        self.traffic.wait_until_idle(GIVES_UP_WITHIN)
        self.site.cli("sync")

    def leave_nothing(self) -> None:
        """Whatever has failed in this test shall not fail the next one."""
        self.site.configure()
        self.traffic.wait_until_idle(GIVES_UP_WITHIN)
        journal.take(self.spool)
        for path in (*journal.taken(self.spool), *rejected.paths(self.spool)):
            Path(path).unlink()

    def assert_all_stored(self, others: Sequence[Leg] = ()) -> None:
        """Each call has status 200 and its one leg, as it was; nothing waits, nothing was refused."""
        calls = self.calls()
        assert {call.status for call in calls} == {"200"}
        tags = {call.tag for call in calls} | {leg.tag for leg in others}
        legs = [leg for leg in self.site.legs() if leg["tag"] in tags]
        wanted = [(call.tag, call.leg_id) for call in calls] + [(leg.tag, leg.id) for leg in others]
        assert sorted((leg["tag"], leg["id"]) for leg in legs) == sorted(wanted)
        found = {leg["id"]: leg for leg in legs}
        assert {found[leg.id]["status"] for leg in others} <= {"completed"}
        for call in calls:
            leg = found[call.leg_id]
            audit.assert_tells_the_truth(leg)
            assert (leg["external_reference"], leg["file"]) == (call.tag, call.file)
            assert (leg["owner"], leg["leg"]) == ("Fred", 1)
            assert leg["status"] in ("completed", "empty")  # a busy Asterisk may hear nothing so short
        assert (spool.count(self.spool), rejected.paths(self.spool)) == (0, [])

    def assert_log_is_calm(self, drains: int = 0) -> None:
        """One line for each call, at most one for each of its two drains (and others), and no traceback."""
        calls, log = len(self.calls()), self.log()
        assert sum("start_record 200" in line for line in log) == calls
        assert sum(" ERROR " in line for line in log) <= 2 * calls + drains
        assert not [line for line in log if "Traceback" in line or "Logging error" in line]


# --- the two offices, on one Asterisk ---


@dataclass(frozen=True)
class World:
    """PostgreSQL, if possible on a small disk, with a proxy before it, and the office of each database."""

    disk: Path | None
    server: PrivatePostgreSQL
    proxy: Proxy
    offices: dict[str, Office]

    @contextmanager
    def proxied(self) -> Iterator[None]:
        """The programs of that office go through the proxy."""
        office = self.offices["postgresql"]
        url = office.store.url.set(port=self.proxy.port).render_as_string(hide_password=False)
        office.site.configure({"database.url": url})
        try:
            yield
        finally:
            office.site.configure()


@pytest.fixture(scope="module")
def world_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("chaos")
    with ExitStack() as until_end:
        disk = until_end.enter_context(small_disk_if_possible())
        data = disk / "data" if disk else None
        server = until_end.enter_context(PrivatePostgreSQL(folder / "server", data=data))
        proxy = until_end.enter_context(Proxy(server.port))
        urls = {"sqlite": "", "postgresql": server.url(server.create_database())}
        traffics = [Traffic(Site(folder / name, url), name) for name, url in urls.items()]
        until_end.enter_context(running_asterisk(folder / "asterisk", traffics))
        yield World(disk, server, proxy, {traffic.context: open_office(traffic) for traffic in traffics})


@contextmanager
def small_disk_if_possible() -> Iterator[Path | None]:
    with ExitStack() as until_end:
        disk = None
        with contextlib.suppress(LabUnavailable):  # then only the test that fills it cannot run
            disk = until_end.enter_context(small_disk(DISK_BYTES))
            disk.chmod(0o1777)  # PostgreSQL is another user
        yield disk


@contextmanager
def running_asterisk(folder: Path, traffics: Sequence[Traffic]) -> Iterator[None]:
    dialplan = LINE + "".join(traffic.dialplan for traffic in traffics)
    site = traffics[0].site  # each call's own program names the site of its own
    with PrivateAsterisk(
        asterisk.find(22), folder, dialplan, {}, site.environment, site.agi_directory
    ) as running:
        for traffic in traffics:
            traffic.use(running)
        yield
        assert "Traceback" not in running.console()


def open_office(traffic: Traffic) -> Office:
    store = Store(traffic.site.database_url)
    with store.transaction() as connection:
        settings.add_account(connection, "Fred", "Fred", ())
    return Office(traffic, store)


@pytest.fixture
def world(world_of_module: World) -> Iterator[World]:
    for office in world_of_module.offices.values():
        office.begin()
    yield world_of_module
    for office in world_of_module.offices.values():
        office.leave_nothing()


@pytest.fixture
def on_postgresql(world: World) -> Office:
    return world.offices["postgresql"]


@pytest.fixture
def on_sqlite(world: World) -> Office:
    return world.offices["sqlite"]


# --- a database that is away: before, during and after a call ---


@contextmanager
def between(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    begin()
    try:
        yield
    finally:
        end()


def stopped(world: World) -> AbstractContextManager[None]:
    return between(world.server.stop, world.server.start)


def frozen(world: World) -> AbstractContextManager[None]:
    return between(world.server.freeze, world.server.thaw)


@contextmanager
def silent(world: World) -> Iterator[None]:
    with world.proxied(), between(world.proxy.freeze, world.proxy.thaw):
        yield


@contextmanager
def cut_off(world: World) -> Iterator[None]:
    with world.proxied(), between(world.proxy.cut, world.proxy.thaw):
        yield


def locked(world: World) -> AbstractContextManager[None]:
    return sqlite_locked(world.offices["sqlite"], "BEGIN EXCLUSIVE")


def locked_for_readers_too(world: World) -> AbstractContextManager[None]:
    return sqlite_locked(world.offices["sqlite"], "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")


HOLDER = """\
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
for statement in sys.argv[2].split("; "):
    database.execute(statement)
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def sqlite_locked(office: Office, statements: str) -> Iterator[None]:
    """By another process, until the end."""
    command = [sys.executable, "-c", HOLDER, str(office.store.url.database), statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            holder.communicate()


Outage = Callable[[World], AbstractContextManager[None]]
OUTAGES: dict[str, list[Outage]] = {
    "postgresql": [stopped, frozen, silent, cut_off],
    "sqlite": [locked, locked_for_readers_too],
}


@pytest.mark.parametrize("backend", list(OUTAGES))
def test_no_call_feels_an_outage_and_no_recording_is_lost(
    world: World, backend: str, is_long: bool, tell: Tell
) -> None:
    """Calls on the healthy database and in each outage take turns."""
    office, outages = world.offices[backend], OUTAGES[backend]
    holds = Holds()

    for number in itertools.count(1):
        holds.add("healthy", call_in(office, contextlib.nullcontext()))
        for outage in outages:
            holds.add(outage.__name__, call_in(office, outage(world)))
        if number >= (40 if is_long else 1) and (holds.are_alike() or number >= ROUNDS_AT_MOST):
            break

    office.sync()
    office.assert_all_stored()
    office.assert_log_is_calm()
    assert holds.are_alike(), str(holds)
    tell(f"outages of {backend}, held: {holds}; 0 calls lost, 0 twice")


def call_in(office: Office, outage: AbstractContextManager[None]) -> list[Call]:
    """Three calls at once, from the beginning to the end of the outage."""
    with outage:
        calls = office.traffic.place(3)
    office.traffic.wait_until_idle(GIVES_UP_WITHIN)
    return calls


class Holds:
    """How long AGI() has held the calls, with the database healthy and in each outage."""

    def __init__(self) -> None:
        self._holds: dict[str, list[float]] = {}

    def add(self, outage: str, calls: Sequence[Call]) -> None:
        self._holds.setdefault(outage, []).extend(call.held for call in calls)

    def are_alike(self) -> bool:
        return all(self._ratio(outage) <= LONGER_AT_MOST for outage in self._holds)

    def __str__(self) -> str:
        return ", ".join(
            f"{len(holds)} calls {outage} {statistics.median(holds):.0f} ms ({self._ratio(outage):.2f})"
            for outage, holds in self._holds.items()
        )

    def _ratio(self, outage: str) -> float:
        return statistics.median(self._holds[outage]) / statistics.median(self._holds["healthy"])


def test_postgresql_that_stops_at_any_moment_of_a_call_or_after_it_costs_nothing(
    world: World, on_postgresql: Office, is_long: bool, tell: Tell
) -> None:
    tries, chance = 100 if is_long else 2, random.Random(4711)

    for number in range(tries):
        tags = on_postgresql.traffic.start(3)
        on_postgresql.traffic.wait_until_held(tags)
        time.sleep((number + chance.random()) / tries * (TALK_SECONDS + DRAIN_SECONDS))
        world.server.stop(chance.choice(("fast", "immediate")))
        on_postgresql.traffic.wait_until_idle()
        world.server.start()

    on_postgresql.sync()
    on_postgresql.assert_all_stored()
    on_postgresql.assert_log_is_calm()
    calls = len(on_postgresql.calls())
    tell(f"PostgreSQL stopped during and after calls: {tries} times, {calls} calls, 0 lost, 0 twice")


Questions = tuple[tuple[bytes, bool], ...]
# What the drain says last, and whether the server does it.
QUESTIONS = (
    (b"COMMIT", True),
    (b"INSERT INTO recording_leg", False),
    (b"INSERT INTO recording_leg", True),
    (b"COMMIT", False),
    (b"INSERT INTO call_record", True),
    (b"UPDATE recording_leg", False),
)


def test_postgresql_that_crashes_again_and_again_under_load_costs_nothing(
    world: World, on_postgresql: Office, is_long: bool, tell: Tell
) -> None:
    """Each time in the middle of a drain's transaction."""
    calls, crashes, chance = 600 if is_long else 8, 0, random.Random(4711)

    with world.proxied(), on_postgresql.traffic.flowing(calls) as flow:
        while not flow.done():
            world.proxy.freeze_at(*chance.choice(QUESTIONS))
            wait_until(lambda: world.proxy.is_frozen or flow.done(), 60, "a drain in the middle of its work")
            world.server.restart(chance.choice(("fast", "immediate")))
            world.proxy.thaw()
            crashes += 1

    on_postgresql.sync()
    on_postgresql.assert_all_stored()
    on_postgresql.assert_log_is_calm()
    assert len(on_postgresql.calls()) == calls
    tell(f"PostgreSQL crashed in {crashes} transactions under load: {calls} calls, 0 lost, 0 twice")


def test_a_silent_database_gathers_no_crowd_of_drains(
    world: World, on_postgresql: Office, is_long: bool, tell: Tell
) -> None:
    """Each would keep its memory until it gives up connecting."""
    calls, seen = 200 if is_long else 6, [0]

    with silent(world), on_postgresql.traffic.flowing(calls) as flow:

        def are_over() -> bool:
            seen.append(len(on_postgresql.site.drains()))
            return flow.done()

        wait_until(are_over, 10.0 * calls, "the calls to be over")

    on_postgresql.sync()
    on_postgresql.assert_all_stored()
    on_postgresql.assert_log_is_calm()
    assert max(seen) <= 2
    tell(f"{calls} calls while PostgreSQL is silent: {max(seen)} drains at once, 0 lost, 0 twice")


# --- a server that goes silent in the middle of a drain ---

IMPATIENT_DRAIN = """\
import sys
from noojee_agi.database import store
from noojee_agi.sync import __main__ as background_drain
store._SILENT_SECONDS = store._STATEMENT_SECONDS = 3
background_drain.main(sys.argv[1])
"""


@contextmanager
def drain_at_work(office: Office, is_patient: bool) -> Iterator[subprocess.Popen[bytes]]:
    """As after a call, but an impatient one waits for an answer for 3 s, and not for 70."""
    how = ["-m", "noojee_agi.sync"] if is_patient else ["-c", IMPATIENT_DRAIN]
    with subprocess.Popen([sys.executable, "-I", *how, str(office.site.conf)]) as drain:
        try:
            yield drain
        finally:
            drain.kill()


def put_events(office: Office, folder: Path, count: int) -> list[Leg]:
    """Let so many events wait: starts and ends of legs that no call has made."""
    recorder = Recorder(office.store, folder)
    recorder.spool = office.spool
    name = f"{folder.name}-{recording.new_id()[:8]}"
    calls = [f"{name}.{number}" for number in range(count // 2)]
    legs = [recorder.leg(call_uniqueid=call, tag=f"waits-{call}") for call in calls]
    recorder.put(*legs, *map(ended, legs))
    return legs


@pytest.mark.parametrize(
    ("is_forgotten", "questions"),
    [(False, QUESTIONS[:1]), (True, QUESTIONS[1:2])],
    ids=["comes back", "is forgotten"],
)
def test_a_connection_that_goes_silent_in_the_middle_of_a_drain_costs_nothing(
    world: World,
    on_postgresql: Office,
    is_forgotten: bool,
    questions: Questions,
    is_long: bool,
    tell: Tell,
    tmp_path: Path,
) -> None:
    """Forgotten: a firewall drops it, so that the server waits for the rest of the transaction."""
    questions = QUESTIONS * 6 if is_long else questions
    legs, gave_up_after = [], []

    for number, (words, is_heard) in enumerate(questions):
        legs += put_events(on_postgresql, tmp_path / f"silent{number}", 10)
        with world.proxied():
            world.proxy.freeze_at(words, is_heard)
            with drain_at_work(on_postgresql, is_patient=is_long and number % 12 == 0) as drain:
                wait_until(lambda: world.proxy.is_frozen, 20, f"the drain to say {words!r}")
                if is_forgotten:
                    world.proxy.forget()
                began = time.monotonic()
                on_postgresql.traffic.place(2)
                drain.wait(GIVES_UP_WITHIN)
                gave_up_after.append(time.monotonic() - began)
            world.proxy.thaw()
            sync_succeeds(on_postgresql)

    on_postgresql.assert_all_stored(legs)
    on_postgresql.assert_log_is_calm(drains=2 * len(questions))
    tell(
        f"{len(questions)} drains met silence in a transaction, gave up after"
        f" {min(gave_up_after):.1f} to {max(gave_up_after):.1f} s; {len(legs)} legs, 0 lost, 0 twice"
    )


def sync_succeeds(office: Office) -> None:
    """Typed again and again until the server has given up the transaction that nobody continues."""
    office.traffic.wait_until_idle(GIVES_UP_WITHIN)
    wait_until(lambda: office.site.run_cli("sync").returncode == 0, GIVES_UP_WITHIN, "noojee-agi sync")


def test_a_postgresql_that_freezes_in_the_middle_of_a_drain_costs_nothing(
    world: World, on_postgresql: Office, is_long: bool, tell: Tell, tmp_path: Path
) -> None:
    tries, chance, legs = 20 if is_long else 1, random.Random(4711), []

    for number in range(tries):
        legs += put_events(on_postgresql, tmp_path / f"frozen{number}", 800)
        before, some = stored(on_postgresql), chance.randint(50, 500)
        with drain_at_work(on_postgresql, is_patient=is_long and number == 0) as drain:
            wait_until(partial(has_stored, on_postgresql, before + some), 60, "half a drain")
            with frozen(world):
                on_postgresql.traffic.place(2)
                drain.wait(GIVES_UP_WITHIN)
                assert spool.count(on_postgresql.spool)
            on_postgresql.sync()

    on_postgresql.assert_all_stored(legs)
    on_postgresql.assert_log_is_calm(drains=2 * tries)
    tell(f"PostgreSQL frozen in {tries} drains, {len(legs)} legs and the calls meanwhile: 0 lost, 0 twice")


def has_stored(office: Office, events: int) -> bool:
    return stored(office) >= events


def stored(office: Office) -> int:
    """Events that the database has, each once."""
    leg = recording_leg.c
    with office.store.reading() as connection:
        return int(connection.scalars(select(func.count(leg.id) + func.count(leg.ended_at))).one())


# --- a full disk ---


def test_a_full_disk_of_postgresql_costs_nothing(
    world: World, on_postgresql: Office, is_long: bool, tell: Tell, tmp_path: Path
) -> None:
    if world.disk is None:
        raise LabUnavailable("PostgreSQL's disk cannot be filled: only root may mount a small one")
    tries, chance, legs, met = 30 if is_long else 1, random.Random(4711), [], 0
    ballast = world.disk / "ballast"

    for number in range(tries):
        legs += put_events(on_postgresql, tmp_path / f"full{number}", 1000)
        with between(lambda: fill(ballast, chance.randrange(128 * 1024)), ballast.unlink):
            on_postgresql.traffic.place(2)
            on_postgresql.traffic.wait_until_idle()
            met += spool.count(on_postgresql.spool) > 0  # or else it had room in its files
        world.server.restart("immediate")  # it may have ended by itself
        on_postgresql.sync()

    assert met > tries / 2
    on_postgresql.assert_all_stored(legs)
    on_postgresql.assert_log_is_calm()
    tell(f"PostgreSQL's disk full in {met} drains, {len(legs)} legs and the calls meanwhile: 0 lost, 0 twice")


def test_a_full_disk_of_sqlite_and_of_our_own_state_costs_nothing(
    on_sqlite: Office, is_long: bool, tell: Tell, tmp_path: Path
) -> None:
    tries, chance, legs = 30 if is_long else 1, random.Random(4711), []

    with small_disk(DISK_BYTES // 4) as disk, state_on(disk, on_sqlite):
        for number in range(tries):
            legs += put_events(on_sqlite, tmp_path / f"full{number}", 1000)
            with between(lambda: fill(disk / "ballast", chance.randrange(65536)), (disk / "ballast").unlink):
                on_sqlite.traffic.place(2)
                on_sqlite.traffic.wait_until_idle()
                assert spool.count(on_sqlite.spool)
            on_sqlite.sync()

        on_sqlite.assert_all_stored(legs)
        assert not [line for line in on_sqlite.log() if "Traceback" in line]
    tell(f"SQLite's disk full {tries} times, {len(legs)} legs and the calls meanwhile: 0 lost, 0 twice")


@contextmanager
def state_on(disk: Path, office: Office) -> Iterator[None]:
    """The state directory, with the database in it, lies there."""
    site, store = office.site, office.store
    usual = site.state_directory
    shutil.copytree(usual, disk / "state")
    site.state_directory, site.database_url = disk / "state", f"sqlite:///{disk}/state/noojee.db"
    office.store = Store(site.database_url)
    site.configure()
    try:
        yield
    finally:
        office.traffic.wait_until_idle()
        site.state_directory, site.database_url, office.store = usual, str(store.url), store
        site.configure()


# --- one event that the database refuses ---


@pytest.mark.parametrize("backend", list(OUTAGES))
def test_one_poisoned_event_among_many_is_set_aside_alone(
    world: World, backend: str, is_long: bool, tell: Tell, tmp_path: Path
) -> None:
    """In the middle one of several batches."""
    office, count = world.offices[backend], 500 if is_long else 200
    legs = put_events(office, tmp_path / "first", count)
    poisoned, event, line = put_poison(office, tmp_path / "poisoned", backend)
    legs += put_events(office, tmp_path / "second", count)

    with office.traffic.flowing(100 if is_long else 4):
        pass
    office.traffic.wait_until_idle()
    sync, check = office.site.run_cli("sync"), office.site.run_cli("check")

    [poison] = rejected.paths(office.spool)
    assert Path(poison).read_bytes() == line
    assert "refuses this" in Path(f"{poison}.reason").read_text()
    assert (sync.returncode, check.returncode) == (1, 1)
    assert f"refused by the database: {poison}" in sync.stderr
    assert f"read {poison}.reason" in check.stdout
    Path(poison).rename(tmp_path / "poison")
    office.assert_all_stored(legs)
    office.assert_log_is_calm(drains=1)

    spool.put(office.spool, ended(poisoned))
    files.write(poison, recording.to_json(event))
    office.site.cli("sync", "--retry-rejected")
    office.assert_all_stored([*legs, poisoned])
    tell(f"{backend}: 1 poisoned event set aside, {len(legs)} legs and {len(office.calls())} calls: 0 lost")


def put_poison(office: Office, folder: Path, backend: str) -> tuple[Leg, Event, bytes]:
    """A leg with an event that the tables refuse: as it should be, and as it waits."""
    recorder = Recorder(office.store, folder)
    recorder.spool = office.spool
    leg = recorder.leg(call_uniqueid="poisoned", tag=f"poisoned-on-{backend}")
    event: Event = leg
    if backend == "postgresql":
        line = recorder.put_changed(leg, {"tag": "far too long " * 100})
    else:  # has no limit for a tag
        recorder.put(leg)
        event = ended(leg)
        line = recorder.put_changed(event, {"status": "exploded"})
    return leg, event, line
