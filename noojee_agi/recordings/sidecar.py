"""The side-car: beside each recording, a JSON file with everything the database knows of the leg."""

import json
import logging
import os
import uuid
from datetime import datetime
from typing import Any

from noojee_agi import text
from noojee_agi.recordings import files, recording

logger = logging.getLogger(__name__)

SUFFIX = ".json"

_FIELDS: dict[str, Any] = {
    **dict.fromkeys(["id", "server", "call_uniqueid", "source", "destination", "did"], str),
    **dict.fromkeys(["external_reference", "uniqueid", "channel", "extension", "owner"], str),
    **dict.fromkeys(["agent_login_name", "tag", "file", "status", "peer_channel", "peer_uniqueid"], str),
    **dict.fromkeys(["call_started_at", "started_at", "ended_at"], datetime),
    **dict.fromkeys(["leg", "bytes"], int),
    "duration_seconds": (float, int),
}
_MAY_BE_NULL = ("owner", "ended_at", "duration_seconds", "bytes")
# Side-cars of version 0.1.0 have none.
_MAY_BE_MISSING = {"peer_channel": "", "peer_uniqueid": ""}


def path_for(file: str) -> str:
    return f"{os.path.splitext(file)[0]}{SUFFIX}"


def is_here(file: str) -> bool:
    """Whether the leg is one of this host's: a call may have some on another."""
    return os.path.exists(path_for(file)) or os.path.exists(file)


def write(leg: dict[str, Any]) -> bool:
    """Write or renew the side-car. False when that must be tried again, such as on a full disk.

    When its folder is gone (recordings moved or purged) there is nothing to try again; nor where the file is
    none of ours: who may write in a database that several hosts share must not choose what is written here.
    """
    path = path_for(leg["file"])
    if not recording.is_ours(leg["file"]):
        logger.error("no side-car of leg %s: %s is no recording of this program", leg["id"], leg["file"])
        return True
    try:
        files.write(path, to_json(leg))
    except (FileNotFoundError, NotADirectoryError):
        logger.warning("no side-car %s: its folder is gone", path)
    except OSError as exc:
        logger.error("no side-car %s, tried again later: %s", path, exc.strerror)
        return False
    return True


def to_json(leg: dict[str, Any]) -> str:
    """A line for each name. The standard library's indent would cost three times as much: it is not in C."""
    return f"{{\n {text.escaped(_ENCODER.encode(leg))[1:-1]}\n}}\n"


def read(path: str) -> dict[str, Any]:
    """The leg, as it was written. Raises OSError; ValueError, KeyError or TypeError when it is damaged."""
    with open(path, encoding="utf-8", opener=_at_once) as file:
        content = _MAY_BE_MISSING | dict(json.load(file))
    leg = {name: _read(name, content[name], kind) for name, kind in _FIELDS.items()}
    leg["id"] = str(uuid.UUID(content["id"]))
    return leg


def _at_once(path: str, flags: int) -> int:
    """Somebody's pipe of that name is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read(name: str, value: object, kind: Any) -> object:
    if value is None and name in _MAY_BE_NULL:
        return None
    if kind is datetime and isinstance(value, str):
        value = datetime.fromisoformat(value)
        if value.tzinfo is None:
            raise TypeError(f"{name} has no time zone")
    if not isinstance(value, kind) or isinstance(value, bool) or "\0" in str(value):
        raise TypeError(f"{name} = {value!r}")
    return value


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no place in a side-car")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",\n ", ": "), default=_text)
