"""python -m bench (in tests/) prints every table, one after the other, and the machine they come from.

All in one run: only ratios within a run say anything. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from lab import asterisk

from bench import bases, conditions, following, hold, load, memory, places, recorded_calls, sides, volume
from bench.places import Places

PARTS = ("hold", "conditions", "recorded", "load", "memory", "following", "legs")


def machine() -> str:
    """What the figures come from."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    parts = (
        f"{os.cpu_count()} cores",
        model[0].partition(":")[2].strip() if model else platform.machine(),
        f"Asterisk {asterisk.find(22).version}",
        f"Python {platform.python_version()}",
        f"load at start {os.getloadavg()[0]:.2f}",
    )
    return ", ".join(parts)


def run(where: Places, rounds: int, legs: int, parts: set[str]) -> None:
    """Measure these parts, and print each as soon as it is there."""
    few = many = None
    if "legs" in parts:
        begun = time.monotonic()
        few, many = bases.make(where, "few", volume.FEW), bases.make(where, "many", legs)
        print(f"{legs} legs were made in {time.monotonic() - begun:.0f} s\n", flush=True)
    if parts & {"hold", "conditions"}:
        with sides.running(where) as running:
            if "hold" in parts:
                print(f"{hold.text(hold.of(running, rounds, hold.BURSTS))}\n", flush=True)
            if "conditions" in parts:
                full = {f"{legs} legs": conditions.full(many.url)} if many else {}
                turns = max(1, min(conditions.TURNS, rounds // conditions.CALLS_OF_A_TURN))
                held = conditions.measure(running, turns, conditions={**conditions.CONDITIONS, **full})
                print(f"{conditions.text(held)}\n", flush=True)
    in_memory: tuple[tuple[str, Callable[[Places], str]], ...] = (
        ("recorded", lambda there: recorded_calls.text(recorded_calls.measure(there))),
        ("load", lambda there: load.text(load.measure(there))),
        ("memory", lambda there: memory.text(memory.measure(there))),
        ("following", lambda there: following.text(following.measure(there))),
    )
    for part, measured in in_memory:
        if part in parts:
            with places.in_memory() as there:
                print(f"{measured(there)}\n", flush=True)
    if few and many:
        print(volume.text(volume.measure(few, many), few, many), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=hold.ROUNDS, help=f"calls of each way ({hold.ROUNDS})")
    parser.add_argument("--legs", type=int, default=volume.MANY, help=f"of the full database ({volume.MANY})")
    parser.add_argument("--without", choices=PARTS, nargs="+", default=[], help="leave these out")
    parser.add_argument("--disk", type=Path, help=f"where the databases lie ({places.DISK})")
    given = parser.parse_args()
    print(f"{machine()}\n", flush=True)
    with places.make(given.disk) as where:
        run(where, given.rounds, given.legs, {*PARTS} - {*given.without})


if __name__ == "__main__":
    main()
