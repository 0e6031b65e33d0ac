"""After somebody has sat down elsewhere: the snapshot and what lies beside the settings' copy say so."""

import logging
from collections.abc import Callable, Sequence

from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.recordings import desk_log
from noojee_agi.recordings.recording import Attachment, Event
from noojee_agi.sync import renew_snapshot

logger = logging.getLogger(__name__)


def renewing(
    store: Store, config: Config, stored: Callable[[Sequence[Event]], None]
) -> Callable[[Sequence[Event]], None]:
    """stored, for a drain: it is told of each transaction, and whoever is killed here is told again.

    Raises StoreUnavailable.
    """

    def told(events: Sequence[Event]) -> None:
        stored(events)
        if attachments := [event for event in events if isinstance(event, Attachment)]:
            _renew(store, config, attachments)

    return told


def _renew(store: Store, config: Config, attachments: list[Attachment]) -> None:
    """A full disk keeps nothing back that waits behind this."""
    try:
        desk_log.add(config.recordings_directory, attachments)
        renew_snapshot.run(store, config.snapshot_file)
    except OSError as exc:
        logger.error("an attachment is stored, but not noted outside the database: %s", exc)
