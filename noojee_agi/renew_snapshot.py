"""Renews the snapshot: for a call that waits for it, one second at most."""

import os
import sys
import threading

from noojee_agi import config, drain, log
from noojee_agi.errors import NoojeeError

# Nobody waits so long; but it holds the lock of those who read the database, which may answer again.
READ_SECONDS = 10.0


def main(path: str) -> None:
    known = config.load("" if path == "-" else path)
    log.to_file(known)
    limit = threading.Timer(READ_SECONDS, _give_up)
    limit.daemon = True
    limit.start()
    try:
        drain.renew_snapshot(drain.open_database(known), known.snapshot_file)
    except (NoojeeError, OSError) as exc:
        log.logger.error("the apiKey cannot be looked up: %s", exc)


def _give_up() -> None:
    """The database's driver waits in C, where no exception reaches it."""
    log.logger.error("the apiKey cannot be looked up: no answer from the database in %g s", READ_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
