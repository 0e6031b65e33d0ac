"""What the drain does for an event, without the spool: rows and side-cars; microseconds an event.

python -m bench.drain_cost [SECONDS] (in tests/): SQLite in memory and a PostgreSQL of its own, in batches of
1 and of 200 events; the processor's time of this process alone, and what the fastest tenth took.
PYTHONPATH with another state of the product in front says what a change has brought.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from lab.postgresql import PrivatePostgreSQL
from unit import fakes

from bench import table
from noojee_agi.database import intake, queries, schema
from noojee_agi.database.store import Store
from noojee_agi.recordings import recording, sidecar
from noojee_agi.recordings.recording import Ending, Event, Leg, leg_ids

BATCHES = (1, 200)
SECONDS, ROUNDS = 3.0, 10  # at least


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        with PrivatePostgreSQL(folder / "postgresql") as server:
            urls = {
                "SQLite": f"sqlite:///{folder}/noojee.db",
                "PostgreSQL": server.url(server.create_database()),
            }
            rows = [(kind, *_costs(url, folder / kind, seconds)) for kind, url in urls.items()]
    head = [f"{size} {what}" for size in BATCHES for what in ("processor", "elapsed")]
    print(table.text(("µs an event, a batch of", *head), rows))


def _costs(url: str, folder: Path, seconds: float) -> list[str]:
    store = Store(url)
    schema.upgrade(store)
    day = folder / "2025/11/06"
    day.mkdir(parents=True)
    return [f"{cost:.0f}" for size in BATCHES for cost in _cost(store, day, size, seconds)]


def _cost(store: Store, day: Path, size: int, seconds: float) -> tuple[float, float]:
    """The processor's time, median, and the time that passed."""
    own: list[float] = []
    passed: list[float] = []
    events, until = _events(day), time.perf_counter() + seconds
    while time.perf_counter() < until or len(passed) < ROUNDS:
        batch = [*itertools.islice(events, size)]
        begun, processor = time.perf_counter(), time.process_time()
        _take(store, batch)
        own.append((time.process_time() - processor) * 1_000_000 / size)
        passed.append((time.perf_counter() - begun) * 1_000_000 / size)
    return statistics.median(own), statistics.quantiles(passed, n=10)[0]


def _take(store: Store, events: list[Event]) -> None:
    with store.transaction() as connection:
        intake.store(connection, events)
        legs = queries.whole_legs(connection, leg_ids(events))
    assert all([sidecar.write(leg) for leg in legs])


def _events(day: Path) -> Iterator[Event]:
    """Of new calls, of which fifty at a time are recorded."""
    open_legs: list[Leg] = []
    while True:
        new, uniqueid = recording.new_id(), f"{time.time_ns()}.1"
        file = str(day / f"{uniqueid}-{new[:8]}.wav")
        agent = "Fred" if len(open_legs) % 2 else ""
        leg = fakes.leg(id=new, call_uniqueid=uniqueid, uniqueid=uniqueid, agent_login_name=agent, file=file)
        open_legs.append(leg)
        yield leg
        if len(open_legs) > 50:
            ended = open_legs.pop(0)
            yield Ending(ended.id, "completed", ended.started_at + timedelta(minutes=1), 960044, 60.0)


if __name__ == "__main__":
    main()
