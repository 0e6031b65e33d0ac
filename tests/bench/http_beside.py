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
from typing import NamedTuple

from lab import footprint, http_company, network_call, web
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until

from bench import handed_over, load_client, places, processor, table
from bench.load_client import Client
from bench.places import Places

NONE = ""
KINDS: Mapping[str, str] = {
    "silent": "1000 connections that say nothing",
    "slow": "200 connections, one byte a second each",
    "guessers": "64 who guess keys at full speed",
    "deaf": "16 who ask for 100 MB and read nothing",
    "flood": "64 who get /openapi.json at full speed",
}
WAYS = ("fastagi", "handed_over")
ROUNDS, CALLS = 20, 40
AUDIO_BYTES = 100_000_000
_SETTLED_SECONDS = 0.3


@dataclass(frozen=True)
class Turn:
    """Milliseconds of each session; what the process for HTTP had in memory, and its share of a processor."""

    fastagi: Sequence[float]
    handed_over: Sequence[float]
    megabytes: float
    share: float


class Pair(NamedTuple):
    """A turn beside company, and the one right before it beside nobody: a busy machine changes slowly."""

    beside: Turn
    alone: Turn


Pairs = Mapping[str, Sequence[Pair]]


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
            settled = time.monotonic() + (_SETTLED_SECONDS if kind != NONE else 0)
            wait_until(lambda: time.monotonic() >= settled)
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
        client = load_client.choose().calling(served.port, site.key)
        network_call.place(served.port, site.key)
        served.wait_for("sees_ends", 1)
        assert web.get(served.http_port, "/openapi.json").status == 200
        yield Beside(served, client)


def measure(beside: Beside, rounds: int = ROUNDS, calls: int = CALLS) -> Pairs:
    """By kind, after a turn that does not count."""
    pairs: dict[str, list[Pair]] = {kind: [] for kind in KINDS}
    beside.turn(NONE, calls)
    for number in range(rounds):
        for kind in [*KINDS][:: -1 if number % 2 else 1]:
            alone = beside.turn(NONE, calls)
            pairs[kind].append(Pair(beside.turn(kind, calls), alone))
    return pairs


def ratio(pairs: Sequence[Pair], way: str) -> float:
    """Of the medians: beside this company to beside nobody, the median of all pairs."""
    return statistics.median(_median([each.beside], way) / _median([each.alone], way) for each in pairs)


def grown(pairs: Sequence[Pair]) -> float:
    """By how many megabytes at most, from beside nobody."""
    return max(each.beside.megabytes for each in pairs) - min(each.alone.megabytes for each in pairs)


def _median(turns: Sequence[Turn], way: str) -> float:
    """Of all sessions of that way, in milliseconds."""
    of_way: list[float] = [each for turn in turns for each in getattr(turn, way)]
    return statistics.median(of_way)


def text(pairs: Pairs) -> str:
    """The result for people."""
    of_http = ("HTTP's memory, MB", "its share of a processor")
    head = ("beside", "FastAGI, ms", "÷ nobody", "handed over, ms", "÷ nobody", *of_http)
    alone = [each.alone for of_kind in pairs.values() for each in of_kind]
    rows = [("nobody", *_cells(alone, ("1.00", "1.00")))]
    for kind, of_kind in pairs.items():
        ratios = [f"{ratio(of_kind, way):.2f}" for way in WAYS]
        rows.append((KINDS[kind], *_cells([each.beside for each in of_kind], ratios)))
    return table.text(head, rows)


def _cells(turns: Sequence[Turn], ratios: Sequence[str]) -> Sequence[str]:
    held = [f"{_median(turns, way):.2f}" for way in WAYS]
    return (
        *(cell for each in zip(held, ratios, strict=True) for cell in each),
        f"{max(turn.megabytes for turn in turns):.0f}",
        f"{statistics.median(turn.share for turn in turns):.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.http_beside", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each company ({ROUNDS})")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"sessions of each way in a turn ({CALLS})")
    given = parser.parse_args()
    with places.in_memory() as where, running(where) as beside:
        print(text(measure(beside, given.rounds, given.calls)))


if __name__ == "__main__":
    main()
