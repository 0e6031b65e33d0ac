"""Opens the database. One that was lost, and is made anew, gets back its settings and its key."""

import logging

from noojee_agi.config import Config
from noojee_agi.database import settings
from noojee_agi.database.schema import open_store
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import snapshot
from noojee_agi.sync import rebuild

logger = logging.getLogger(__name__)


def open_database(config: Config) -> Store:
    """The database. One that has to be made gets the settings from their copy, if there is one: it was lost.

    Else waiting events would be stored without their owners. Raises StoreUnavailable and OSError.
    """
    return open_store(config.database_url, lambda store: restore_settings(store, config))


def restore_settings(store: Store, config: Config) -> None:
    """Of a database that has just been made. Raises StoreUnavailable and OSError."""
    try:
        restored = rebuild.restore_settings(store, config.recordings_directory)
    except NoojeeError as exc:
        logger.error("%s was made anew without its settings: %s", store.name, exc)
        restored = 0
    restore_key(store, config.snapshot_file)
    if restored:
        logger.error(
            "%s was made anew, %d settings are back from their copy: noojee-agi sync --rebuild does the rest",
            store.name,
            restored,
        )


def restore_key(store: Store, snapshot_file: str) -> None:
    """Unless there is one: the snapshot knows its digest, too. Raises StoreUnavailable."""
    before = snapshot.load(snapshot_file)
    with store.transaction() as connection:
        if before and before.key_digest and not settings.key_digest(connection):
            settings.set_key_digest(connection, before.key_digest)
