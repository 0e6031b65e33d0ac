"""The certificate of [http], and the key that belongs to it."""

from __future__ import annotations

import contextlib
import ssl

from noojee_agi import certificate
from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError


def context(config: Config) -> ssl.SSLContext | None:
    """None without a certificate. Raises ConfigurationError."""
    if not config.http_certificate and not config.http_certificate_key:
        return None
    if not config.http_certificate or not config.http_certificate_key:
        raise ConfigurationError(f"{config.path}: [http] certificate and certificate_key go together")
    try:
        return certificate.context(config.http_certificate, config.http_certificate_key)
    except ssl.SSLError as exc:
        raise ConfigurationError(
            f"{config.path}: [http] certificate and certificate_key cannot be used: they must be PEM, belong"
            " together, and need no password"
        ) from exc
    except OSError as exc:
        raise ConfigurationError(
            f"{config.path}: [http] certificate or certificate_key: {exc}: Asterisk's user must read it"
        ) from exc


def renew(used: ssl.SSLContext, config: Config) -> None:
    """Connections from now on get what lies there now; the one before stays when that cannot be used.

    Raises ConfigurationError.
    """
    if context(config) is None:
        raise ConfigurationError(f"{config.path}: [http] certificate: to do without one needs a restart")
    used.load_cert_chain(config.http_certificate, config.http_certificate_key)


def expires_at(config: Config) -> float | None:
    """In seconds of time.time(); None without a certificate."""
    with contextlib.suppress(OSError):
        return certificate.expires_at(config.http_certificate) if config.http_certificate else None
    return None
