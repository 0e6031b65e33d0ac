"""The server's sockets: FastAGI and HTTP on TCP, and the hand-over on a Unix socket."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from noojee_agi import certificate
from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError

_BACKLOG = 1024  # connections that wait in the kernel's queue
_LAST_PORT = 65535


class Listeners:
    """All sockets. Raises ConfigurationError when they cannot be had."""

    def __init__(self, config: Config) -> None:
        self._path = config.socket_path
        self.local = _listen_locally(config.socket_path)
        self.network: socket.socket | None = None
        self.http: socket.socket | None = None
        self._scheme = "https" if config.http_certificate else "http"
        try:
            if config.server_listen:
                self.network = _listen_to_network("[server] listen", config.server_listen)
            if config.http_listen:
                self.http = _listen_to_network("[http] listen", config.http_listen)
                _require_safe(config)
        except ConfigurationError:
            self.close()
            raise

    @property
    def names(self) -> str:
        """Where we are reached."""
        network = [f"agi://{_address(self.network)}"] if self.network else []
        http = [f"{self._scheme}://{_address(self.http)}"] if self.http else []
        return " and ".join([*network, *http, self._path])

    @property
    def all(self) -> list[socket.socket]:
        return [each for each in (self.local, self.network, self.http) if each]

    def close(self) -> None:
        """Nobody finds us any more; whoever has connected is still served."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        for listener in self.all:
            listener.close()


def _listen_locally(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    if _answers(path):
        raise ConfigurationError(f"{path}: another noojee-agi serve is running")
    umask = os.umask(0o177)
    try:
        _remove_stale(path)
        listener.bind(path)
    except OSError as exc:
        raise ConfigurationError(f"[server] socket = {path}: {exc.strerror}") from exc
    finally:
        os.umask(umask)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _remove_stale(path: str) -> None:
    """The socket of a server that was killed, and nothing else: the path may be a slip."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file that is no socket")
        os.unlink(path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def _require_safe(config: Config) -> None:
    """Keys and recordings do not pass a network as they are. Raises ConfigurationError."""
    if not config.http_certificate and certificate.is_needed(config.http_listen):
        raise ConfigurationError(
            f"[http] listen = {config.http_listen}: is not loopback, so it needs certificate and"
            " certificate_key; or listen on 127.0.0.1, behind a reverse proxy that has them"
        )


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def _listen_to_network(option: str, address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if int(port) > _LAST_PORT:  # getaddrinfo(3) takes what is left of it
        raise ConfigurationError(f"{option} = {address}: there is no port {port}: at most {_LAST_PORT}")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(*found[:3])  # the event loop sets TCP_NODELAY for those that say TCP
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[4])
    except PermissionError as exc:
        raise ConfigurationError(
            f"{option} = {address}: {exc.strerror}: take a port from 1024 on, behind a proxy if need be"
        ) from exc
    except OSError as exc:
        raise ConfigurationError(f"{option} = {address}: {exc}") from exc
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener
