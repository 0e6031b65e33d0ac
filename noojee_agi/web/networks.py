"""Addresses, and [http] allow: the networks that may use the API."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


def of(config: Config) -> Networks:
    """Raises ConfigurationError."""
    try:
        names = config.http_allow.replace(",", " ").split()
        return [ipaddress.ip_network(name) for name in names]
    except ValueError as exc:
        raise ConfigurationError(
            f"{config.path}: [http] allow: {exc}: write networks such as 127.0.0.0/8, ::1, 192.0.2.0/24"
        ) from exc


def canonical(address: str) -> str:
    """An address in its one way of writing it, IPv4 in IPv6 as IPv4; empty when it is none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Address(found.packed))  # without its zone
    return str(found)


class Allowed:
    """[http] allow of the configuration of now."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._written = ""
        self._networks: Networks = ()

    def has(self, address: str) -> bool:
        """Whether an address, as canonical() writes it, is in one of these networks."""
        config = self._config()
        if self._written != config.http_allow:
            self._networks, self._written = of(config), config.http_allow
        return bool(address) and any(ipaddress.ip_address(address) in each for each in self._networks)


def is_loopback(address: str) -> bool:
    return bool(address) and ipaddress.ip_address(address).is_loopback
