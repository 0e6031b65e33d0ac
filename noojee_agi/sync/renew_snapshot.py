"""Renews the snapshot: for a call that waits for it, one second at most."""

import os
import sys
import threading

from noojee_agi import log
from noojee_agi.config import Config
from noojee_agi.database import settings
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import snapshot
from noojee_agi.sync import opening

# Nobody waits so long; but it holds the lock of those who read the database, which may answer again.
READ_SECONDS = 10.0


def run(store: Store, path: str) -> None:
    """Read what the call path must know. Raises StoreUnavailable and OSError."""
    with store.reading() as connection:
        snapshot.save(path, settings.snapshot(connection))


def main(path: str) -> None:
    config = Config.load("" if path == "-" else path)
    log.to_file(config)
    limit = threading.Timer(READ_SECONDS, _give_up)
    limit.daemon = True
    limit.start()
    try:
        run(opening.open_database(config), config.snapshot_file)
    except (NoojeeError, OSError) as exc:
        log.logger.error("the apiKey cannot be looked up: %s", exc)


def _give_up() -> None:
    """The database's driver waits in C, where no exception reaches it."""
    log.logger.error("the apiKey cannot be looked up: no answer from the database in %g s", READ_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
