"""What the server holds in memory grows neither with the sessions that it has had nor much with open ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from bench import memory, places, servers
from bench.memory import CONNECTIONS, Held

SESSIONS = 1000
GROWN_MEGABYTES = 16  # 4 were seen, after 10 000 sessions too: Python's own reserves
CONNECTION_KILOBYTES = (
    64  # 3 were seen, and 14 with panoramisk, but whoever lets all of them begin needs more
)

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def held(is_long: bool) -> Sequence[Held]:
    with places.in_memory() as where:
        measured = memory.of(servers.ours(where), where, memory.SESSIONS if is_long else SESSIONS)
    print(memory.text(measured))
    return measured


def test_memory_does_not_grow_with_sessions(held: Sequence[Held], tell: Callable[[str], None]) -> None:
    at_rest, later, _ = held
    for each in held:
        tell(f"memory, {each.state}: {each.anonymous:.0f} MB, and {each.shared:.0f} MB shared")
    assert later.anonymous - at_rest.anonymous <= GROWN_MEGABYTES


def test_an_open_connection_takes_little_memory(held: Sequence[Held]) -> None:
    _, before, with_connections = held
    each = (with_connections.anonymous - before.anonymous) * 1024 / CONNECTIONS
    assert each <= CONNECTION_KILOBYTES
