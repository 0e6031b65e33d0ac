"""The drain in the background, after each call where no server runs: `python -m noojee_agi.sync`."""

import logging
import os
import sys
import time

from noojee_agi import log
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError
from noojee_agi.sync import drain, housekeeping, opening, renew_snapshot

logger = logging.getLogger(__name__)

_LEFT_SECONDS = 2.0


def main(path: str, lock: str = "") -> None:
    """The background drain. lock: the descriptor of the spool's lock, held since before our imports."""
    config = Config.load("" if path == "-" else path)
    log.to_file(config)
    try:
        store = opening.open_database(config)
        if lock:
            os.close(int(lock))
        result = drain.run_own(store, config)
        if result.left:  # such as an ending whose start another host is about to store
            time.sleep(_LEFT_SECONDS)
            result = drain.run_own(store, config)
        renew_snapshot.run(store, config.snapshot_file)  # first: a former disk may hang
        if not result.busy:
            for problem in housekeeping.run(store, config).problems:
                logger.error(problem)
    except (NoojeeError, OSError) as exc:
        logger.error("%s: %s", drain.backlog(config.spool_directory), exc)
    else:
        logger.debug("drained: %s", result)


if __name__ == "__main__":
    main(*sys.argv[1:])
