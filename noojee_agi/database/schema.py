"""Making and upgrading the tables, by Alembic."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select

from noojee_agi.database.store import REVISION, Store
from noojee_agi.errors import StoreUnavailable

if TYPE_CHECKING:
    from alembic.config import Config as AlembicConfig

_UPGRADES = 0x6E6F6F6A  # the lock's key, ours alone in this database: "nooj"


def open_store(url: str, when_made: Callable[[Store], None] = lambda store: None) -> Store:
    """The database, ready for use; a SQLite file is made. Raises StoreUnavailable or ConfigurationError."""
    store = Store(url)
    revision = store.revision()
    if revision == REVISION:
        return store
    if revision > REVISION:
        raise StoreUnavailable(newer(store))
    if revision or store.url.get_backend_name() != "sqlite":
        has = f"schema {revision}" if revision else "no tables"
        raise StoreUnavailable(
            f"{store.name} has {has}, this program needs schema {REVISION}: run noojee-agi db upgrade"
        )
    upgrade(store)
    when_made(store)
    return store


def upgrade(store: Store) -> None:
    """Bring the database to REVISION; nothing happens when it is there. Raises StoreUnavailable."""
    store.in_turn(lambda connection: _upgrade(store, connection), takes_long=True)


def _upgrade(store: Store, connection: Connection) -> None:
    # Only now: it is a quarter of what each drain and each command would load.
    from alembic import command
    from alembic.util import CommandError

    settings = alembic_settings()
    if store.url.get_backend_name() == "postgresql":  # another host may upgrade it, too
        connection.execute(select(func.pg_advisory_xact_lock(_UPGRADES)))
    settings.attributes["connection"] = connection
    try:
        command.upgrade(settings, "head")
    except CommandError as error:
        raise StoreUnavailable(newer(store)) from error


def alembic_settings() -> AlembicConfig:
    from alembic.config import Config as AlembicConfig

    settings = AlembicConfig()
    settings.set_main_option("script_location", "noojee_agi.database:migrations")
    return settings


def newer(store: Store) -> str:
    """What to say of a database that a newer program has upgraded."""
    return f"{store.name} has a newer schema than this program ({REVISION}): install the newer noojee-agi"
