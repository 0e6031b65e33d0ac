"""What it costs to follow recordings, where none is: a thousand live channels, and fifty calls a second.

python -m bench.following (in tests/) prints the table: the server's share of a processor, and how long a
start beside that is held, with `follow` and without, in turns in one run on a real Asterisk.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import asterisk, manager
from lab.asterisk import PrivateAsterisk
from lab.postgresql import free_port
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until

from bench import places, processor, table
from bench.places import Places

LIVE, PER_SECOND, SECONDS, ROUNDS, STARTS = 1000, 50, 10.0, 3, 20
FOLLOWS = ("yes", "no")
_SETTLED_SECONDS = 6.0  # its snapshot has been read, and it has looked at all channels
_DIALPLAN = """
[globals]
apiKey={key}
[idle]
exten => s,1,Answer()
 same => n,Wait(3600)
[caller]
exten => s,1,Answer()
 same => n,Wait(2)
[called]
exten => s,1,Answer()
 same => n,Wait(1)
[call]
exten => s,1,Dial(Local/s@called/n,5)
[start]
exten => s,1,Answer()
 same => n,Set(BEGUN=${{STRFTIME(,,%s.%6q)}})
 same => n,AGI(agi://127.0.0.1:{port}/start_record,,INV-22)
 same => n,Set(FILE({holds},,,al,u)=${{BEGUN}} ${{STRFTIME(,,%s.%6q)}} ${{RECORDING_STATUS}})
"""


@dataclass(frozen=True)
class Turn:
    """share: of one processor, by all processes of the server. held: milliseconds of each start."""

    share: float
    held: Sequence[float]


Turns = Mapping[str, Sequence[Turn]]


def measure(where: Places, rounds: int = ROUNDS) -> Turns:
    """By `follow`. Raises LabUnavailable."""
    turns: dict[str, list[Turn]] = {follow: [] for follow in FOLLOWS}
    port, holds = free_port(), where.memory / "holds"
    site = Site(where.memory / "following", has_loaded_drains=False)
    with _started(site, port, "yes") as served:
        listen = served.port
    dialplan = _DIALPLAN.format(key=site.key, port=listen, holds=holds)
    with PrivateAsterisk(
        asterisk.find(22),
        where.memory / "asterisk",
        dialplan,
        {"manager.conf": manager.manager_conf(port)},
        site.environment,
        site.agi_directory,
        verbose=0,
    ) as running:
        running.originate_at_once([("s@idle/n", "s@idle")] * (LIVE // 2))
        wait_until(lambda: _live(running) >= LIVE, 60, "the live channels")
        for _ in range(rounds):
            for follow in FOLLOWS:
                with _started(site, port, follow, listen) as served:
                    turns[follow].append(_take_turn(running, served, holds))
    return turns


@contextlib.contextmanager
def _started(site: Site, manager_port: int, follow: str, listen: int = 0) -> Iterator[Served]:
    served = Served(site, {**manager.options(manager_port), "recordings.follow": follow})
    served.port = listen
    with served:
        yield served


def _take_turn(running: PrivateAsterisk, served: Served, holds: Path) -> Turn:
    settled = time.monotonic() + _SETTLED_SECONDS
    wait_until(lambda: time.monotonic() > settled)
    used, begun = processor.seconds([served.pid]), time.monotonic()
    for number in range(round(SECONDS * 10)):
        running.originate_at_once([("s@caller/n", "s@call")] * (PER_SECOND // 10))
        due = begun + (number + 1) / 10
        wait_until(lambda: time.monotonic() > due)  # noqa: B023
    share = (processor.seconds([served.pid]) - used) / (time.monotonic() - begun)
    held = [_held(running, holds) for _ in range(STARTS)]
    wait_until(lambda: _live(running) <= LIVE, 60, "the end of the calls")
    return Turn(share, held)


def _held(running: PrivateAsterisk, holds: Path) -> float:
    """Milliseconds of one start, beside the calls of a tenth of a second."""
    holds.unlink(missing_ok=True)
    running.originate_at_once([("s@caller/n", "s@call")] * (PER_SECOND // 10) + [("s@caller/n", "s@start")])
    wait_until(lambda: holds.exists() and holds.read_text().endswith("\n"), 20, "a start")
    begun, ended, status = holds.read_text().split()
    assert status == "200"
    return (float(ended) - float(begun)) * 1000


def _live(running: PrivateAsterisk) -> int:
    return int(running.rx("core show channels count").split()[0])


def share(turns: Turns, follow: str) -> float:
    """Of one processor, the median over the rounds."""
    return statistics.median(turn.share for turn in turns[follow])


def held(turns: Turns, follow: str) -> float:
    """The median of all starts, in milliseconds."""
    return statistics.median(hold for turn in turns[follow] for hold in turn.held)


def text(turns: Turns) -> str:
    """The result for people."""
    head = (
        f"{LIVE} live channels, {PER_SECOND} calls a second",
        "server's share of a processor",
        "a start is held, ms",
        "÷ follow = no",
    )
    rows = [
        (
            f"follow = {follow}",
            f"{share(turns, follow) * 100:.1f} %",
            f"{held(turns, follow):.1f}",
            f"{held(turns, follow) / held(turns, 'no'):.2f}",
        )
        for follow in FOLLOWS
    ]
    return table.text(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.following", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each ({ROUNDS})")
    with places.in_memory() as where:
        print(text(measure(where, parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
