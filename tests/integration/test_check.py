"""`noojee-agi check`: each stage that fails says what to do, and the others are still looked at."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from noojee_agi.actions import access
from noojee_agi.cli import check
from noojee_agi.cli.install import AGI_PROGRAMS
from noojee_agi.config import Config
from noojee_agi.database import settings
from noojee_agi.database.store import Store
from noojee_agi.recordings import files, history, rejected

STAGES = (
    *("configuration", "recordings", "state", "free space", "programs"),
    *("database", "apiKey", "spool", "rejected", "former spools", "open legs", "server name"),
    *("server", "manager"),
)
Change = Callable[[Config], Config]


@pytest.fixture
def healthy(database_url: str, tmp_path: Path) -> Config:
    """Everything that check looks at, as it should be."""
    conf = tmp_path / "noojee_agi.conf"
    conf.write_text("")
    conf.chmod(0o640)
    for name in ("recordings", "state"):
        (tmp_path / name).mkdir(mode=0o750)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in (*AGI_PROGRAMS, "finish_record.py"):
        (programs / name).touch(mode=0o755)
    with Store(database_url).transaction() as connection:
        settings.set_key_digest(connection, access.digest("a key of some length"))
    return Config(
        path=str(conf),
        database_url=database_url,
        recordings_directory=str(tmp_path / "recordings"),
        recordings_min_free_percent=0,
        state_directory=str(tmp_path / "state"),
    )


def failures(config: Config) -> dict[str, str]:
    """The failed stages' texts; all stages must have been looked at."""
    programs = os.path.join(os.path.dirname(config.path), "programs")
    stages = list(check.stages(config, programs))
    assert tuple(stage.name for stage in stages) == STAGES
    return {stage.name: stage.text for stage in stages if not stage.is_ok}


def test_a_healthy_installation_has_no_failed_stage(healthy: Config) -> None:
    assert failures(healthy) == {}


def _open_configuration(config: Config) -> Config:
    os.chmod(config.path, 0o644)
    return config._replace(manager_secret="hunter2")


def _no_recordings(config: Config) -> Config:
    os.rmdir(config.recordings_directory)
    return config


def _open_recordings(config: Config) -> Config:
    os.chmod(config.recordings_directory, 0o755)
    return config


def _no_state(config: Config) -> Config:
    return config._replace(state_directory=config.state_directory + "-gone")


def _open_state(config: Config) -> Config:
    os.chmod(config.state_directory, 0o751)
    return config


def _little_space(config: Config) -> Config:
    return config._replace(recordings_min_free_percent=100.1)


def _no_program(config: Config) -> Config:
    os.unlink(os.path.join(os.path.dirname(config.path), "programs/finish_record.py"))
    return config


def _database_away(config: Config) -> Config:
    if config.database_url.startswith("sqlite"):
        return config._replace(database_url="sqlite:////nonexistent/folder/noojee.db")
    return config._replace(database_url="postgresql+psycopg2://postgres:hunter2@127.0.0.1:1/noojee")


def _newer_schema(config: Config) -> Config:
    with Store(config.database_url).transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    return config


def _no_key(config: Config) -> Config:
    with Store(config.database_url).transaction() as connection:
        connection.execute(text("DELETE FROM system_variable"))
    return config


def _rejected(config: Config) -> Config:
    files.make_folder(config.spool_directory)
    rejected.set_aside(config.spool_directory, b"{}", "because")
    return config


def _link_for_a_journal(config: Config) -> Config:
    files.make_folder(config.spool_directory)
    os.symlink(config.path, os.path.join(config.spool_directory, "journal"))
    return config


def _copied_machine(config: Config) -> Config:
    Path(history.path_in(config.state_directory)).write_text("machine another\nhost pbx1\nserver - pbx1\n")
    return config


def _renamed_machine(config: Config) -> Config:
    """Or a copy of it that has kept /etc/machine-id, or has none."""
    history.remember(config.state_directory, os.uname().nodename, config.recordings_directory)
    path = Path(history.path_in(config.state_directory))
    path.write_text(path.read_text().replace(f"host {os.uname().nodename}", "host pbx-before"))
    return config._replace(server_name="pbx-before")


def _manager_away(config: Config) -> Config:
    return config._replace(manager_port=1, manager_username="noojee", manager_secret="hunter2")


@pytest.mark.parametrize(
    ("change", "stages", "advice"),
    [
        (_open_configuration, {"configuration"}, "chmod o-r"),
        (_no_recordings, {"recordings", "free space"}, "install -d -o asterisk"),
        (_open_recordings, {"recordings"}, "chmod 0750"),
        (_no_state, {"state"}, "install -d -o asterisk"),
        (_open_state, {"state"}, "chmod 0750"),
        (_little_space, {"free space"}, "free"),
        (_no_program, {"programs"}, "install into a folder"),
        (_database_away, {"database", "apiKey", "open legs"}, "cannot be used"),
        (_newer_schema, {"database", "apiKey", "open legs"}, "install the newer noojee-agi"),
        (_no_key, {"apiKey"}, "noojee-agi apikey new"),
        (_rejected, {"rejected"}, ".reason"),
        (_link_for_a_journal, {"spool"}, "no call is recorded"),
        (_copied_machine, {"server name"}, "another machine's too (pbx1)"),
        (_renamed_machine, {"server name"}, "say which it is with [server] name, pbx-before on one"),
        (_manager_away, {"manager"}, "see [manager]"),
    ],
)
def test_a_failed_stage_says_what_to_do(
    healthy: Config, change: Change, stages: set[str], advice: str
) -> None:
    changed = change(healthy)

    found = failures(changed)

    assert set(found) == stages
    assert any(advice in said for said in found.values())
    assert all("\n" not in said and "hunter2" not in said for said in found.values())


def test_no_stage_answers_with_a_bare_error_number(healthy: Config) -> None:
    assert not any("[Errno" in said for said in failures(_no_recordings(healthy)).values())


def test_a_check_changes_nothing_in_the_folders(healthy: Config) -> None:
    before = _all_below(Path(healthy.path).parent)

    failures(healthy)

    assert _all_below(Path(healthy.path).parent) == before


def _all_below(folder: Path) -> list[tuple[str, int]]:
    return sorted(
        (str(path), stat.S_IMODE(path.stat().st_mode))
        for path in folder.rglob("*")
        if not path.name.endswith(("-wal", "-shm"))
    )


@pytest.mark.postgresql
def test_a_database_without_tables_says_how_to_make_them(
    healthy: Config, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgresql")

    found = failures(healthy._replace(database_url=server.url(server.create_database())))

    assert "run noojee-agi db upgrade" in found["database"]
