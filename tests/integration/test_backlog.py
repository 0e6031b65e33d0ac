"""Thousands of events that wait, as after a long outage: none is lost, and how fast they are stored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from statistics import median

import pytest

from integration.recorder import Recorder, after, ended

Tell = Callable[[str], None]
Clock = Callable[[], float]
EVENTS_PER_CALL = 4


def put_calls(recorder: Recorder, events: int, name: str) -> None:
    """Calls of two legs, both ended; all started before the first ended."""
    legs = [
        recorder.leg(call_uniqueid=f"{name}.{number // 2}", tag=f"INV-{number}", started_at=after(number))
        for number in range(events // 2)
    ]
    recorder.put(*legs, *map(ended, legs))


def seconds_per_event(recorder: Recorder, events: int, name: str, clock: Clock = time.monotonic) -> float:
    """Drain so many waiting events in one go."""
    put_calls(recorder, events, name)
    assert len(recorder.waiting()) == events
    start = clock()
    result = recorder.drain()
    took = clock() - start
    assert (result.stored, result.rejected, result.left) == (events, 0, 0)
    assert recorder.waiting() == []
    return took / events


def test_thousands_of_waiting_events_are_all_stored(
    recorder: Recorder, backend: str, is_long: bool, tell: Tell
) -> None:
    events = 10_000 if is_long else 1_000

    each = seconds_per_event(recorder, events, "17")

    rows = recorder.legs()
    found = Counter((row["call_uniqueid"], row["leg"]) for row in rows)
    assert found == Counter(
        (f"17.{call}", leg) for call in range(events // EVENTS_PER_CALL) for leg in (1, 2)
    )
    assert Counter(row["status"] for row in rows) == {"completed": events // 2}
    recorder.assert_side_cars_tell_the_same()
    tell(f"{events} events waiting, {backend}: {1 / each:.0f} a second, 0 lost, 0 twice")


def test_an_event_takes_no_more_of_the_processor_however_many_wait(
    recorder: Recorder, backend: str, is_long: bool, tell: Tell
) -> None:
    """Of the drain's own: what other processes do at the time is left out."""
    if not is_long:
        pytest.skip("takes minutes: run with --long")

    def each(events: int, name: str) -> float:
        return seconds_per_event(recorder, events, name, time.process_time)

    each(400, "first")  # what the first drain of a process takes longer
    few = median(each(1_000, f"few-{number}") for number in range(3))
    many = each(10_000, "many")

    tell(f"an event among 10000 takes {many / few:.2f} of the time of one among 1000, {backend}")
    assert many / few < 2
