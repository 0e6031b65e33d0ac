"""Migrations make what tables.py says, by themselves and without harm."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from lab.postgresql import PrivatePostgreSQL
from lab.waiting import wait_until
from sqlalchemy import Inspector, Select, inspect, text

from integration.recorder import Recorder, after, exit_code, forked
from noojee_agi.database import queries, schema, tables
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import REVISION, Store
from noojee_agi.errors import ConfigurationError, StoreUnavailable
from noojee_agi.recordings.recording import Ending

_fork = multiprocessing.get_context("fork")


@pytest.mark.filterwarnings("ignore:.*expression-based index")  # SQLite's are compared below
def test_the_migrations_make_the_tables(empty_database_url: str) -> None:
    store = Store(empty_database_url)

    schema.upgrade(store)

    with store.transaction() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, tables.metadata) == []
        assert set(inspect(connection).get_table_names()) == {*tables.metadata.tables, "alembic_version"}


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_the_migrations_make_every_name_of_constraint_and_index(
    empty_database_url: str, tmp_path: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    """What the comparison does not look at: check constraints, primary and foreign keys' names."""
    migrated = Store(empty_database_url)
    schema.upgrade(migrated)
    if backend == "sqlite":
        made = Store(f"sqlite:///{tmp_path}/made.db")
    else:
        server = request.getfixturevalue("postgresql")
        made = Store(server.url(server.create_database()))
    with made.transaction() as connection:
        tables.metadata.create_all(connection)

    assert _names(migrated) == _names(made)


_INDEXES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name",
    "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname",
}


def _names(store: Store) -> dict[str, object]:
    with store.transaction() as connection:
        look = inspect(connection)
        indexes = connection.execute(text(_INDEXES[connection.dialect.name]))
        return {
            "indexes": {row[0]: row[1] for row in indexes if "alembic" not in row[0]},
            **_tables(look),
        }


def _tables(look: Inspector) -> dict[str, object]:
    return {
        table: (
            look.get_pk_constraint(table),
            sorted(look.get_foreign_keys(table), key=str),
            sorted(look.get_unique_constraints(table), key=str),
            sorted(str(check["name"]) for check in look.get_check_constraints(table)),
            [(column["name"], str(column["type"]), column["nullable"]) for column in look.get_columns(table)],
        )
        for table in tables.metadata.tables
    }


def test_an_upgrade_again_is_harmless(empty_database_url: str, tmp_path: Path) -> None:
    recorder = Recorder(Store(empty_database_url), tmp_path / "recordings")
    schema.upgrade(recorder.store)
    recorder.store_all(recorder.leg(tag="INV-22"))
    before = recorder.legs()

    schema.upgrade(recorder.store)
    schema.upgrade(recorder.store)

    assert recorder.legs() == before
    assert recorder.store.revision() == REVISION


# As the program of that schema left them: a call that is over, with an owner, and one that goes on.
_FIRST = """
INSERT INTO system_variable VALUES ('apiKey', 'hmac-sha256$00$11', '2026-03-01 09:00:00.000000+00:00');
INSERT INTO account VALUES ('60aedd8e-e3a9-589f-9321-179b04961b5e', 'Ann', 'Ann Müller', TRUE);
INSERT INTO account_group VALUES ('60aedd8e-e3a9-589f-9321-179b04961b5e', 'Agent');
INSERT INTO extension_attachment VALUES
  ('410', '2026-03-01T09:00:00.000000+00:00', '60aedd8e-e3a9-589f-9321-179b04961b5e', NULL);
INSERT INTO call_record VALUES
  ('11111111-0000-4000-8000-000000000001', 'pbx1', '17.1', '0123', '600', '555', 'INV-22',
   '2026-03-01T09:30:00.000000+00:00', '2026-03-01T09:31:00.000000+00:00'),
  ('11111111-0000-4000-8000-000000000002', 'pbx1', '17.2', '0123', '600', '555', '',
   '2026-03-01T09:40:00.000000+00:00', NULL);
INSERT INTO recording_leg VALUES
  ('aaaaaaaa-0000-4000-8000-000000000001', '11111111-0000-4000-8000-000000000001', 1, '17.1',
   'PJSIP/410-1', '410', '60aedd8e-e3a9-589f-9321-179b04961b5e', 'Ann', 'INV-22', '/r/1.wav', 'completed',
   '2026-03-01T09:30:00.000000+00:00', '2026-03-01T09:31:00.000000+00:00', 60.0, 960044),
  ('aaaaaaaa-0000-4000-8000-000000000002', '11111111-0000-4000-8000-000000000002', 1, '17.2',
   'PJSIP/trunk-1', '600', NULL, '', '', '/r/2.wav', 'recording',
   '2026-03-01T09:40:00.000000+00:00', NULL, NULL, NULL);
"""
_PARTNERS = """
UPDATE recording_leg SET peer_channel = 'PJSIP/411-2', peer_uniqueid = '17.3';
INSERT INTO extension_attachment VALUES
  ('411', '2026-03-01T09:00:00.000000+00:00', '60aedd8e-e3a9-589f-9321-179b04961b5e',
   '2026-03-01T10:00:00.000000+00:00'),
  ('411', '2026-03-01T10:00:00.000000+00:00', '60aedd8e-e3a9-589f-9321-179b04961b5e',
   '2026-03-01T11:00:00.000000+00:00');
"""
_WITH_PARTNERS = _FIRST.replace("960044)", "960044, '', '')").replace(
    "NULL, NULL, NULL);", "NULL, NULL, NULL, '', '');"
)
_WITH_EVENTS = _WITH_PARTNERS.replace("'', '')", "'', '', '', FALSE, NULL, '')")
_EVENTS = """
INSERT INTO extension_detachment VALUES ('411', '2026-03-01T11:00:00.000000+00:00');
INSERT INTO recording_event VALUES
  ('aaaaaaaa-0000-4000-8000-000000000001', '2026-03-01T09:30:00.000000+00:00', 'started', 'Ann', ''),
  ('aaaaaaaa-0000-4000-8000-000000000002', '2026-03-01T09:40:00.000000+00:00', 'started', NULL, '');
INSERT INTO access_log VALUES
  ('bbbbbbbb-0000-4000-8000-000000000001', '2026-03-01T10:00:00.000000+00:00', 'Ann',
   'aaaaaaaa-0000-4000-8000-000000000001', 'exported', TRUE, '');
"""
DATA = {
    "0001": _FIRST,
    "0002": _FIRST,
    "0003": _WITH_PARTNERS + _PARTNERS,
    "0004": _WITH_EVENTS + _PARTNERS + _EVENTS,
}


def test_there_is_data_of_every_earlier_schema() -> None:
    """A new migration needs its predecessor's data here."""
    assert sorted([*DATA, REVISION]) == sorted(each.revision for each in _scripts().walk_revisions())


@pytest.mark.parametrize("earlier", DATA)
def test_an_upgrade_from_an_earlier_schema_keeps_every_row(
    empty_database_url: str, tmp_path: Path, earlier: str
) -> None:
    store = Store(empty_database_url)
    _fill(store, earlier)
    before = _rows(store)
    with pytest.raises(StoreUnavailable, match=f"has schema {earlier}, .*run noojee-agi db upgrade"):
        schema.open_store(empty_database_url)

    schema.upgrade(store)

    assert store.revision() == REVISION
    after_upgrade = _rows(store)
    has_partners = earlier >= "0003"
    peer = ("PJSIP/411-2", "17.3") if has_partners else ("", "")
    for row in after_upgrade["recording_leg"]:
        assert (row["peer_channel"], row["peer_uniqueid"]) == peer
        assert (row["held"], row["purged_at"], row["purged_file"], row["extensions"]) == (0, None, "", "")
    assert [(row["what"], row["login"]) for row in after_upgrade["recording_event"]] == [
        ("started", "Ann"),
        ("started", None),
    ]
    assert [row["extension"] for row in after_upgrade["extension_detachment"]] == (
        ["411"] if has_partners else []
    )
    for table, rows in before.items():
        assert [
            dict(row.items() & old.items()) for row, old in zip(after_upgrade[table], rows, strict=True)
        ] == rows
    recorder = Recorder(store, tmp_path / "recordings")
    recorder.store_all(Ending("aaaaaaaa-0000-4000-8000-000000000002", "completed", after(3600), 44_000, 2.7))
    assert [leg["status"] for leg in recorder.legs()] == ["completed", "completed"]
    assert [leg["owner"] for leg in recorder.legs()] == ["Ann", None]


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(schema.alembic_settings())


def _fill(store: Store, revision: str) -> None:
    with store.transaction() as connection:
        settings = schema.alembic_settings()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)
        for statement in DATA[revision].strip().split(";\n"):
            connection.exec_driver_sql(statement)


def _rows(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Of each table as it is now, ordered by its first columns."""
    with store.reading() as connection:
        return {
            name: [
                dict(row._mapping) for row in connection.execute(text(f"SELECT * FROM {name} ORDER BY 1, 2"))
            ]
            for name in tables.metadata.tables
            if inspect(connection).has_table(name)
        }


@pytest.mark.parametrize(
    ("statement", "indexes"),
    [
        (queries.open_legs_statement("pbx1"), ["ix_recording_leg_open"]),
        (
            queries.legs_statement(Filter(tag="INV-22")),
            ["ix_recording_leg_tag", "ix_call_record_external_reference"],
        ),
        (
            queries.legs_statement(Filter(uniqueid="1762420501.76")),
            ["ix_recording_leg_uniqueid", "ix_recording_leg_peer_uniqueid", "ix_call_record_uniqueid"],
        ),
        (
            queries.legs_statement(Filter(uniqueid="pbx1-1762420501.76")),
            ["ix_recording_leg_uniqueid", "ix_recording_leg_peer_uniqueid", "ix_call_record_uniqueid"],
        ),
        (
            queries.legs_statement(Filter(of_calls="1762420501.76")),
            ["ix_recording_leg_uniqueid", "ix_recording_leg_peer_uniqueid", "ix_call_record_uniqueid"],
        ),
        (
            queries.legs_statement(Filter(ended_from=after(0), ended_to=after(3600))),
            ["ix_recording_leg_ended_at"],
        ),
    ],
    ids=["open", "tag", "uniqueid", "uniqueid with the system's name", "of its calls", "by the end"],
)
def test_indexes_find_legs_and_nothing_else_is_read_through(
    statement: Select[Any], indexes: list[str], store: Store, backend: str
) -> None:
    with store.transaction() as connection:
        if backend == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        compiled = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
        explain = "EXPLAIN QUERY PLAN " if backend == "sqlite" else "EXPLAIN "
        steps = [str(row) for row in connection.exec_driver_sql(explain + compiled)]

    if backend == "postgresql":
        indexes = indexes[:1]  # for an empty table it may take any
    assert [index for index in indexes if not any(index in step for step in steps)] == []
    read_through = [step for step in steps if "SCAN" in step or "Seq Scan" in step]
    assert [step for step in read_through if "ix_recording_leg_open" not in step] == []
    assert [step for step in steps if "(server=?)" in step] == []


def test_the_revision_of_the_program_is_the_newest_migration(empty_database_url: str) -> None:
    store = Store(empty_database_url)
    assert store.revision() == ""

    schema.upgrade(store)

    assert store.revision() == REVISION


def test_a_newer_schema_is_left_alone_and_said_in_a_sentence(database_url: str) -> None:
    store = Store(database_url)
    with store.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    for work in (lambda: schema.open_store(database_url), lambda: schema.upgrade(store)):
        with pytest.raises(StoreUnavailable) as caught:
            work()
        assert str(caught.value) == (
            f"{store.name} has a newer schema than this program ({REVISION}): install the newer noojee-agi"
        )
    assert store.revision() == "9999"


def test_a_sqlite_database_is_made_when_it_is_opened(tmp_path: Path) -> None:
    store = schema.open_store(f"sqlite:///{tmp_path}/noojee.db")

    assert store.revision() == REVISION


@pytest.mark.postgresql
def test_a_postgresql_database_is_not_made_unasked(request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("postgresql")
    url = server.url(server.create_database())

    with pytest.raises(StoreUnavailable, match="run noojee-agi db upgrade"):
        schema.open_store(url)

    assert Store(url).revision() == ""


def test_two_processes_that_start_at_the_same_moment_make_one_sqlite_database(tmp_path: Path) -> None:
    for number in range(12):
        url = f"sqlite:///{tmp_path}/noojee-{number}.db"
        start = _fork.Barrier(3)

        def work(url: str = url, start: Barrier = start) -> None:
            start.wait(10)
            schema.open_store(url)

        children = [forked(work) for _ in range(3)]

        assert [exit_code(child) for child in children] == [0, 0, 0]
        assert Store(url).revision() == REVISION


def test_two_upgrades_at_the_same_moment_end_in_one_schema(empty_database_url: str) -> None:
    """Two servers are installed together. One may be told to try again; nothing may be half done."""
    start = _fork.Barrier(2)

    def work() -> None:
        start.wait(10)
        schema.upgrade(Store(empty_database_url))

    children = [forked(work), forked(work)]

    assert 0 in [exit_code(child) for child in children]
    schema.upgrade(Store(empty_database_url))
    assert Store(empty_database_url).revision() == REVISION


def test_two_upgrades_of_an_earlier_schema_at_the_same_moment_both_succeed(empty_database_url: str) -> None:
    _fill(Store(empty_database_url), "0002")
    start = _fork.Barrier(2)

    def work() -> None:
        start.wait(10)
        schema.upgrade(Store(empty_database_url))

    assert [exit_code(child) for child in [forked(work), forked(work)]] == [0, 0]


@pytest.mark.postgresql
def test_an_upgrade_waits_for_a_drain_that_is_at_work(postgresql: PrivatePostgreSQL) -> None:
    """Which locks its calls, and then changes their legs: neither is the victim of a deadlock."""
    store = Store(postgresql.url(postgresql.create_database()))
    _fill(store, "0002")
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with store.transaction() as drain:
        drain.execute(text("SELECT id FROM call_record FOR UPDATE"))
        child = forked(lambda: schema.upgrade(store))

        def is_waiting() -> bool:
            with Store(str(store.url.render_as_string(hide_password=False))).reading() as connection:
                return bool(connection.scalar(waiting))

        wait_until(is_waiting, 20, "the upgrade to wait")
        drain.execute(text("UPDATE recording_leg SET bytes = 1"))

    assert exit_code(child) == 0
    assert store.revision() == REVISION


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://user:hunter2@host/db", "sqlite", "oracle+x://a:hunter2@b"]
)
def test_an_url_of_no_supported_database_is_a_configuration_error_without_the_url(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        schema.open_store(url)

    assert str(caught.value).startswith("[database] url")
    assert "hunter2" not in str(caught.value)
