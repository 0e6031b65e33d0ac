"""What the server's processes count together, and that nobody outside can make it grow."""

from __future__ import annotations

import os
from collections.abc import Callable

from noojee_agi.actions.result import Report, Result
from noojee_agi.server import counters
from noojee_agi.server.counters import Counters
from noojee_agi.server.reports import Reports
from unit.test_readme import statuses

WORKERS = 3


def in_processes(works: list[Callable[[], None]]) -> None:
    """Each in a fork of its own, all at once."""
    children = []
    for work in works:
        child = os.fork()
        if not child:
            work()
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(works)


def test_what_all_processes_count_adds_up() -> None:
    numbers = Counters(WORKERS)

    def of(worker: int) -> None:
        for _ in range(1000):
            numbers.add_session(worker, "start_record", 200, 0.002)
            numbers.add_session(worker, "stop_record", 503, 3.0)

    in_processes([lambda: of(0), lambda: of(1), lambda: of(2), lambda: numbers.add_drain(0.3)])

    told = numbers.counted()
    assert {key: number for key, number in told.sessions.items() if number} == {
        ("start_record", "200"): 3000,
        ("stop_record", "503"): 3000,
    }
    holds = told.holds["stop_record"]
    assert dict(zip(holds.bounds, holds.counts, strict=False))[5.0] == sum(holds.counts) == 3000
    assert (holds.sum, round(told.holds["start_record"].sum, 6)) == (9000, 6)
    assert (sum(told.drains.counts), told.drains.sum) == (1, 0.3)
    assert (numbers.report()["sessions"], numbers.report()["failed"]) == (6000, 3000)


def test_a_bound_is_still_within_it_and_what_is_longer_than_all_is_the_last() -> None:
    numbers = Counters(1)

    for seconds in (0.0, 0.005, 0.0051, 10.0, 1000.0):
        numbers.add_session(0, "start_record", 200, seconds)
    for seconds in (60.0, 61.0):
        numbers.add_drain(seconds)

    assert numbers.counted().holds["start_record"].counts == [2, 1, *[0] * 8, 1, 1]
    assert numbers.counted().drains.counts == [*[0] * 12, 1, 1]


def test_programs_and_statuses_that_nobody_knows_have_their_place_already() -> None:
    """Else whoever reaches the port could fill the memory, or a scraper's."""
    numbers = Counters(1)
    before = numbers.counted()

    for name in ("-", "x" * 1000, "start_record.py", ""):
        numbers.add_session(0, name, 400, 0.1)
    numbers.add_session(0, "start_record", 999, 0.1)

    told = numbers.counted()
    assert (told.sessions.keys(), told.holds.keys()) == (before.sessions.keys(), before.holds.keys())
    assert told.sessions["other", "400"] == sum(told.holds["other"].counts) == 4
    assert told.sessions["start_record", "500"] == 1


def test_each_status_that_there_is_is_counted_apart() -> None:
    assert statuses() <= {*counters.STATUSES}


def test_the_counts_of_a_worker_leave_the_others_and_the_drain_process_alone() -> None:
    numbers = Counters(WORKERS)
    for program in counters.PROGRAMS:
        for status in counters.STATUSES:
            numbers.add_session(1, program, status, 100.0)
    numbers.add_drain(100.0)

    report = numbers.report()
    cells = len(counters.PROGRAMS) * len(counters.STATUSES)
    assert (report["sessions"], report["running"]) == (cells, 0)
    assert {report[name] for name in ("drained_at", "trouble_since", "troubles", "sees_ends")} == {0}
    assert set(numbers.counted().sessions.values()) == {1}


def test_a_server_that_ends_sees_no_end_whatever_its_drain_process_says() -> None:
    numbers = Counters(WORKERS)
    numbers.set_sees_ends(True)
    assert (numbers.sees_ends(), numbers.report()["sees_ends"]) == (True, 1)

    numbers.end()
    numbers.set_sees_ends(True)

    assert (numbers.sees_ends(), numbers.report()["sees_ends"]) == (False, 0)


def test_a_report_is_counted_by_its_program_status_and_seconds() -> None:
    numbers = Counters(2)
    reading, events = os.pipe()
    try:
        Reports(numbers, 1, events).add(Report("pause_record", "1.2", Result(409), 1500.0))
    finally:
        os.close(reading)
        os.close(events)

    told = numbers.counted()
    assert told.sessions["pause_record", "409"] == numbers.report()["sessions"] == 1
    assert told.holds["pause_record"].sum == 1.5
    assert numbers.report()["failed"] == 0
