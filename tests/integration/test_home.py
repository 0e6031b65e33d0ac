"""libpq looks for certificates in HOME: that of our own user, whoever has started us."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.postgresql import PrivatePostgreSQL
from lab.site import PROGRAMS, Site
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until
from sqlalchemy import text
from unit.fakes import FakeAsterisk

from integration.piped import Piped
from noojee_agi.database.store import Store
from noojee_agi.session import background

pytestmark = pytest.mark.postgresql
TLS = ("ssl", "ssl_cert_file", "ssl_key_file")


@pytest.fixture(scope="module")
def tls(
    postgresql: PrivatePostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivatePostgreSQL]:
    """The server, with a certificate of its own."""
    folder = tmp_path_factory.mktemp("certificate")
    _make_certificate(folder)
    admin = Store(postgresql.url("postgres"))
    with admin.reading() as connection:
        data = Path(str(connection.scalar(text("SHOW data_directory"))))
    owner = data.stat()
    for name in ("server.crt", "server.key"):
        shutil.copy(folder / name, data / name)
        (data / name).chmod(0o600)
        os.chown(data / name, owner.st_uid, owner.st_gid)
    _set(
        admin,
        [f"ALTER SYSTEM SET {name} = '{value}'" for name, value in zip(TLS, _values(data), strict=True)],
    )
    yield postgresql
    _set(admin, [f"ALTER SYSTEM RESET {name}" for name in TLS])


def _values(data: Path) -> tuple[str, str, str]:
    return "on", f"{data}/server.crt", f"{data}/server.key"


def _make_certificate(folder: Path) -> None:
    if not shutil.which("openssl"):
        raise LabUnavailable("there is no openssl to make a certificate: install it")
    names = [
        "-keyout",
        str(folder / "server.key"),
        "-out",
        str(folder / "server.crt"),
        "-subj",
        "/CN=127.0.0.1",
    ]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(["openssl", "req", "-x509", *kind, *names], check=True, capture_output=True)


def _set(admin: Store, statements: list[str]) -> None:
    """ALTER SYSTEM stands in no transaction."""
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in [*statements, "SELECT pg_reload_conf()"]:
            connection.exec_driver_sql(statement)


@pytest.fixture
def foreign_home(tmp_path: Path) -> dict[str, str]:
    """One that libpq cannot use; where it may not even look into it, as into root's, it fails as well."""
    certificates = tmp_path / "home/.postgresql"
    certificates.mkdir(parents=True)
    for name in ("root.crt", "postgresql.crt"):
        (certificates / name).write_text("somebody else's")
    return {"HOME": str(tmp_path / "home")}


def test_who_is_started_with_anothers_home_reaches_the_database_over_tls(
    tls: PrivatePostgreSQL, tmp_path: Path, foreign_home: dict[str, str]
) -> None:
    """The drains of a start and of an end, and the command line; by the driver alone the home does matter."""
    url = f"{tls.url(tls.create_database())}?sslmode=require"
    site = Site(tmp_path / "site", url, has_loaded_drains=False)
    environment = {**site.environment, **foreign_home}
    asterisk = FakeAsterisk(apiKey=site.key)

    with Piped(asterisk, [str(site.agi_directory / "start_record.py")], environment) as program:
        program.run()

    [leg] = site.wait_for_legs(status="recording")
    words: list[str] = [str(PROGRAMS / "finish_record.py"), str(site.conf), leg["id"], leg["file"]]
    subprocess.run(words, env=environment, check=True, timeout=60)
    site.wait_for_legs(status="empty")
    wait_until(lambda: not site.processes(), 20, "the drains' end")
    assert site.run_cli("recordings", environment=foreign_home).returncode == 0
    alone = "import sys, psycopg2; psycopg2.connect(sys.argv[1].replace('+psycopg2', ''))"
    interpreter = [str(PROGRAMS / "python"), "-c", alone, url]
    done = subprocess.run(interpreter, env=environment, check=False, capture_output=True, text=True)
    assert "root.crt" in done.stderr or "postgresql.crt" in done.stderr


def test_a_home_that_may_not_be_looked_into_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under systemd's ProtectHome: libpq fails there, though no certificate is needed."""
    stat = os.stat

    def refusing_stat(path: str) -> os.stat_result:
        if str(path).endswith("/.postgresql"):
            raise PermissionError(13, "Permission denied")
        return stat(path)

    monkeypatch.setenv("HOME", str(tmp_path))
    own = background.home()
    monkeypatch.setattr(os, "stat", refusing_stat)

    assert own not in (str(tmp_path), "/nonexistent")
    assert background.home() == "/nonexistent"
