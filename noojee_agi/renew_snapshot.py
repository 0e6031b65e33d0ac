"""Renews the snapshot: for a call that waits for it, one second at most."""

import sys

from noojee_agi import config, drain, log
from noojee_agi.errors import NoojeeError


def main(path: str) -> None:
    known = config.load("" if path == "-" else path)
    log.to_file(known)
    try:
        drain.renew_snapshot(drain.open_database(known), known.snapshot_file)
    except (NoojeeError, OSError) as exc:
        log.logger.error("the apiKey cannot be looked up: %s", exc)


if __name__ == "__main__":
    main(sys.argv[1])
