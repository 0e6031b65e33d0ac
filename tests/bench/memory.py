"""What a FastAGI server holds in memory: at rest, after many sessions, and with many connections open.

python -m bench.memory (in tests/) prints the table: ours, and the peer that is the measure for ours.
"""

from __future__ import annotations

import argparse
import contextlib
import selectors
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from lab import footprint, processes
from lab.network_call import NetworkCall

from bench import load_client, places, servers, table
from bench.places import Places
from bench.servers import Server

SESSIONS = 10_000
CONNECTIONS = 1000
AT_ONCE = 8
PEER = "panoramisk"
_QUIET_SECONDS = 1.0
_GROUP = 100  # connections


@dataclass(frozen=True)
class Held:
    """By all processes of a server, in megabytes. shared: files' pages, of the process that has most."""

    server: str
    state: str
    processes: int
    anonymous: float
    shared: float


def measure(where: Places, sessions: int = SESSIONS, connections: int = CONNECTIONS) -> list[Held]:
    """One server after the other."""
    running = (servers.ours(where), servers.peer(PEER, where))
    return [held for each in running for held in of(each, where, sessions, connections)]


def of(
    running: AbstractContextManager[Server],
    where: Places,
    sessions: int = SESSIONS,
    connections: int = CONNECTIONS,
) -> list[Held]:
    """At rest, after the sessions, with the connections."""
    kind = load_client.choose()
    with running as server:
        server.rest()
        found = [_held(server, "at rest")]
        outcome = kind.calling(server.port, server.key).place(sessions, AT_ONCE)
        assert not outcome.failures, outcome.failures
        server.wait_until_stored(sessions)
        server.rest()
        found.append(_held(server, f"after {sessions} sessions"))
        with _open(server, connections) as asked:
            found.append(_held(server, f"{connections} open, {asked} of them asked"))
    return found


def text(found: Sequence[Held]) -> str:
    """The result for people."""
    head = ("server", "when", "processes", "RssAnon MB", "shared MB", "RssAnon grown by MB")
    at_rest: dict[str, float] = {}
    rows = [
        (
            each.server,
            each.state,
            f"{each.processes}",
            f"{each.anonymous:.0f}",
            f"{each.shared:.0f}",
            f"{each.anonymous - at_rest.setdefault(each.server, each.anonymous):.0f}",
        )
        for each in found
    ]
    return table.text(head, rows)


def _held(server: Server, state: str) -> Held:
    found = [footprint.of(process) for process in processes.with_descendants([server.process])]
    return Held(
        server.name,
        state,
        len(found),
        sum(each.kilobytes for each in found) / 1024,
        max(each.shared_kilobytes for each in found) / 1024,
    )


@contextlib.contextmanager
def _open(server: Server, connections: int) -> Iterator[int]:
    """So many calls whose Asterisk answers one question and then no more; how many it has asked.

    Not all at once, since who shows no key is sent away after five seconds, on a busy machine too.
    """
    asked = 0
    with contextlib.ExitStack() as stack:
        for first in range(0, connections, _GROUP):
            count = min(_GROUP, connections - first)
            calls = [stack.enter_context(NetworkCall(server.port, server.key)) for _ in range(count)]
            for call in calls:
                call.begin()
            asked += _answer_once(calls)
        yield asked


def _answer_once(calls: Sequence[NetworkCall]) -> int:
    """How many were asked something before the server asked no further one."""
    asked = 0
    with selectors.DefaultSelector() as selector:
        for call in calls:
            selector.register(call, selectors.EVENT_READ, call)
        while selector.get_map() and (ready := selector.select(_QUIET_SECONDS)):
            for key, _ in ready:
                selector.unregister(key.fileobj)
                key.data.show_key()
                asked += 1
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"so many ({SESSIONS})")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help=f"open at once ({CONNECTIONS})")
    given = parser.parse_args()
    with places.in_memory() as where:
        print(text(measure(where, given.sessions, given.connections)))


if __name__ == "__main__":
    main()
