"""After somebody has sat down elsewhere: the snapshot and the settings' copy say so."""

import logging
from collections.abc import Callable, Sequence

from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.recordings.recording import Attachment, Event
from noojee_agi.sync import rebuild, renew_snapshot

logger = logging.getLogger(__name__)


def renewing(
    store: Store, config: Config, stored: Callable[[Sequence[Event]], None]
) -> Callable[[Sequence[Event]], None]:
    """stored, for a drain: it is told of each transaction, and whoever is killed here is told again.

    Raises StoreUnavailable.
    """

    def told(events: Sequence[Event]) -> None:
        stored(events)
        if any(isinstance(event, Attachment) for event in events):
            _renew(store, config)

    return told


def _renew(store: Store, config: Config) -> None:
    """A full disk keeps nothing back that waits behind this; the next change does it again."""
    copy = rebuild.copy_path(config.recordings_directory)
    try:
        renew_snapshot.run(store, config.snapshot_file)
        if not rebuild.save_settings(store, config.recordings_directory):
            logger.error("%s knows settings that the database has lost: run noojee-agi sync --rebuild", copy)
    except OSError as exc:
        logger.error("%s or %s cannot be renewed: %s", config.snapshot_file, copy, exc)
