"""How long AGI sessions are held beside bad company at the HTTP port, in turns with none.

python -m bench.http_beside (in tests/) prints the table. The sessions come one at a time, from a client that
needs little of the processor; the company works at the lowest priority, since it belongs on another machine.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import footprint, http_company, network_call, web
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until

from bench import handed_over, load_client, places, processor, table
from bench.load_client import Client
from bench.places import Places

NONE = "none"
KINDS: Mapping[str, str] = {
    NONE: "nobody",
    "silent": "1000 connections that say nothing",
    "slow": "200 connections, one byte a second each",
    "guessers": "64 who guess keys at full speed",
    "deaf": "16 who ask for 100 MB and read nothing",
    "flood": "64 who get /openapi.json at full speed",
}
WAYS = ("fastagi", "handed_over")
ROUNDS, CALLS = 10, 100
AUDIO_BYTES = 100_000_000
_SETTLED_SECONDS = 0.3


@dataclass(frozen=True)
class Turn:
    """Milliseconds of each session; what the process for HTTP had in memory, and its share of a processor."""

    fastagi: Sequence[float]
    handed_over: Sequence[float]
    megabytes: float
    share: float


Turns = Mapping[str, Sequence[Turn]]


class Beside:
    """One server, with a leg that has much audio."""

    def __init__(self, served: Served, client: Client) -> None:
        self.served = served
        self._client = client
        self._number = 0
        leg = served.site.wait_for_legs()[0]
        with Path(leg["file"]).open("r+b") as file:
            file.truncate(AUDIO_BYTES)
        self.audio = f"/recordings/{leg['id']}/audio?apiKey={served.site.key}"

    def turn(self, kind: str, calls: int) -> Turn:
        """So many sessions of each way beside this company."""
        beside = http_company.company(kind, self.served.http_port, self.audio)
        with beside if kind != NONE else contextlib.nullcontext():
            begun = time.monotonic()
            wait_until(lambda: time.monotonic() > begun + _SETTLED_SECONDS)
            used, begun = self._used(), time.monotonic()
            outcome = self._client.place(calls, 1)
            assert not outcome.failures, outcome.failures
            over = [self._hand_over() for _ in range(calls)]
            share = (self._used() - used) / (time.monotonic() - begun)
            return Turn(outcome.milliseconds, over, self.megabytes(), share)

    def megabytes(self) -> float:
        return footprint.of(self.served.http_process).kilobytes / 1024

    def _used(self) -> float:
        return processor.seconds([self.served.http_process])

    def _hand_over(self) -> float:
        self._number += 1
        call = handed_over.numbered(self._number, self.served.site.key)
        return handed_over.hold(self.served.socket, self.served.site.conf, call)


@contextlib.contextmanager
def running(where: Places) -> Iterator[Beside]:
    site = Site(where.memory / "site", f"sqlite:///{where.memory}/noojee.db", has_loaded_drains=False)
    site.cli("account", "add", "Fred")
    with Served(site, {"http.listen": "127.0.0.1:0", "log.level": "info"}) as served:
        client = load_client.choose(where.memory).calling(served.port, site.key)
        network_call.place(served.port, site.key)
        served.wait_for("sees_ends", 1)
        assert web.get(served.http_port, "/openapi.json").status == 200
        yield Beside(served, client)


def measure(beside: Beside, rounds: int = ROUNDS, calls: int = CALLS) -> Turns:
    """By kind, after a turn that does not count."""
    turns: dict[str, list[Turn]] = {kind: [] for kind in KINDS}
    beside.turn(NONE, calls)
    for number in range(rounds):
        for kind in [*KINDS][:: -1 if number % 2 else 1]:
            turns[kind].append(beside.turn(kind, calls))
    return turns


def ratio(turns: Turns, kind: str, way: str) -> float:
    """Of the medians of all sessions: beside this company to beside nobody."""
    return median(turns[kind], way) / median(turns[NONE], way)


def megabytes(turns: Turns, kind: str) -> float:
    """At most."""
    return max(turn.megabytes for turn in turns[kind])


def share(turns: Turns, kind: str) -> float:
    """Of a processor, the median over the rounds."""
    return statistics.median(turn.share for turn in turns[kind])


def median(turns: Sequence[Turn], way: str) -> float:
    """Of all sessions of that way, in milliseconds."""
    of_way: list[float] = [each for turn in turns for each in getattr(turn, way)]
    return statistics.median(of_way)


def text(turns: Turns) -> str:
    """The result for people."""
    head = (
        "beside",
        "FastAGI, ms",
        "÷ nobody",
        "handed over, ms",
        "÷ nobody",
        "HTTP's memory, MB",
        "processor",
    )
    rows = [
        (
            KINDS[kind],
            f"{median(turns[kind], 'fastagi'):.2f}",
            f"{ratio(turns, kind, 'fastagi'):.2f}",
            f"{median(turns[kind], 'handed_over'):.2f}",
            f"{ratio(turns, kind, 'handed_over'):.2f}",
            f"{megabytes(turns, kind):.0f}",
            f"{share(turns, kind):.2f}",
        )
        for kind in turns
    ]
    return table.text(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.http_beside", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each company ({ROUNDS})")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"sessions of each way in a turn ({CALLS})")
    given = parser.parse_args()
    with places.in_memory() as where, running(where) as beside:
        print(text(measure(beside, given.rounds, given.calls)))


if __name__ == "__main__":
    main()
