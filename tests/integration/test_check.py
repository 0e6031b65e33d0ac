"""`noojee-agi check`: each stage that fails says what to do, and the others are still looked at.

Faults in folders and files are in test_check_faults.py; here are those of PostgreSQL.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from alembic import command as alembic_command
from lab.checked import KEY, Checked
from lab.postgresql import PrivatePostgreSQL
from lab.site import PROGRAMS
from sqlalchemy import text

from noojee_agi.actions import access
from noojee_agi.cli import check
from noojee_agi.cli.check import programs
from noojee_agi.cli.check.stage import FAILED, NOT_SEEN, Stage
from noojee_agi.config import Config
from noojee_agi.database import health, schema, settings
from noojee_agi.database.store import Store

STAGES = (
    *("configuration", "asterisk", "recordings", "state", "free space", "programs", "links", "modules"),
    *("database", "clocks", "apiKey", "key of calls", "dialplan", "queues", "recorders"),
    *(
        "spool",
        "drains",
        "rejected",
        "former spools",
        "open legs",
        "server name",
        "server",
        "http",
        "manager",
    ),
)
OF_ASTERISK = ("asterisk", "links", "modules", "key of calls", "dialplan", "queues", "recorders")
Change = Callable[[Config], Config]


@pytest.fixture
def healthy(database_url: str, tmp_path: Path) -> Config:
    """Everything that check looks at, as it should be, on a machine where no Asterisk runs."""
    conf = tmp_path / "noojee_agi.conf"
    conf.write_text("")
    conf.chmod(0o640)
    for name in ("recordings", "state"):
        (tmp_path / name).mkdir(mode=0o750)
    with Store(database_url).transaction() as connection:
        settings.set_key_digest(connection, access.digest(KEY))
    return Config(
        path=str(conf),
        database_url=database_url,
        recordings_directory=str(tmp_path / "recordings"),
        recordings_min_free_percent=0,
        state_directory=str(tmp_path / "state"),
        server_listen="",
    )


@pytest.fixture(autouse=True)
def programs_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second, and a fault of another stage is none of theirs: see test_check_programs.py."""
    monkeypatch.setattr(programs, "check", lambda *_: "not run")


def looked_at(config: Config) -> dict[str, Stage]:
    stages = list(check.stages(config, str(PROGRAMS)))
    assert tuple(stage.name for stage in stages) == STAGES
    return {stage.name: stage for stage in stages}


def test_what_is_not_seen_is_neither_a_failure_nor_ok(healthy: Config) -> None:
    stages = looked_at(healthy)

    assert {name for name, stage in stages.items() if stage.state == FAILED} == set()
    assert tuple(name for name, stage in stages.items() if stage.state == NOT_SEEN) == OF_ASTERISK
    assert re.search(r"start it first$|/noojee-agi check --asterisk-conf /", stages["modules"].text)


def _database_away(config: Config) -> Config:
    if config.database_url.startswith("sqlite"):
        return config._replace(database_url="sqlite:////nonexistent/folder/noojee.db")
    return config._replace(database_url="postgresql+psycopg2://postgres:hunter2@127.0.0.1:1/noojee")


def _newer_schema(config: Config) -> Config:
    with Store(config.database_url).transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    return config


def _manager_away(config: Config) -> Config:
    return config._replace(manager_port=1, manager_username="noojee", manager_secret="hunter2")


@pytest.mark.parametrize(
    ("change", "stage", "advice"),
    [
        (_database_away, "database", "start"),
        (_newer_schema, "database", "pip install"),
        (_manager_away, "manager", "see [manager]"),
    ],
)
def test_what_only_another_machine_can_mend_is_named_with_what_to_do(
    healthy: Config, change: Change, stage: str, advice: str
) -> None:
    stages = looked_at(change(healthy))

    assert {name for name, each in stages.items() if each.state == FAILED} == {stage}
    if not stages[stage].cure.startswith("install -d"):  # SQLite's folder
        assert advice in stages[stage].text
    assert all("\n" not in each.text and "hunter2" not in each.text for each in stages.values())


def test_a_check_changes_nothing_in_the_folders(healthy: Config) -> None:
    before = _all_below(Path(healthy.path).parent)

    looked_at(healthy)

    assert _all_below(Path(healthy.path).parent) == before


def _all_below(folder: Path) -> list[tuple[str, int]]:
    return sorted(
        (str(path), stat.S_IMODE(path.stat().st_mode))
        for path in folder.rglob("*")
        if not path.name.endswith(("-wal", "-shm"))
    )


# --- PostgreSQL: each cure is run as it is printed ---


@pytest.fixture
def site(postgresql: PrivatePostgreSQL, database: str, sqlite_template: Path) -> Iterator[Checked]:
    folder = Path(tempfile.mkdtemp(prefix="noojee-agi-", dir="/tmp"))
    folder.chmod(0o755)
    checked = Checked(folder, PROGRAMS, sqlite_template, postgresql.url(database))
    checked.tool("sudo", f'shift 2\nexec {postgresql.client()} "$@"')
    yield checked
    shutil.rmtree(folder)


def cured(site: Checked, words: str, patched: Callable[[], None] | None = None) -> Stage:
    failed = site.failed(patched=patched)
    assert set(failed) == {"database"}, failed
    assert words in failed["database"].text
    site.cure(failed["database"].cure)
    assert site.failed() == {}
    return failed["database"]


def execute(url: str, *statements: str) -> None:
    with Store(url).engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.postgresql
def test_a_healthy_postgresql_has_no_fault(site: Checked) -> None:
    assert site.failed() == {}


@pytest.mark.postgresql
def test_a_former_schema(site: Checked) -> None:
    execute(site.url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    alembic = schema.alembic_settings()
    with Store(site.url).transaction() as connection:
        alembic.attributes["connection"] = connection
        alembic_command.upgrade(alembic, "0002")
        settings.set_key_digest(connection, access.digest(KEY))

    cured(site, "has schema 0002, this program needs schema")


@pytest.mark.postgresql
def test_no_tables(site: Checked, postgresql: PrivatePostgreSQL) -> None:
    execute(site.url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")

    failed = site.failed()["database"]
    assert "has no tables" in failed.text
    site.cure(failed.cure)

    assert site.failed() == {}  # the key came back with the settings


@pytest.mark.postgresql
def test_a_database_that_takes_no_writing(site: Checked) -> None:
    name = Store(site.url).url.database
    execute(site.url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')

    cured(site, "read-only transaction")


@pytest.mark.postgresql
def test_a_user_without_rights(site: Checked) -> None:
    execute(site.url, "DROP ROLE IF EXISTS clerk", "CREATE ROLE clerk LOGIN")
    before, site.url = site.url, site.url.replace("postgres@", "clerk@")
    site.configure()
    execute(before, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk")
    try:
        cured(site, "user clerk has no right to INSERT in system_variable")
    finally:
        execute(before, "DROP OWNED BY clerk", "DROP ROLE clerk")


@pytest.mark.postgresql
def test_a_database_that_is_not_there(site: Checked) -> None:
    name = Store(site.url).url.database
    site.url = site.url.replace(f"/{name}", f"/{name}_new")
    site.configure()

    failed = site.failed()["database"]
    assert f'database "{name}_new" does not exist' in failed.text
    assert failed.cure == f"sudo -u postgres createdb {name}_new"
    site.cure(failed.cure)

    assert "has no tables" in site.failed()["database"].text


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("was", "becomes", "words", "cure"),
    [
        ("postgres@", "stranger@", 'role "stranger" does not exist', "the user and password in url"),
        ("127.0.0.1:", "nowhere.invalid:", "could not translate host name", "the host in url of [database]"),
        (":", "127.0.0.1:1/", "refused", "systemctl start postgresql"),
    ],
)
def test_an_address_that_is_wrong(site: Checked, was: str, becomes: str, words: str, cure: str) -> None:
    right = site.url
    if was == ":":
        site.url = f"postgresql+psycopg2://postgres@{becomes}noojee"
    else:
        site.url = right.replace(was, becomes)
    site.configure()

    failed = site.failed()
    assert set(failed) == {"database"}
    assert words in failed["database"].text
    assert failed["database"].cure.startswith(cure)

    site.url = right
    site.configure()
    assert site.failed() == {}


@pytest.mark.postgresql
@pytest.mark.parametrize(("seconds", "which"), [(90.0, "ahead of"), (-90.0, "behind")])
def test_clocks_that_are_apart(site: Checked, seconds: float, which: str) -> None:
    """Nobody but the whole machine has another clock: what the database says of its own is moved."""

    def other_clock() -> None:
        asked = health.clock_difference
        health.clock_difference = lambda store: asked(store) + seconds

    failed = site.failed(patched=other_clock)

    assert set(failed) == {"clocks"}
    assert f"the database's clock is 90 s {which} this machine's" in failed["clocks"].text
    assert failed["clocks"].cure == "timedatectl set-ntp true (on both machines)"
    assert site.failed() == {}


@pytest.mark.postgresql
@pytest.mark.parametrize("seconds", [(-20.0, 0.0), (0.0, 20.0)], ids=["the question", "the answer"])
def test_an_answer_that_takes_its_time_is_no_other_clock(
    site: Checked, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float]
) -> None:
    """Of a busy machine, say: the database may have looked at its clock at any moment of that."""
    own = iter(seconds)
    late = SimpleNamespace(time=lambda: time.time() + next(own))
    monkeypatch.setattr(health, "time", late)

    assert health.clock_difference(Store(site.url)) == 0.0
