"""[http] allow: the networks that may use the API."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

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


def have(networks: Networks, address: str) -> bool:
    """Whether an address, as the socket says it, is in one of them."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in network for network in networks)
