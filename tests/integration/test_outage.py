"""The database away: everything stays in the spool, and arrives when it is back."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from lab.postgresql import PrivatePostgreSQL
from lab.site import Site
from sqlalchemy import text

from integration.recorder import Recorder, after, ended
from noojee_agi.database import schema
from noojee_agi.database import store as store_module
from noojee_agi.database.schema import open_store
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError, StoreUnavailable
from noojee_agi.recordings.recording import Event
from noojee_agi.sync import drain

Trouble = Callable[[Path], AbstractContextManager[str]]
SECRET = "hunter2-and-more"


def fill(recorder: Recorder) -> list[bytes]:
    legs = [recorder.leg(started_at=after(number)) for number in range(3)]
    return recorder.put(*legs, *map(ended, legs))


def assert_all_stay(recorder: Recorder, lines: list[bytes]) -> str:
    """What the error says."""
    with pytest.raises(StoreUnavailable) as caught:
        recorder.drain()
    assert recorder.waiting() == lines
    assert recorder.reasons() == []
    return str(caught.value)


def assert_all_arrive(recorder: Recorder) -> None:
    assert recorder.drain().stored == 6
    assert [row["status"] for row in recorder.legs()] == ["completed"] * 3
    assert recorder.waiting() == []
    recorder.assert_side_cars_tell_the_same()


@pytest.mark.postgresql
def test_nothing_is_lost_while_postgresql_is_stopped(
    postgresql: PrivatePostgreSQL, postgresql_template: str, tmp_path: Path
) -> None:
    recorder = Recorder(
        Store(postgresql.url(postgresql.create_database(postgresql_template))), tmp_path / "recordings"
    )
    lines = fill(recorder)

    postgresql.stop()
    try:
        message = assert_all_stay(recorder, lines)
    finally:
        postgresql.start()

    assert "cannot be used" in message
    assert "\n" not in message
    assert_all_arrive(recorder)


@pytest.mark.postgresql
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_nothing_is_lost_when_postgresql_ends_in_the_middle(
    postgresql: PrivatePostgreSQL,
    postgresql_template: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    name = postgresql.create_database(postgresql_template)
    recorder = Recorder(Store(postgresql.url(name)), tmp_path / "recordings")
    # The lab's server keeps commits in memory for a moment; a real one does not.
    recorder.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = on"))
    lines = fill(recorder)
    monkeypatch.setattr(drain, "_BATCH", 2)
    batches = []

    def stop_after_the_first(events: Sequence[Event]) -> None:
        batches.append(len(events))
        postgresql.stop(mode)

    try:
        with pytest.raises(StoreUnavailable):
            drain.run(recorder.store, recorder.spool, stop_after_the_first)
    finally:
        postgresql.start()

    assert batches == [2]
    assert recorder.waiting() == lines
    assert recorder.drain().stored == 6
    assert [row["status"] for row in recorder.legs()] == ["completed"] * 3


@contextmanager
def missing_folder(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/later/noojee.db"
    (folder / "later").mkdir()


@contextmanager
def no_database(folder: Path) -> Iterator[str]:
    file = folder / "noojee.db"
    file.write_text("this is no database, but somebody's letter\n" * 100)
    yield f"sqlite:///{file}"
    file.unlink()


@contextmanager
def a_folder(folder: Path) -> Iterator[str]:
    (folder / "noojee.db").mkdir()
    yield f"sqlite:///{folder}/noojee.db"
    (folder / "noojee.db").rmdir()


@pytest.mark.parametrize("trouble", [missing_folder, no_database, a_folder])
def test_nothing_is_lost_while_sqlite_cannot_be_used(
    trouble: Trouble, tmp_path: Path, sqlite_template: Path
) -> None:
    with trouble(tmp_path) as url:
        recorder = Recorder(Store(url), tmp_path / "recordings")
        lines = fill(recorder)
        message = assert_all_stay(recorder, lines)
        with pytest.raises(StoreUnavailable):
            open_store(url)
    shutil.copy(sqlite_template, url.removeprefix("sqlite:///"))

    assert "noojee.db cannot be used" in message
    assert_all_arrive(recorder)


def test_nothing_is_lost_while_the_tables_are_missing(empty_database_url: str, tmp_path: Path) -> None:
    recorder = Recorder(Store(empty_database_url), tmp_path / "recordings")
    lines = fill(recorder)

    assert_all_stay(recorder, lines)

    schema.upgrade(recorder.store)
    assert_all_arrive(recorder)


def test_nothing_is_lost_while_somebody_else_holds_a_lock(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LOCK_SECONDS", 0.2)
    recorder = Recorder(Store(database_url), tmp_path / "recordings")
    lines = fill(recorder)
    statement = "LOCK TABLE recording_leg" if database_url.startswith("postgresql") else "SELECT 1"

    with Store(database_url).transaction() as holder:
        holder.execute(text(statement))
        assert_all_stay(recorder, lines)

    assert_all_arrive(recorder)


@pytest.mark.postgresql
def test_nothing_is_lost_while_postgresql_only_reads(
    postgresql: PrivatePostgreSQL, postgresql_template: str, tmp_path: Path
) -> None:
    name = postgresql.create_database(postgresql_template)
    recorder = Recorder(Store(postgresql.url(name)), tmp_path / "recordings")
    lines = fill(recorder)
    recorder.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))

    assert_all_stay(recorder, lines)

    admin = Store(postgresql.url("postgres"))
    with admin.transaction() as connection:
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = off"))
    assert_all_arrive(recorder)


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("sabotage", "repair"),
    [
        ("REVOKE INSERT ON recording_leg FROM clerk", "GRANT INSERT ON recording_leg TO clerk"),
        ("ALTER TABLE recording_leg RENAME tag TO label", "ALTER TABLE recording_leg RENAME label TO tag"),
    ],
    ids=["not permitted", "a column is missing"],
)
def test_what_an_administrator_can_mend_sets_no_event_aside(
    postgresql: PrivatePostgreSQL, postgresql_template: str, tmp_path: Path, sabotage: str, repair: str
) -> None:
    name = postgresql.create_database(postgresql_template)
    admin = Recorder(Store(postgresql.url(name)), tmp_path / "other")
    admin.execute(
        text(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'clerk')"
            " THEN CREATE ROLE clerk LOGIN; END IF; END $$"
        )
    )
    admin.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk"))
    admin.execute(text(sabotage))
    clerk = Store(postgresql.url(name).replace("postgres@", "clerk@"))
    recorder = Recorder(clerk, tmp_path / "recordings")
    lines = fill(recorder)

    assert_all_stay(recorder, lines)

    admin.execute(text(repair))
    assert_all_arrive(recorder)


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg2://postgres:{secret}@127.0.0.1:{port}/there_is_none",
        "postgresql+psycopg2://postgres:{secret}@127.0.0.1:1/noojee",
        "postgresql+psycopg2://postgres:{secret}@no-such-host.invalid/noojee",
        "postgresql+psycopg2://postgres:x@{secret}@127.0.0.1:{port}/noojee",
        "postgresql+psycopg2://postgres:x/{secret}@127.0.0.1:{port}/noojee",
        "postgresql+psycopg2://postgres@127.0.0.1:1/noojee?password={secret}",
    ],
    ids=["no such database", "port closed", "no such host", "password with @", "password with /", "query"],
)
def test_no_error_tells_the_password(postgresql: PrivatePostgreSQL, address: str) -> None:
    url = address.format(secret=SECRET, port=postgresql.port)

    with pytest.raises(NoojeeError) as caught:
        open_store(url)

    assert SECRET not in str(caught.value)


# --- the background drain, as a process ---


@pytest.fixture
def site_with_a_waiting_leg(tmp_path: Path) -> tuple[Site, Recorder]:
    site = Site(tmp_path / "site")
    recorder = Recorder(Store(site.database_url), tmp_path / "recordings")
    recorder.spool = str(site.recordings_directory / ".spool")
    leg = recorder.leg()
    recorder.put(leg, ended(leg))
    return site, recorder


def run_background_drain(site: Site) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-m", "noojee_agi.sync", str(site.conf)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_background_drain_says_one_line_when_the_database_is_away(
    site_with_a_waiting_leg: tuple[Site, Recorder],
) -> None:
    site, recorder = site_with_a_waiting_leg
    site.configure({"database.url": f"sqlite:///{site.folder}/missing/noojee.db"})

    done = run_background_drain(site)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    [line] = [line for line in site.log().splitlines() if "ERROR" in line]
    assert "2 events wait in the spool" in line
    assert "Traceback" not in site.log()

    site.configure()
    run_background_drain(site)
    assert [row["status"] for row in recorder.legs()] == ["completed"]


def test_the_background_drain_renews_the_snapshot(site_with_a_waiting_leg: tuple[Site, Recorder]) -> None:
    site, recorder = site_with_a_waiting_leg
    file = site.state_directory / "snapshot.json"
    file.unlink()

    run_background_drain(site)

    assert file.exists()
    assert recorder.waiting() == []


def test_the_background_drain_meets_an_event_of_a_newer_program(
    site_with_a_waiting_leg: tuple[Site, Recorder],
) -> None:
    site, recorder = site_with_a_waiting_leg
    recorder.put_text('{"event": "paused"}')

    run_background_drain(site)

    assert [row["status"] for row in recorder.legs()] == ["completed"]
    assert len(recorder.reasons()) == 1
    assert "an event is set aside as" in site.log()


def test_a_broken_sqlite_file_is_not_replaced(tmp_path: Path) -> None:
    """It may be repaired; a new one in its place would hide what is in it."""
    file = tmp_path / "noojee.db"
    file.write_bytes(os.urandom(4096))
    before = file.read_bytes()

    with pytest.raises(StoreUnavailable):
        open_store(f"sqlite:///{file}")

    assert file.read_bytes() == before
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(file).execute("SELECT * FROM recording_leg")
