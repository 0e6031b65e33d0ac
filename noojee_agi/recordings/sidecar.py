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
    **dict.fromkeys(["call_started_at", "started_at", "ended_at", "purged_at"], datetime),
    **dict.fromkeys(["leg", "bytes"], int),
    "duration_seconds": (float, int),
    "held": bool,
    "purged_file": str,
}
_MAY_BE_NULL = ("owner", "ended_at", "duration_seconds", "bytes", "purged_at", "login")
_EVENT = {"at": datetime, "what": str, "login": str, "reason": str}
_ACCESS = {"id": str, "at": datetime, "login": str, "what": str, "allowed": bool, "address": str}
# Side-cars of older versions have none.
_MAY_BE_MISSING: dict[str, Any] = {
    **{"peer_channel": "", "peer_uniqueid": ""},
    **{"extensions": [], "held": False, "purged_at": None, "purged_file": "", "events": [], "accesses": []},
}


def path_for(file: str) -> str:
    return f"{os.path.splitext(file)[0]}{SUFFIX}"


def path_of(leg: dict[str, Any]) -> str:
    """Where the leg's side-car lies, also when its audio was purged."""
    return path_for(leg["file"] or leg["purged_file"])


def is_here(leg: dict[str, Any]) -> bool:
    """Whether the leg is one of this host's: a call may have some on another."""
    return os.path.exists(path_of(leg)) or os.path.exists(leg["file"])


def write(leg: dict[str, Any]) -> bool:
    """Write or renew the side-car. False when that must be tried again, such as on a full disk.

    When its folder is gone (recordings moved or purged) there is nothing to try again; nor where the file is
    none of ours: who may write in a database that several hosts share must not choose what is written here.
    """
    file = leg["file"] or leg["purged_file"]
    path = path_for(file)
    if not recording.is_ours(file):
        logger.error("no side-car of leg %s: %s is no recording of this program", leg["id"], file)
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
    leg = _read_all(content, _FIELDS)
    leg["id"] = str(uuid.UUID(content["id"]))
    leg["extensions"] = [_read("extensions", name, str) for name in content["extensions"]]
    leg["events"] = [_read_all(event, _EVENT) for event in content["events"]]
    leg["accesses"] = [_read_all(access, _ACCESS) for access in content["accesses"]]
    return leg


def _read_all(content: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    return {name: _read(name, content[name], kind) for name, kind in kinds.items()}


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
    is_right = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    if not is_right or "\0" in str(value):
        raise TypeError(f"{name} = {value!r}")
    return value


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no place in a side-car")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",\n ", ": "), default=_text)
