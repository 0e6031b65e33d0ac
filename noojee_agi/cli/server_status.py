"""How `noojee-agi serve` is, by what it says itself."""

import json
import os
import socket
import time

from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError
from noojee_agi.session import handoff

_ANSWER_SECONDS = 2.0
_NO_DRAIN_SECONDS = 120  # a drain gives up on a silent database after 70


def check(config: Config) -> str:
    """How it is. It need not run: then each program does its work itself. Raises NoojeeError."""
    if not os.path.exists(config.socket_path):
        return "not running, each call starts its own program"
    try:
        status = _asked(config.socket_path)
    except (OSError, ValueError) as exc:
        raise NoojeeError(
            f"{config.socket_path} is there, but nobody answers ({exc}): start noojee-agi serve again"
        ) from exc
    text = (
        f"{status['sessions']:.0f} sessions since {_moment(status['began_at'])},"
        f" {status['running']:.0f} running, {status['failed']:.0f} failed"
        f" or sent away unheard;"
        f" last drain {_moment(status['drained_at'])}, {status['troubles']:.0f} times the database was away"
    )
    if status["trouble_since"]:
        raise NoojeeError(f"{text}; away since {_moment(status['trouble_since'])}: see {config.log_file}")
    if status["snapshot_trouble_since"]:
        since = _moment(status["snapshot_trouble_since"])
        raise NoojeeError(f"{text}; apiKey and logins are those of {since}: see {config.log_file}")
    if time.time() - max(status["drained_at"], status["began_at"]) > _NO_DRAIN_SECONDS:
        raise NoojeeError(f"{text}: nobody drains: see {config.log_file}, and start noojee-agi serve again")
    return text


def _asked(path: str) -> dict[str, float]:
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(_ANSWER_SECONDS)
        server.connect(path)
        server.sendall(handoff.framed(handoff.STATUS))
        answer = b""
        while read := server.recv(4096):
            answer += read
    status: dict[str, float] = json.loads(answer)
    return status


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "never"
