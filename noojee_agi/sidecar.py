"""The side-car: beside each recording, a JSON file with everything the database knows of the leg."""

import json
import logging
import os
from datetime import datetime
from typing import Any

from noojee_agi import spool

logger = logging.getLogger(__name__)

SUFFIX = ".json"


def path_for(file: str) -> str:
    """The side-car of this audio file."""
    return f"{os.path.splitext(file)[0]}{SUFFIX}"


def write(leg: dict[str, Any]) -> bool:
    """Write or renew the side-car. False when that must be tried again, such as on a full disk.

    When its folder is gone (recordings moved or purged) there is nothing to try again.
    """
    path = path_for(leg["file"])
    try:
        spool.write(path, json.dumps(leg, indent=1, ensure_ascii=False, default=_text) + "\n")
    except (FileNotFoundError, NotADirectoryError):
        logger.warning("no side-car %s: its folder is gone", path)
    except OSError as exc:
        logger.error("no side-car %s, tried again later: %s", path, exc.strerror)
        return False
    return True


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no place in a side-car")
