"""A worker alone: where the Asterisk of a connection runs."""

from __future__ import annotations

import socket

import pytest

from noojee_agi.server import fastagi

THREADS, ASKERS = 16, 2  # an eighth of them


@pytest.mark.parametrize(
    ("family", "listens", "comes_from", "host"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", ""),
        (socket.AF_INET, "127.0.0.1", "127.0.0.9", "127.0.0.9"),
        (socket.AF_INET6, "::", "127.0.0.1", ""),
        (socket.AF_INET6, "::", "127.0.0.9", "127.0.0.9"),
    ],
)
def test_another_host_is_one_of_another_address_written_as_it_is_known(
    family: socket.AddressFamily, listens: str, comes_from: str, host: str
) -> None:
    with socket.create_server(
        (listens, 0), family=family, dualstack_ipv6=family == socket.AF_INET6
    ) as server:
        address = ("127.0.0.1", server.getsockname()[1])
        with socket.create_connection(address, source_address=(comes_from, 0)):
            connection, peer = server.accept()
            with connection:
                assert fastagi.other_host(connection, peer[0]) == host
