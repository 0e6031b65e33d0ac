"""Everything through a real pgbouncer that gives a connection away after each transaction."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]
import pytest
from lab.pgbouncer import PrivatePgBouncer
from lab.postgresql import PrivatePostgreSQL
from lab.site import Site
from sqlalchemy import text

from integration.recorder import Recorder, after, ended, exit_code, forked
from noojee_agi.database import intake
from noojee_agi.database import store as store_module
from noojee_agi.database.store import Store
from noojee_agi.errors import StoreUnavailable
from noojee_agi.recordings import recording, spool
from noojee_agi.sync import drain

pytestmark = pytest.mark.postgresql

_fork = multiprocessing.get_context("fork")
HOSTS = 8
SETTINGS = {
    "lock_timeout": "5s",
    "statement_timeout": "1min",
    "idle_in_transaction_session_timeout": "1min",
    "synchronous_commit": "on",
}


@pytest.fixture
def pooled(bouncer: PrivatePgBouncer, database: str) -> Store:
    return Store(bouncer.url(database))


def raw_connection(bouncer: PrivatePgBouncer, database: str, **more: str) -> Any:
    """A stranger's, who does not know our settings."""
    return psycopg2.connect(host="127.0.0.1", port=bouncer.port, user="postgres", dbname=database, **more)


def shown(connection: Any) -> dict[str, str]:
    """What the server says of our settings, and which of the pool's connections this is."""
    with connection.cursor() as cursor:
        found = {}
        for name in SETTINGS:
            cursor.execute(f"SHOW {name}")
            found[name] = cursor.fetchone()[0]
        cursor.execute("SELECT pg_backend_pid()")
        return {**found, "server": cursor.fetchone()[0]}


# --- every way in ---


def test_every_command_and_the_drain_work_through_the_pool(
    bouncer: PrivatePgBouncer, postgresql: PrivatePostgreSQL, tmp_path: Path
) -> None:
    name = postgresql.create_database()
    site = Site(tmp_path / "site", bouncer.url(name))  # db upgrade, apikey set
    recorder = Recorder(Store(site.database_url), tmp_path / "recordings")
    recorder.spool = spool.directory_in(str(site.recordings_directory))
    leg = recorder.leg(tag="INV-22", agent_login_name="fred", agent_known=True)

    site.cli("account", "add", "fred")
    site.cli("attach", "fred", "410")
    recorder.put(leg)
    assert site.cli("sync").startswith("1 events stored")
    recorder.put(ended(leg))
    run_program("sync", site)
    site.snapshot.unlink()
    run_program("sync.renew_snapshot", site)

    [row] = site.legs("--tag", "INV-22", "--as", "fred")
    assert (row["status"], row["owner"]) == ("completed", "fred")
    assert '"fred"' in site.snapshot.read_text()
    assert "ok    database" in site.run_cli("check").stdout
    assert "ERROR" not in site.log()


def run_program(module: str, site: Site) -> None:
    command = [sys.executable, "-I", "-m", f"noojee_agi.{module}", str(site.conf)]
    subprocess.run(command, check=True, timeout=60)


def test_the_pool_takes_our_connection_without_ignore_startup_parameters(
    bouncer: PrivatePgBouncer, database: str, pooled: Store
) -> None:
    """Settings that came with the connection would be refused, so ours come with the transaction."""
    with pytest.raises(psycopg2.OperationalError, match="unsupported startup parameter"):
        raw_connection(bouncer, database, options="-c lock_timeout=5s")

    with pooled.transaction() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


# --- settings ---


def test_the_settings_hold_in_the_transaction_and_reach_no_other_client(
    bouncer: PrivatePgBouncer, postgresql: PrivatePostgreSQL, database: str, pooled: Store
) -> None:
    with Store(postgresql.url(database)).transaction() as admin:
        admin.execute(text(f"ALTER DATABASE {database} SET synchronous_commit = off"))
    ours = []

    for _ in range(3):
        with pooled.transaction() as connection:
            ours.append(shown(connection.connection.dbapi_connection))
    with closing(raw_connection(bouncer, database)) as stranger:
        theirs = shown(stranger)

    for found in ours:
        assert found.pop("server") == theirs["server"]
        assert found == SETTINGS
    del theirs["server"]
    assert theirs == {**dict.fromkeys(SETTINGS, "0"), "synchronous_commit": "off"}


def test_a_transaction_that_fails_leaves_its_settings_to_nobody(
    bouncer: PrivatePgBouncer, database: str, pooled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long the server lets us be idle, too: on a busy machine we must not be that.
    monkeypatch.setattr(store_module, "_STATEMENT_SECONDS", 1)

    with pytest.raises(StoreUnavailable, match="statement timeout"), pooled.transaction() as connection:
        connection.execute(text("SELECT pg_sleep(20)"))

    with closing(raw_connection(bouncer, database)) as stranger:
        assert shown(stranger)["statement_timeout"] == "0"


def test_a_lock_is_not_waited_for_longer_than_the_transactions_own_limit(
    database: str, pooled: Store, postgresql: PrivatePostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LOCK_SECONDS", 0.2)

    with Store(postgresql.url(database)).transaction() as holder:
        holder.execute(text("LOCK TABLE recording_leg"))
        with pytest.raises(StoreUnavailable, match="lock timeout"), pooled.transaction() as connection:
            connection.execute(text("SELECT count(*) FROM recording_leg"))


# --- many at once ---


def hosts(pooled: Store, folder: Path) -> list[Recorder]:
    return [Recorder(pooled, folder / f"host{number}") for number in range(HOSTS)]


def put_calls(host: Recorder, calls: int) -> int:
    """The same uniqueids on every host."""
    for number in range(calls):
        legs = [
            host.leg(server=host.directory.name, call_uniqueid=f"17.{number}", started_at=after(leg))
            for leg in range(2)
        ]
        host.put(*legs, *map(ended, legs))
    return 2 * calls


def test_eight_hosts_drain_at_once_through_a_pool_of_two(
    bouncer: PrivatePgBouncer,
    pooled: Store,
    tmp_path: Path,
    is_long: bool,
    tell: Callable[[str], None],
) -> None:
    rounds = 20 if is_long else 1
    ours = hosts(pooled, tmp_path)
    legs = 0
    for _ in range(rounds):
        legs += sum(put_calls(host, 20) for host in ours)
        drain_at_once(ours)

    rows = ours[0].legs()
    assert [host.waiting() + host.reasons() for host in ours] == [[]] * HOSTS
    assert len(rows) == legs
    assert {row["status"] for row in rows} == {"completed"}
    numbers = {(row["server"], row["call_uniqueid"], row["leg"]) for row in rows}
    assert len(numbers) == legs
    assert 0 < len(servers(bouncer, pooled)) <= bouncer.pool_size == 2
    tell(f"{HOSTS} hosts through a pgbouncer of two: {rounds} rounds, {legs} legs, 0 lost, 0 twice")


def drain_at_once(ours: list[Recorder]) -> None:
    start = _fork.Barrier(len(ours))

    def work(host: Recorder) -> Callable[[], None]:
        def run() -> None:
            start.wait(20)
            host.drain()

        return run

    children = [forked(work(host)) for host in ours]
    assert [exit_code(child) for child in children] == [0] * len(ours)


def servers(bouncer: PrivatePgBouncer, pooled: Store) -> list[Any]:
    """The pool's connections to this database."""
    return [row for row in bouncer.show("SERVERS") if row["database"] == pooled.url.database]


# --- when something dies ---


def test_a_drain_killed_in_the_middle_leaves_its_connection_in_no_transaction(
    pooled: Store, tmp_path: Path, is_long: bool, tell: Callable[[str], None]
) -> None:
    """The pool must undo what the dead client had begun, before the next client gets the connection."""
    host = Recorder(pooled, tmp_path / "pbx")
    kills = 50 if is_long else 5
    legs = []

    for number in range(kills):
        legs.append(host.leg(call_uniqueid=f"17.{number}"))
        host.put(legs[-1], ended(legs[-1]))
        assert exit_code(forked(lambda: store_and_die(host))) == -signal.SIGKILL
        assert len(host.legs()) == number
        assert host.drain().stored == 2

    assert sorted(row["id"] for row in host.legs()) == sorted(leg.id for leg in legs)
    tell(f"kill -9 of a client of pgbouncer in its transaction: {kills} kills, 0 lost, 0 twice")


def store_and_die(host: Recorder) -> None:
    """As a drain that is killed just before its commit."""
    with host.store.transaction() as connection:
        intake.store(connection, [recording.from_json(line.decode()) for line in host.waiting()])
        os.kill(os.getpid(), signal.SIGKILL)


def test_nothing_is_lost_when_the_pool_is_killed_in_the_middle(
    postgresql: PrivatePostgreSQL, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_BATCH", 2)
    with PrivatePgBouncer(postgresql, tmp_path / "pgbouncer") as mortal:
        host = Recorder(Store(mortal.url(database)), tmp_path / "pbx")
        put_calls(host, 3)
        with pytest.raises(StoreUnavailable):
            drain.run(host.store, host.spool, lambda _: mortal.kill())

    assert len(host.waiting()) == 12
    again = Recorder(Store(postgresql.url(database)), tmp_path / "other")
    again.spool = host.spool
    assert again.drain().stored == 12
    assert [row["status"] for row in again.legs()] == ["completed"] * 6
