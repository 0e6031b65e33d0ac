"""The side-car: beside each recording, a JSON file with everything the database knows of the leg."""

import json
import logging
import os
from datetime import datetime
from typing import Any

from noojee_agi import spool

logger = logging.getLogger(__name__)


def path_for(file: str) -> str:
    """The side-car of this audio file."""
    return f"{os.path.splitext(file)[0]}.json"


def write(leg: dict[str, Any]) -> None:
    """Write or renew the side-car. Its folder gone (recordings moved or purged) is no failure.

    Raises OSError.
    """
    path = path_for(leg["file"])
    try:
        spool.write(path, json.dumps(leg, indent=1, ensure_ascii=False, default=_text) + "\n")
    except FileNotFoundError:
        logger.warning("no side-car %s: its folder is gone", path)


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no place in a side-car")
