"""The stage `http`: whether the API can be served, and is. It need not be configured."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import ssl

from noojee_agi import certificate
from noojee_agi.cli.check import cures, folders, server, stage
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError
from noojee_agi.web import networks

_PARTS = ("uvicorn", "h11", "starlette", "prometheus_client")
_ANSWER_SECONDS = 3.0
_ASKED = "/openapi.json"  # which needs no key
_ANSWERS = (200, 403)  # we may be in none of the networks that are allowed
_SOON_DAYS = 14
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def check(config: Config, owner: str, programs: str) -> str:
    """Raises NoojeeError."""
    if not config.http_listen:
        return "not configured"
    if missing := [name for name in _PARTS if not importlib.util.find_spec(name)]:
        raise NoojeeError(f"{', '.join(missing)}: not installed", cures.install_web(programs))
    left = _certificate(config, owner)
    networks.of(config)
    if not os.path.lexists(config.socket_path):
        server.require_free_port(config, "http", config.http_listen)
        raise NoojeeError(f"[http] listen is set, and no server runs{left}", cures.start(programs))
    without = "" if config.manager_username else "; without [manager] it starts and stops nothing"
    return f"{_require_answer(config)}{left}{without}"


def _certificate(config: Config, owner: str) -> str:
    """A word while there are few days left. Raises NoojeeError."""
    paths = {"certificate": config.http_certificate, "certificate_key": config.http_certificate_key}
    if not any(paths.values()):
        _require_loopback(config)
        return ""
    for name, path in paths.items():
        _require_file(config, owner, name, path)
    days = _days_left(config)
    _require_fit(config)
    path = config.http_certificate
    if days <= 0:
        raise NoojeeError(f"{path} has expired", f"renew {path}, then {server.reload(config)}")
    return f"; {path} expires in {days:.0f} days: renew it" if days < _SOON_DAYS else ""


def _require_loopback(config: Config) -> None:
    if _is_needed(config):
        host, _, port = config.http_listen.rpartition(":")
        raise NoojeeError(
            f"[http] listen = {config.http_listen}: without a certificate no server begins at {host}",
            cures.option(config, "http", "listen", f"127.0.0.1:{port}"),
        )


def _is_needed(config: Config) -> bool:
    try:
        return certificate.is_needed(config.http_listen)
    except (OSError, OverflowError) as exc:
        raise server.unusable(config, "http", config.http_listen, exc) from exc


def _require_file(config: Config, owner: str, name: str, path: str) -> None:
    if not path:
        raise NoojeeError(f"[http] {name} is missing", _line(config, name))
    if folders.closed_part(path):
        raise NoojeeError(*folders.closed(path))
    if not os.path.isfile(path):
        raise NoojeeError(f"[http] {name} = {path} is no file", _line(config, name))
    if not os.access(path, os.R_OK):
        raise NoojeeError(f"{path} cannot be read by user {stage.user()}", cures.let_read(path, owner))


def _days_left(config: Config) -> float:
    path = config.http_certificate
    try:
        return certificate.days_left(path)
    except OSError as exc:
        said = f"[http] certificate = {path} is no certificate in PEM"
        raise NoojeeError(said, _line(config, "certificate")) from exc


def _require_fit(config: Config) -> None:
    try:
        certificate.context(config.http_certificate, config.http_certificate_key)
    except OSError as exc:
        is_other_s = getattr(exc, "reason", "") == "KEY_VALUES_MISMATCH"
        what = "the key of another certificate" if is_other_s else "no key in PEM without a password"
        said = f"[http] certificate_key = {config.http_certificate_key} is {what}"
        raise NoojeeError(said, _line(config, "certificate_key")) from exc


def _require_answer(config: Config) -> str:
    """Where it answers. Raises NoojeeError."""
    scheme = "https" if config.http_certificate else "http"
    url = f"{scheme}://{config.http_listen}"
    try:
        status = _asked(config)
    except OSError as exc:
        why = exc.strerror or exc
        raise NoojeeError(f"{url} does not answer ({why})", server.restart(config)) from exc
    if status not in _ANSWERS:
        raise NoojeeError(f"{url} is another program: it answers {status}", server.restart(config))
    return f"{url} answers"


def _asked(config: Config) -> int:
    """The status of its answer. Raises OSError."""
    import http.client  # no other command has to load it

    host, _, port = config.http_listen.rpartition(":")
    asked, number = _ANY.get(host.strip("[]"), host.strip("[]")), int(port)
    connection = http.client.HTTPConnection(asked, number, timeout=_ANSWER_SECONDS)
    if config.http_certificate:
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(asked, number, timeout=_ANSWER_SECONDS, context=unverified)
    with contextlib.closing(connection):
        try:
            connection.request("GET", _ASKED)
            return connection.getresponse().status
        except http.client.HTTPException as exc:
            raise ConnectionError("it does not speak HTTP") from exc


def _line(config: Config, option: str) -> str:
    return f"the line {option} of [http] in {config.path}"
