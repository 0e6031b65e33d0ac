"""A PostgreSQL that goes silent in the middle of a transaction: given up in time, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from lab.pgbouncer import PrivatePgBouncer
from lab.postgresql import PrivatePostgreSQL
from lab.proxy import Proxy
from lab.site import Site
from lab.waiting import wait_until
from sqlalchemy import Connection, text

from integration.recorder import Recorder, after, ended, exit_code, forked
from noojee_agi.database import queries
from noojee_agi.database import store as store_module
from noojee_agi.database.store import Store
from noojee_agi.errors import StoreUnavailable
from noojee_agi.recordings import spool

pytestmark = pytest.mark.postgresql

SILENT_SECONDS = 1.0
USUAL_SECONDS = store_module._SILENT_SECONDS
STORED = 3  # an exit code
TOO_LONG = 25.0  # then the server speaks again, so that a test fails where it would hang


class Line:
    """A database and how to silence it."""

    def __init__(self, url: str, silence: Callable[[], None], end: Callable[[], None], admin: str) -> None:
        self.store = Store(url)
        self.admin = Store(admin)
        self.silence = silence
        self._end = end

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Until the end of this, or until it has taken too long."""
        guard = threading.Timer(TOO_LONG, self._end)
        guard.start()
        self.silence()
        try:
            yield
        finally:
            is_in_time = guard.is_alive()
            guard.cancel()
            self._end()
            assert is_in_time, "waited until the server spoke again"


@contextmanager
def frozen(request: pytest.FixtureRequest, name: str) -> Iterator[Line]:
    """All of its processes are stopped."""
    server: PrivatePostgreSQL = request.getfixturevalue("postgresql")
    yield Line(server.url(name), server.freeze, server.thaw, server.url(name))


@contextmanager
def frozen_behind_a_pool(request: pytest.FixtureRequest, name: str) -> Iterator[Line]:
    """The same, but we speak with pgbouncer, which is well."""
    server: PrivatePostgreSQL = request.getfixturevalue("postgresql")
    bouncer: PrivatePgBouncer = request.getfixturevalue("bouncer")
    yield Line(bouncer.url(name), server.freeze, server.thaw, server.url(name))


@contextmanager
def cut_off(request: pytest.FixtureRequest, name: str) -> Iterator[Line]:
    """Nothing goes through in either direction."""
    server: PrivatePostgreSQL = request.getfixturevalue("postgresql")
    with Proxy(server.port) as proxy:
        url = server.url(name).replace(f":{server.port}/", f":{proxy.port}/")
        yield Line(url, proxy.freeze, proxy.thaw, server.url(name))


@contextmanager
def answers_held(request: pytest.FixtureRequest, name: str) -> Iterator[Line]:
    """It does what it is asked, and we do not hear of it."""
    server: PrivatePostgreSQL = request.getfixturevalue("postgresql")
    with Proxy(server.port) as proxy:
        url = server.url(name).replace(f":{server.port}/", f":{proxy.port}/")
        yield Line(url, proxy.hold_answers, proxy.thaw, server.url(name))


@pytest.fixture
def line(request: pytest.FixtureRequest, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Silenced in the way that is the fixture's parameter."""
    monkeypatch.setattr(store_module, "_SILENT_SECONDS", SILENT_SECONDS)
    monkeypatch.setattr(store_module, "_CONNECT_SECONDS", 2)
    with request.param(request, database) as line:
        yield line


@contextmanager
def patient() -> Iterator[None]:
    """Where nobody is silent, a busy server may let us wait for longer than SILENT_SECONDS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "_SILENT_SECONDS", USUAL_SECONDS)
        yield


def by(*silences: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("line", silences, ids=lambda each: each.__name__, indirect=True)


# --- one transaction ---

UPDATE = "UPDATE system_variable SET value = '' WHERE name = 'apiKey'"
LOOK = "SELECT count(*) FROM recording_leg"
LOCK = "LOCK TABLE recording_leg"


@by(frozen)
@pytest.mark.parametrize(
    ("opening", "before", "then"),
    [
        (Store.transaction, [], [LOOK]),
        (Store.transaction, [UPDATE, LOOK], [LOOK]),
        (Store.transaction, [UPDATE], []),
        (Store.reading, [], [LOOK]),
        (Store.reading, [LOOK], []),
    ],
    ids=["first question", "later question", "commit", "reading", "end of reading"],
)
def test_a_silent_server_is_given_up_wherever_it_falls_silent(
    line: Line,
    opening: Callable[[Store], AbstractContextManager[Connection]],
    before: list[str],
    then: list[str],
    is_long: bool,
) -> None:
    for _ in range(10 if is_long else 1):
        opened: list[Any] = []

        with ExitStack() as silent:
            silent.enter_context(pytest.raises(StoreUnavailable))
            with opening(line.store) as connection:
                opened += driver_and_socket(connection)
                ask(connection, before)
                silent.enter_context(line.silent())
                ask(connection, then)

        assert_closed(*opened)
        assert_it_works_again(line)


@by(frozen)
def test_a_server_that_is_silent_when_all_is_undone_is_given_up(line: Line) -> None:
    class UnforeseenError(Exception):
        pass

    opened: list[Any] = []

    with ExitStack() as silent:
        silent.enter_context(pytest.raises((UnforeseenError, StoreUnavailable)))
        with line.store.transaction() as connection:
            opened += driver_and_socket(connection)
            ask(connection, [UPDATE])
            silent.enter_context(line.silent())
            raise UnforeseenError

    assert_closed(*opened)
    assert_it_works_again(line)


@by(frozen)
def test_a_server_that_is_silent_from_the_start_is_given_up(line: Line) -> None:
    with line.silent(), pytest.raises(StoreUnavailable), line.store.transaction() as connection:
        ask(connection, [LOOK])

    assert_it_works_again(line)


def ask(connection: Connection, questions: list[str]) -> None:
    for question in questions:
        connection.execute(text(question))


def driver_and_socket(connection: Connection) -> tuple[Any, str]:
    driver: Any = connection.connection.dbapi_connection
    return driver, os.readlink(f"/proc/self/fd/{driver.fileno()}")


def assert_closed(driver: Any, its_socket: str) -> None:
    """On our side nothing is left of the connection, nor of what watched it."""
    assert driver.closed
    wait_until(lambda: its_socket not in open_files(), 10, "the socket's end")
    wait_until(lambda: not watching(), 10, "the end of the watch")


def open_files() -> set[str]:
    """What this process holds open."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(os.readlink(entry))
    return found


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "database watch"]


def assert_it_works_again(line: Line) -> None:
    """And the server has undone, or ended, what the silence had cut off."""
    with patient(), line.store.transaction() as connection:
        ask(connection, [UPDATE, LOOK])
    wait_until(lambda: in_transactions(line) == 0, 20, "the end of what the silence had cut off")


def in_transactions(line: Line) -> int:
    """The connections to this database that are in a transaction, but for the one that asks."""
    statement = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    with patient(), line.admin.reading() as connection:
        return int(connection.scalar(statement) or 0)


@by(cut_off)
def test_the_server_lets_go_of_what_a_client_had_locked_that_is_cut_off_for_good(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network never comes back, so the server does not hear that the client has given up."""
    monkeypatch.setattr(store_module, "_STATEMENT_SECONDS", 2)

    with pytest.raises(StoreUnavailable):
        lock_and_fall_silent(line)

    with patient(), line.admin.transaction() as connection:  # the server needs two seconds, too
        ask(connection, [LOCK])


def lock_and_fall_silent(line: Line) -> None:
    with line.store.transaction() as connection:
        ask(connection, [LOCK])
        line.silence()
        ask(connection, [LOOK])


# --- a server that is only slow ---


@by(frozen)
def test_a_slow_server_is_not_given_up_while_it_answers(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer in time, all of them together beyond it."""
    monkeypatch.setattr(store_module, "_SILENT_SECONDS", 3 * SILENT_SECONDS)
    with line.store.transaction() as connection:
        for _ in range(7):
            ask(connection, [f"SELECT pg_sleep({SILENT_SECONDS / 2})"])


@by(frozen)
def test_a_migration_may_take_as_long_as_it_likes(line: Line) -> None:
    with line.store.transaction(takes_long=True) as connection:
        ask(connection, [f"SELECT pg_sleep({SILENT_SECONDS * 1.5})"])


def test_a_connection_that_is_closed_is_watched_no_longer(
    postgresql: PrivatePostgreSQL, database: str
) -> None:
    """With the limit of 70 seconds: a watch must not outlive its connection."""
    with Store(postgresql.url(database)).transaction() as connection:
        ask(connection, [LOOK])
        assert watching()

    wait_until(lambda: not watching(), 10, "the end of the watch")


# --- a drain ---


def put_calls(recorder: Recorder, calls: int, name: str = "17") -> int:
    for number in range(calls):
        leg = recorder.leg(call_uniqueid=f"{name}.{number}", started_at=after(number))
        recorder.put(leg, ended(leg))
    return calls


def assert_each_once(recorder: Recorder, calls: int) -> None:
    rows = recorder.legs()
    assert len({row["call_uniqueid"] for row in rows}) == len(rows) == calls
    assert {(row["status"], row["leg"]) for row in rows} == {("completed", 1)}
    assert (recorder.waiting(), recorder.reasons()) == ([], [])
    recorder.assert_side_cars_tell_the_same()


@by(frozen, frozen_behind_a_pool, cut_off, answers_held)
def test_a_drain_whose_commit_is_not_answered_loses_and_doubles_nothing(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be done, or not: nobody knows, so the events stay and are stored once more."""
    recorder = Recorder(line.store, tmp_path / "recordings")
    put_calls(recorder, 20)
    look = queries.whole_legs

    with ExitStack() as silent:

        def look_and_fall_silent(connection: Connection, leg_ids: Iterable[str]) -> list[dict[str, Any]]:
            rows = look(connection, leg_ids)
            silent.enter_context(line.silent())
            return rows

        monkeypatch.setattr(queries, "whole_legs", look_and_fall_silent)
        with pytest.raises(StoreUnavailable):
            recorder.drain()

    monkeypatch.setattr(queries, "whole_legs", look)
    assert len(recorder.waiting()) == 40
    wait_until(lambda: in_transactions(line) == 0, 20, "the end of what the silence had cut off")
    with patient():
        assert recorder.drain().stored == 40
        assert_each_once(recorder, 20)


@by(frozen)
def test_a_drain_whose_server_freezes_at_any_moment_loses_and_doubles_nothing(
    line: Line, tmp_path: Path, is_long: bool, tell: Callable[[str], None]
) -> None:
    recorder = Recorder(line.store, tmp_path / "recordings")
    with patient():
        calls = put_calls(recorder, 30, "first")
        assert exit_code(forked(recorder.drain)) == 0
        calls += put_calls(recorder, 30, "second")
        start = time.monotonic()
        assert exit_code(forked(recorder.drain)) == 0
        whole = time.monotonic() - start
    tries, refusals = 60 if is_long else 4, 0

    for number in range(tries):
        calls += put_calls(recorder, 30, str(number))
        refusals += freeze_during_a_drain(line, recorder, whole * number / tries)
        wait_until(lambda: is_drained(recorder), 20, "a server that has just been thawed to store the rest")

    assert refusals > 0
    with patient():
        assert_each_once(recorder, calls)
    tell(f"PostgreSQL frozen in a drain: {tries} times, {refusals} given up, {calls} legs, 0 lost, 0 twice")


def is_drained(recorder: Recorder) -> bool:
    """Drain once; a busy server may let us wait for longer than SILENT_SECONDS even now."""
    with suppress(StoreUnavailable):
        recorder.drain()
        return True
    return False


def freeze_during_a_drain(line: Line, recorder: Recorder, moment: float) -> bool:
    """Freeze so long after the drain's begin; whether the drain has given up, the only other way to end."""

    def work() -> None:
        with suppress(StoreUnavailable):
            recorder.drain()
            os._exit(STORED)

    child = forked(work)
    with ExitStack() as until:
        time.sleep(moment)
        until.enter_context(line.silent())
        code = exit_code(child)
    assert code in (0, STORED)
    return code == 0


# --- the program ---


def test_a_drain_program_gives_a_frozen_server_up_and_says_so(
    postgresql: PrivatePostgreSQL, tmp_path: Path, is_long: bool, tell: Callable[[str], None]
) -> None:
    """With its own limit of 70 seconds."""
    if not is_long:
        pytest.skip("takes 70 seconds: run with --long")
    site = Site(tmp_path / "site", postgresql.url(postgresql.create_database()))
    recorder = Recorder(Store(site.database_url), tmp_path / "recordings")
    recorder.spool = spool.directory_in(str(site.recordings_directory))
    put_calls(recorder, 3)

    with recorder.store.transaction(takes_long=True) as holder:  # or our own would be given up, too
        ask(holder, [LOCK])
        start = time.monotonic()
        program = subprocess.Popen([sys.executable, "-I", "-m", "noojee_agi.sync", str(site.conf)])
        wait_until(lambda: ask_waiting(recorder.store), 20, "the drain at the lock")
        postgresql.freeze()
        try:
            assert program.wait(120) == 0
        finally:
            postgresql.thaw()
            program.kill()
        took = time.monotonic() - start

    assert "Traceback" not in site.log()
    assert "the database has not answered for 70 s" in site.log()
    assert "6 events wait in the spool" in site.log()
    assert recorder.drain().stored == 6
    tell(f"a drain program gave a frozen PostgreSQL up after {took:.0f} s")


def ask_waiting(store: Store) -> bool:
    """Whether somebody waits at a lock."""
    with store.reading() as connection:
        return bool(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
