"""kill -9 of the drain at every step: the next drain makes it good, no leg is lost, none is there twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import pytest
from sqlalchemy import inspect, text

from integration.lines import first_and_last, killed_at, lines_of, traced
from integration.recorder import Recorder, after, die_after, ended, exit_code, forked
from integration.silent_legs import (
    REJECTED_PER_CALL,
    assert_made_good,
    lengths,
    put_call,
    put_cut_off_leg,
)
from noojee_agi.config import Config
from noojee_agi.database import schema, tables
from noojee_agi.database.store import REVISION, Store
from noojee_agi.recordings import sidecar, spool, wav
from noojee_agi.recordings.recording import Event
from noojee_agi.sync import __main__ as background_drain
from noojee_agi.sync import drain, housekeeping

Tell = Callable[[str], None]
SWEEP = 14
# Kills of the short form. PostgreSQL starts a process for each connection, and a drain has a dozen.
FEW = {"sqlite": 6, "postgresql": 3}
CUT = 16044  # bytes of a leg that was cut off, when it is repaired


class Victims:
    """Drains that are killed, each with a call of its own, and what became of the calls."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.conf = str(recorder.directory.parent / "noojee_agi.conf")
        self.kills = 0
        self._statuses: dict[str, str] = {}
        self._calls = 0
        self._configure()

    def drain(self) -> None:
        """All that the background drain does: events, silent legs, snapshot."""
        background_drain.main(self.conf)

    def make_good(self) -> None:
        """The next drain, in this process, where it need not connect and compile its questions first."""
        config = Config.load(self.conf)
        drain.run_own(self.recorder.store, config)
        housekeeping.run(self.recorder.store, config)

    def kill(self, begin: Callable[[], int]) -> None:
        """Put a call, let `begin` drain it in a process that dies, and see the next drain make it good."""
        uniqueid = f"17.{self._calls}"
        self._calls += 1
        statuses = put_call(self.recorder, uniqueid)
        self._statuses |= statuses
        self.kills += begin() < 0
        self.make_good()
        assert_made_good(self.recorder, uniqueid, statuses)

    def kill_often(self, wanted: int, begin: Callable[[float], int], since: float = 0.0) -> None:
        """Kill that many, at moments spread over the time that a drain takes which nobody disturbs.

        since: the share of that time which is left out at its start.
        """
        tries = 0
        while (left := min(wanted - self.kills, SWEEP)) > 0:
            whole = self._seconds(begin)  # measured again and again, for the machine has other work, too
            for number in range(left):
                moment = whole * (since + (1 - since) * (number + 0.5) / left)
                self.kill(lambda moment=moment: begin(moment))  # type: ignore[misc]
            tries += left
            assert tries <= 5 * wanted + SWEEP, f"only {self.kills} of {tries} drains met their end"

    def _seconds(self, begin: Callable[[float], int]) -> float:
        took = []
        for _ in range(2):
            put_call(self.recorder, f"undisturbed.{time.time_ns()}")
            start = time.monotonic()
            assert begin(60.0) == 0
            took.append(time.monotonic() - start)
            assert self.recorder.waiting() == []
        return min(took)

    def losses(self) -> str:
        """In words; there must be none."""
        rows = [row for row in self.recorder.legs() if row["id"] in self._statuses]
        right = {row["id"] for row in rows if row["status"] == self._statuses[row["id"]]}
        lost = len(self._statuses) - len(right)
        twice = len(rows) - len({(row["call_uniqueid"], row["leg"]) for row in rows})
        assert (lost, twice) == (0, 0)
        assert len(self.recorder.reasons()) % REJECTED_PER_CALL == 0
        assert len(self.recorder.reasons()) >= REJECTED_PER_CALL * self._calls
        return f"{self.kills} kills, {len(rows)} legs, {lost} lost, {twice} twice"

    def _configure(self) -> None:
        url = self.recorder.store.url.render_as_string(hide_password=False)
        state = self.recorder.directory.parent / "state"
        state.mkdir()
        Path(self.conf).write_text(
            f"[database]\nurl = {url}\n[recordings]\ndirectory = {self.recorder.directory}\n"
            f"[state]\ndirectory = {state}\n[server]\nname = pbx1\n"
        )


@pytest.fixture
def victims(recorder: Recorder) -> Victims:
    return Victims(recorder)


# --- by the clock ---


def test_a_drain_killed_at_any_moment_loses_and_doubles_nothing(
    victims: Victims, backend: str, is_long: bool, tell: Tell
) -> None:
    def begin(seconds: float) -> int:
        def work() -> None:
            die_after(seconds)
            victims.drain()

        return exit_code(forked(work))

    victims.kill_often(140 if is_long else FEW[backend], begin)

    tell(f"kill -9 of the drain at any moment, {backend}: {victims.losses()}")


def test_a_drain_program_killed_at_any_moment_loses_and_doubles_nothing(
    victims: Victims, backend: str, is_long: bool, tell: Tell
) -> None:
    """As each call leaves it behind, with the spool's lock; the first half of its time it imports."""

    def begin(seconds: float) -> int:
        lock = spool.take_lock(victims.recorder.spool)
        assert lock is not None
        command = [sys.executable, "-I", "-m", "noojee_agi.sync", victims.conf, str(lock)]
        with subprocess.Popen(command, pass_fds=(lock,)) as process:
            os.close(lock)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.kill()
        return process.returncode

    victims.kill_often(60 if is_long else FEW[backend] // 3, begin, since=0.5)

    tell(f"kill -9 of python -m noojee_agi.sync, {backend}: {victims.losses()}")


# --- at every line ---


def test_a_drain_killed_at_any_line_loses_and_doubles_nothing(
    victims: Victims, backend: str, is_long: bool, tell: Tell, tmp_path: Path
) -> None:
    """Before the first and before the last run of each line of ours that a drain goes through."""
    for uniqueid in ("first", "traced"):  # the first one also makes the tables
        put_call(victims.recorder, uniqueid)
        lines = lines_of(victims.drain, tmp_path / "lines.json")
    targets = first_and_last(lines)
    assert len(targets) > 200
    step = 1 if is_long else len(targets) / FEW[backend]

    for number in range(int(len(targets) / step)):
        line, times = targets[int(number * step)]
        victims.kill(lambda line=line, times=times: killed_at(line, times, victims.drain))  # type: ignore[misc]

    assert victims.kills >= 0.9 * len(targets) / step
    tell(f"kill -9 of the drain at {len(lines)} lines, {backend}: {victims.losses()}")


# --- closing silent legs ---


def killed_when_it_calls(code: CodeType, work: Callable[[], object], times: int = 1) -> None:
    """Run work in a process that dies when it comes to the function of that code for that time."""
    calls = []

    def trace(frame: FrameType, event: str, _: object) -> None:
        calls.extend([1] * (event == "call" and frame.f_code is code))
        if len(calls) == times:
            os.kill(os.getpid(), signal.SIGKILL)

    assert exit_code(forked(lambda: traced(trace, work))) == -signal.SIGKILL


def status(recorder: Recorder) -> str:
    [row] = recorder.legs()
    found: str = row["status"]
    return found


def test_a_kill_between_commit_and_repair_is_made_good(victims: Victims) -> None:
    recorder = victims.recorder
    leg = put_cut_off_leg(recorder)

    killed_when_it_calls(wav.repair.__code__, victims.drain)
    assert (status(recorder), lengths(leg.file)) == ("interrupted", (CUT, 8, 44))
    assert '"recording"' in Path(sidecar.path_for(leg.file)).read_text()
    assert len(recorder.waiting()) == 1

    recorder.drain()
    assert (status(recorder), lengths(leg.file)) == ("interrupted", (CUT, CUT, CUT))
    assert recorder.waiting() == []
    recorder.assert_side_cars_tell_the_same()


@pytest.mark.parametrize("writes", [1, 2])
def test_a_kill_in_the_middle_of_a_repair_is_made_good(victims: Victims, writes: int) -> None:
    recorder = victims.recorder
    leg = put_cut_off_leg(recorder)
    write, done = os.pwrite, []

    def write_and_die(descriptor: int, content: bytes, at: int) -> int:
        write(descriptor, content, at)
        done.append(at)
        if len(done) == writes:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(content)

    def work() -> None:
        os.pwrite = write_and_die  # type: ignore[assignment]  # in a process that ends with this
        victims.drain()

    assert exit_code(forked(work)) == -signal.SIGKILL
    recorder.drain()

    assert lengths(leg.file) == (CUT, CUT, CUT)


def test_a_kill_between_the_endings_of_two_silent_legs_closes_both_in_the_end(victims: Victims) -> None:
    recorder = victims.recorder
    for number in range(2):
        put_cut_off_leg(recorder, call_uniqueid=f"17.{number}")
    put = spool.put

    def put_and_die(directory: str, *events: Event) -> None:
        put(directory, *events)
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        spool.put = put_and_die  # in a process that ends with this
        victims.drain()

    assert exit_code(forked(work)) == -signal.SIGKILL
    assert len(recorder.waiting()) == 1
    assert exit_code(forked(victims.drain)) == 0

    assert {(row["status"], lengths(row["file"])) for row in recorder.legs()} == {("interrupted", (CUT,) * 3)}
    assert recorder.waiting() == []


# --- the side-cars of other legs ---


@pytest.mark.parametrize("written", range(4))
@pytest.mark.parametrize("started_at", [-1, 100], ids=["an older leg", "a later leg"])
def test_a_kill_before_the_side_cars_of_other_legs_is_made_good(
    recorder: Recorder, written: int, started_at: float
) -> None:
    """All of them have another number, beginning or External Reference to say; the events stay for that."""
    legs = [recorder.leg(started_at=after(number)) for number in range(3)]
    recorder.store_all(*legs)
    late = recorder.leg(started_at=after(started_at), tag="INV-22")
    recorder.put(late)

    killed_when_it_calls(sidecar.write.__code__, recorder.drain, written + 1)
    assert len(recorder.waiting()) == 1
    assert [row["external_reference"] for row in recorder.legs()] == ["INV-22"] * 4

    recorder.put(ended(late))  # what comes meanwhile must not hide it
    recorder.drain()
    recorder.assert_side_cars_tell_the_same()
    assert recorder.waiting() == []


# --- making the tables ---


def test_a_killed_upgrade_leaves_no_half_schema(
    empty_database_url: str, backend: str, is_long: bool, tell: Tell
) -> None:
    """The first drain makes SQLite's tables; PostgreSQL's are made by `noojee-agi db upgrade`."""
    wanted = 40 if is_long else 3
    kills = rounds = 0

    while not kills:
        rounds += 1
        assert rounds <= 5, "no upgrade met its end"
        start = time.monotonic()  # anew, for the machine has other work, too
        assert exit_code(forked(lambda: schema.upgrade(Store(empty_database_url)))) == 0
        whole = time.monotonic() - start
        for number in range(wanted):
            _remove_tables(empty_database_url)
            moment = whole * (number + 0.5) / wanted
            kills += exit_code(forked(lambda moment=moment: _upgrade(empty_database_url, moment))) < 0  # type: ignore[misc]
            _assert_all_or_nothing(empty_database_url)
        _remove_tables(empty_database_url)

    schema.upgrade(Store(empty_database_url))
    tell(f"kill -9 of an upgrade, {backend}: {kills} kills, 0 half schemas")


def _upgrade(url: str, seconds: float) -> None:
    die_after(seconds)
    schema.upgrade(Store(url))


def _assert_all_or_nothing(url: str) -> None:
    store = Store(url)
    revision = store.revision()
    with store.reading() as connection:
        there = set(inspect(connection).get_table_names()) - {"alembic_version"}
    assert (revision, there) in [("", set()), (REVISION, set(tables.metadata.tables))]


def _remove_tables(url: str) -> None:
    with Store(url).transaction() as connection:
        tables.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
