"""How many calls a second each FastAGI server takes, and how long it keeps them, side by side.

python -m bench.load (in tests/) prints the table. The servers take turns, and whatever a turn has left for
later is done before the next begins, so what disturbs the machine disturbs all alike. One more server, in C,
does nothing but ask: its row is what the client could do, on the same machine, in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench import load_client, machine, places, servers, table
from bench.load_client import Client
from bench.places import Places
from bench.servers import Server

CONNECTIONS = (1, 8, 64)
CALLS = 2000
ROUNDS = 5
WARM_UP_ROUNDS = 1
_REST_SECONDS = 0.25


@dataclass(frozen=True)
class Turn:
    """One server's calls in one round, in milliseconds; cpu of a call is the server's, own_cpu the client's.

    backlog: from the end of the last call until all are in the database. cpu includes that work, and all that
    comes after it, until the server's processes do nothing any more. at_rest: how many processors others had
    just before its round.
    """

    per_second: float
    median: float
    p99: float
    longest: float
    cpu: float
    own_cpu: float
    backlog: float
    failures: Mapping[str, int]
    at_rest: float = 0.0


Turns = Mapping[tuple[int, str], Sequence[Turn]]


def measure(
    where: Places, rounds: int = ROUNDS, calls: int = CALLS, connections: Sequence[int] = CONNECTIONS
) -> Turns:
    """Every server's turns by connections and name, after shorter warm-up rounds that do not count.

    The n-th turns of two servers are of one round.
    """
    turns: dict[tuple[int, str], list[Turn]] = {}
    kind, instant_server = load_client.choose(), load_client.build("instant_server")
    with servers.all_of_them(where, instant_server) as running:
        clients = {server.name: kind.calling(server.port, server.key) for server in running}
        for at_once in connections:
            for number in range(WARM_UP_ROUNDS + rounds):
                at_rest = machine.load_at_rest(_REST_SECONDS)
                for server in _order(running, number):
                    is_warm = number >= WARM_UP_ROUNDS
                    turn = take_turn(server, clients[server.name], calls if is_warm else calls // 3, at_once)
                    if is_warm:
                        turn = replace(turn, at_rest=at_rest)
                        turns.setdefault((at_once, server.name), []).append(turn)
    return turns


def take_turn(server: Server, client: Client, calls: int, at_once: int) -> Turn:
    """Place the calls, and wait until all that went well are in the database and nothing is left to do."""
    stored, used = server.stored(), server.cpu_seconds()
    outcome = client.place(calls, at_once)
    begun = time.perf_counter()
    taken = len(outcome.milliseconds)
    server.wait_until_stored(stored + taken)
    backlog = time.perf_counter() - begun
    server.rest()
    used = server.cpu_seconds() - used
    server.forget()
    milliseconds = sorted(outcome.milliseconds) or [float("nan")]
    return Turn(
        taken / outcome.seconds,
        statistics.median(milliseconds),
        milliseconds[int(len(milliseconds) * 0.99)],
        milliseconds[-1],
        used / calls * 1000,
        outcome.own_cpu_seconds / calls * 1000,
        backlog * 1000,
        outcome.failures,
    )


def median(turns: Iterable[Turn], figure: Callable[[Turn], float]) -> float:
    """Of one figure, over the rounds."""
    return statistics.median(map(figure, turns))


def shares(
    turns: Turns, at_once: int, ours: str, theirs: str, figure: Callable[[Turn], float]
) -> list[float]:
    """How good ours is beside theirs, round by round: 1 is level, more is better, in rate and in time."""
    pairs = zip(turns[at_once, ours], turns[at_once, theirs], strict=True)
    return [
        figure(one) / figure(other) if figure is per_second else figure(other) / figure(one)
        for one, other in pairs
    ]


def at_rest(turns: Turns) -> float:
    """How many processors others had, in the median of all turns."""
    return statistics.median(turn.at_rest for of_server in turns.values() for turn in of_server)


def per_second(turn: Turn) -> float:
    return turn.per_second


def held_median(turn: Turn) -> float:
    return turn.median


def held_p99(turn: Turn) -> float:
    return turn.p99


def cpu(turn: Turn) -> float:
    return turn.cpu


def failures(turns: Iterable[Turn]) -> Counter[str]:
    """The reasons for which calls failed, in all rounds."""
    return sum((Counter(turn.failures) for turn in turns), Counter[str]())


def text(turns: Turns) -> str:
    """The result for people."""
    head = (
        "FastAGI server",
        "at once",
        "calls a second",
        "median ms",
        "99 % ms",
        "longest ms",
        "CPU ms a call",
        "client's CPU ms",
        "backlog ms",
        "failed",
    )
    rows = [
        (
            name,
            f"{at_once}",
            f"{median(of_server, per_second):.0f}",
            f"{median(of_server, held_median):.2f}",
            f"{median(of_server, held_p99):.2f}",
            f"{max(turn.longest for turn in of_server):.1f}",
            f"{median(of_server, cpu):.2f}",
            f"{median(of_server, lambda turn: turn.own_cpu):.2f}",
            f"{median(of_server, lambda turn: turn.backlog):.0f}",
            ", ".join(f"{count} {why}" for why, count in failures(of_server).items()) or "0",
        )
        for (at_once, name), of_server in sorted(turns.items(), key=lambda item: item[0][0])
    ]
    return table.text(head, rows)


def _order(running: Sequence[Server], number: int) -> list[Server]:
    """Another server begins each round, and each second round goes backwards."""
    begin = number % len(running)
    order = [*running[begin:], *running[:begin]]
    return order[::-1] if number % 2 else order


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each server ({ROUNDS})")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"calls of a turn ({CALLS})")
    parser.add_argument(
        "--connections", type=int, nargs="+", default=CONNECTIONS, help="calls at once (1 8 64)"
    )
    given = parser.parse_args()
    with places.in_memory() as where:
        print(text(measure(where, given.rounds, given.calls, given.connections)))


if __name__ == "__main__":
    main()
