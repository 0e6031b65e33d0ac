"""The certificate of [http], and the key that belongs to it."""

from __future__ import annotations

import ssl

from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError


def context(config: Config) -> ssl.SSLContext | None:
    """None without a certificate. Raises ConfigurationError."""
    if not config.http_certificate and not config.http_certificate_key:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(made, config)
    return made


def renew(used: ssl.SSLContext, config: Config) -> None:
    """Connections from now on get what lies there now; the one before stays when that cannot be used.

    Raises ConfigurationError.
    """
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), config)  # or used could be left with half of it
    _load(used, config)


def _load(into: ssl.SSLContext, config: Config) -> None:
    certificate, key = config.http_certificate, config.http_certificate_key
    if not certificate or not key:
        raise ConfigurationError(
            f"{config.path}: [http] certificate and certificate_key go together: set both"
        )
    for name, path in (("certificate", certificate), ("certificate_key", key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as exc:
            raise ConfigurationError(
                f"{config.path}: [http] {name} = {path}: {exc.strerror}: Asterisk's user must read it"
            ) from exc
    try:
        into.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as exc:
        raise ConfigurationError(
            f"{config.path}: [http] certificate and certificate_key cannot be used: they must be PEM, belong"
            " together, and need no password"
        ) from exc


def _no_password() -> bytes:
    """Or OpenSSL would ask the terminal for one."""
    raise ValueError
