"""How `noojee-agi serve` is, by what it says itself."""

import contextlib
import errno
import json
import os
import socket
import sys
import time
from typing import Any

from noojee_agi.cli import identity
from noojee_agi.cli.check import cures, stage
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError
from noojee_agi.server import about
from noojee_agi.session import handoff

_ANSWER_SECONDS = 2.0
_NO_DRAIN_SECONDS = 120  # a drain gives up on a silent database after 70
_PEER = 3 * 4  # bytes of a process, user and group in unix(7)'s SO_PEERCRED
_UNIT = "noojee-agi.service"
_USUAL_PORTS = {"server": 4573, "http": 8080}


def check(config: Config) -> str:
    """How it is. It need not run: then each program does its work itself. Raises NoojeeError."""
    if not os.path.lexists(config.socket_path):
        require_free_port(config, "server", config.server_listen)
        return "not running, each call starts its own program"
    try:
        status, process = _asked(config.socket_path)
    except (OSError, ValueError) as exc:
        raise _silent(config.socket_path, exc) from exc
    _require_same(status, process, config)
    text = (
        f"{status['sessions']:.0f} sessions since {_moment(status['began_at'])},"
        f" {status['running']:.0f} running, {status['failed']:.0f} failed"
        f" or sent away unheard;"
        f" last drain {_moment(status['drained_at'])}, {status['troubles']:.0f} times the database was away"
    )
    if status["trouble_since"]:
        raise NoojeeError(
            f"{text}; away since {_moment(status['trouble_since'])}: see {config.log_file}", _restart(process)
        )
    if status["snapshot_trouble_since"]:
        since = _moment(status["snapshot_trouble_since"])
        raise NoojeeError(
            f"{text}; apiKey and logins are those of {since}: see {config.log_file}", _restart(process)
        )
    if time.time() - max(status["drained_at"], status["began_at"]) > _NO_DRAIN_SECONDS:
        raise NoojeeError(f"{text}: nobody drains: see {config.log_file}", _restart(process))
    return text


def _asked(path: str) -> tuple[dict[str, Any], int]:
    """What it says, and its process. Raises OSError and ValueError."""
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(_ANSWER_SECONDS)
        server.connect(path)
        server.sendall(handoff.framed(handoff.STATUS))
        answer = b""
        while read := server.recv(4096):
            answer += read
        process = _process_of(server)
    status: dict[str, Any] = json.loads(answer)
    return status, process


def _process_of(connection: socket.socket) -> int:
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER)
    return int.from_bytes(peer[:4], sys.byteorder)


def _silent(path: str, exc: Exception) -> NoojeeError:
    """A server that is frozen, or was killed; or something else that stands where its socket should be."""
    if isinstance(exc, PermissionError):
        user = identity.user_name(os.lstat(path).st_uid)
        return NoojeeError(
            f"{path} belongs to user {user}, so calls do not reach the server", "systemctl restart noojee-agi"
        )
    process = _process_at(path)
    what = f"{path} is there, but nobody answers ({exc}): start noojee-agi serve again"
    if process:
        kill = f"kill -KILL -- -{_group(process)}; rm -f {stage.quoted(path)}"
        return NoojeeError(what, kill if not _is_unit(process) else "systemctl restart noojee-agi")
    return NoojeeError(what, _remove(path))


def _process_at(path: str) -> int:
    """The one that listens at that socket; 0: nobody."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as server:
        server.settimeout(_ANSWER_SECONDS)
        server.connect(path)
        return _process_of(server)
    return 0


def restart(config: Config) -> str:
    """The command that has the server that runs started again."""
    process = _process_at(config.socket_path)
    return _restart(process) if process else _remove(config.socket_path)


def reload(config: Config) -> str:
    """The command that has the server that runs read its files anew."""
    process = _process_at(config.socket_path)
    return _reload(process) if process else _remove(config.socket_path)


def _reload(process: int) -> str:
    return "systemctl reload noojee-agi" if _is_unit(process) else f"kill -HUP {process}"


def _remove(path: str) -> str:
    is_unit = os.path.exists(f"/etc/systemd/system/multi-user.target.wants/{_UNIT}")
    return "systemctl restart noojee-agi" if is_unit else stage.quoted("rm", path)


def _group(process: int) -> int:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return process


def _is_unit(process: int) -> bool:
    """Whether systemd has started it."""
    try:
        with open(f"/proc/{process}/cgroup", encoding="utf-8") as file:
            return _UNIT in file.read()
    except OSError:
        return False


def _restart(process: int) -> str:
    """Without systemd it ends; whoever has started it starts it again, and meanwhile calls need none."""
    return "systemctl restart noojee-agi" if _is_unit(process) else f"kill {process}"


def _require_same(status: dict[str, Any], process: int, config: Config) -> None:
    """It must be the program that is installed, with the configuration that there is. Raises NoojeeError."""
    if status.get("program") != about.program():
        raise NoojeeError(
            "the server runs another noojee-agi than the one that is installed now", _restart(process)
        )
    if status["path"] != config.path:
        raise NoojeeError(
            f"the server has read {status['path'] or 'no file'}, and this check"
            f" {config.path or 'no file'}, so no call is handed over",
            _restart(process),
        )
    if status["fixed"] != about.fixed(config):
        raise NoojeeError(
            f"{config.path}: listen, socket, threads or TLS has changed since the server began",
            _restart(process),
        )
    if status["configuration"] != about.configuration(config):
        raise NoojeeError(f"{config.path} has changed since the server has read it", _reload(process))


def require_free_port(config: Config, section: str, listen: str) -> None:
    """A server that is started must find its port. Raises NoojeeError."""
    host, _, port = listen.rpartition(":")
    if not host:
        return
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(*found[:2]) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(found[4])
    except (OSError, OverflowError) as exc:
        raise unusable(config, section, listen, exc) from exc


def unusable(config: Config, section: str, listen: str, exc: Exception) -> NoojeeError:
    """That address, and one that can be had."""
    code, usual = getattr(exc, "errno", None), _USUAL_PORTS[section]
    host, _, port = listen.rpartition(":")
    what = f"[{section}] listen = {listen} cannot be had"
    if code == errno.EADDRINUSE:
        free = cures.option(config, section, "listen", f"{host}:{_free(host, int(port))}")
        return NoojeeError(f"{what}: another program has that port", free)
    if code == errno.EACCES:
        return NoojeeError(
            f"{what}: user {stage.user()} may have no port below 1024",
            cures.option(config, section, "listen", f"{host}:{usual}"),
        )
    return NoojeeError(
        f"{what} ({getattr(exc, 'strerror', None) or exc})",
        cures.option(config, section, "listen", f"127.0.0.1:{usual}"),
    )


def _free(host: str, port: int) -> int:
    """The next port that nobody has."""
    for other in range(port + 1, min(port + 100, 65536)):
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind((host.strip("[]") if ":" not in host else "127.0.0.1", other))
            return other
    return 0


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "never"
