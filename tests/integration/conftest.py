"""Both databases for every test that asks for one; the tables come from a template that was upgraded once."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.pgbouncer import PrivatePgBouncer
from lab.postgresql import PrivatePostgreSQL
from sqlalchemy import URL, Engine, text

from integration.recorder import Recorder
from noojee_agi.database import schema, tables
from noojee_agi.database import store as store_module
from noojee_agi.database.store import REVISION, Store

BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@pytest.fixture(scope="session", autouse=True)
def one_engine_for_each_address() -> Iterator[None]:
    """Else each test, and each command in it, compiles all its queries anew: half of what it takes.

    Nothing else is kept, connections least of all. Tests shorten the limits with which an engine connects.
    """
    make = store_module._engine

    @functools.lru_cache(maxsize=4)
    def made(url: URL, *_limits: int) -> Engine:
        return make(url)

    def engine(url: URL) -> Engine:
        return made(url, store_module._CONNECT_SECONDS, store_module._LOCK_SECONDS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "_engine", engine)
        yield


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgreSQL]:
    with PrivatePostgreSQL(tmp_path_factory.mktemp("postgresql")) as server:
        yield server


@pytest.fixture(scope="session")
def bouncer(
    postgresql: PrivatePostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivatePgBouncer]:
    with PrivatePgBouncer(postgresql, tmp_path_factory.mktemp("pgbouncer")) as running:
        yield running


@pytest.fixture(scope="session")
def postgresql_template(postgresql: PrivatePostgreSQL) -> str:
    name = postgresql.create_database()
    schema.upgrade(Store(postgresql.url(name)))
    return name


@pytest.fixture
def database(postgresql: PrivatePostgreSQL, postgresql_template: str) -> Iterator[str]:
    """The name of a PostgreSQL database of its own, with the tables."""
    name = postgresql.create_database(postgresql_template)
    yield name
    postgresql.drop_database(name)


@pytest.fixture(scope="session")
def shared_postgresql_url(postgresql: PrivatePostgreSQL, postgresql_template: str) -> str:
    """Emptied after each test: that takes a tenth of the time that a new copy of the template takes."""
    return postgresql.url(postgresql.create_database(postgresql_template))


def _empty(store: Store) -> None:
    deletions = "; ".join(f"DELETE FROM {table.name}" for table in reversed(tables.metadata.sorted_tables))
    with store.transaction() as connection:
        connection.execute(text(f"{deletions}; UPDATE alembic_version SET version_num = '{REVISION}'"))


@pytest.fixture(scope="session")
def shared_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each test finds its own copy of the template."""
    return tmp_path_factory.mktemp("sqlite") / "noojee.db"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    schema.upgrade(Store(f"sqlite:///{file}"))
    return file


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with the tables and nothing in them."""
    if backend == "sqlite":
        file: Path = request.getfixturevalue("shared_sqlite_file")
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        yield f"sqlite:///{file}"
        for path in file.parent.glob("noojee.db*"):
            path.unlink()
        return
    url: str = request.getfixturevalue("shared_postgresql_url")
    yield url
    _empty(Store(url))


@pytest.fixture
def empty_database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of its own without tables; with SQLite the file is not there yet."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    server: PrivatePostgreSQL = request.getfixturevalue("postgresql")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def store(database_url: str) -> Store:
    return Store(database_url)


@pytest.fixture
def recorder(store: Store, tmp_path: Path) -> Recorder:
    return Recorder(store, tmp_path / "recordings")
