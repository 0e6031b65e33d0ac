"""Recordings without an end command: each leg is closed once, by what its file says, whatever was missed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from lab import network_call
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until

from integration.recorder import Recorder, forked
from integration.silent_legs import write_audio
from noojee_agi.config import Config
from noojee_agi.recordings import recording, sidecar, spool
from noojee_agi.recordings.recording import Leg, OpenLeg
from noojee_agi.server import drain_process as drain_process_module
from noojee_agi.server.counters import Counters
from noojee_agi.server.drain_process import DrainProcess
from noojee_agi.sync import closing, drain, open_recordings
from noojee_agi.sync.file_watch import Closed, FileWatch
from noojee_agi.sync.open_recordings import OpenRecordings

SECONDS = 1.0  # of audio


@contextlib.contextmanager
def written(file: str) -> Iterator[BinaryIO]:
    """As MixMonitor writes: opened at the beginning, the lengths in the header at the end."""
    with wave.open(file, "wb") as audio:
        audio.setparams((1, 2, 8000, 0, "NONE", ""))
        audio.writeframes(b"")
        yield audio._file  # type: ignore[attr-defined]
        audio.writeframes(bytes(int(16000 * SECONDS)))


class Watching:
    """A drain process at work, a round at a time."""

    def __init__(self, recorder: Recorder, state: Path) -> None:
        self.config = Config(
            recordings_directory=str(recorder.directory),
            state_directory=str(state),
            server_name="pbx1",
            database_url=recorder.store.url.render_as_string(hide_password=False),
        )
        self.recorder = recorder
        self.counters = Counters(1)
        self.begin()

    def begin(self) -> None:
        """Another process takes over."""
        self.process = DrainProcess(lambda: self.config, self.config, -1, -1, self.counters, [])

    def round(self) -> None:
        self.process._drain(is_last=False)

    def status(self, leg: Leg) -> str:
        return str(self.recorder.the_leg(leg)["status"])


@pytest.fixture
def watching(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watching:
    """No silent leg is closed by its age: what is closed was seen."""
    monkeypatch.setattr(closing, "endings", lambda legs, now: iter(()))
    monkeypatch.setattr(drain_process_module, "_LOOK_SECONDS", 0.0)
    state = tmp_path / "state"
    state.mkdir()
    return Watching(recorder, state)


def begun(recorder: Recorder) -> Leg:
    leg = recorder.leg(started_at=recording.now())
    recorder.put(leg)
    return leg


def test_a_leg_ends_when_its_file_is_closed_and_not_before(watching: Watching) -> None:
    leg = begun(watching.recorder)
    with written(leg.file):
        watching.round()
        watching.round()
        assert (watching.status(leg), watching.counters.sees_ends()) == ("recording", True)

    watching.round()

    row = watching.recorder.the_leg(leg)
    assert (row["status"], row["duration_seconds"]) == ("completed", SECONDS)
    assert row["ended_at"] == recording.file_time(os.stat(leg.file).st_mtime)


def test_a_file_that_was_closed_before_its_folder_is_watched_ends_its_leg(watching: Watching) -> None:
    """Such as the first call of a day."""
    watching.round()
    leg = begun(watching.recorder)
    with written(leg.file):
        pass

    watching.round()

    assert watching.status(leg) == "completed"


def test_a_leg_that_has_ended_when_its_start_is_stored_is_stored_once(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_side_cars = []

    def write(leg: dict[str, object]) -> bool:
        written_side_cars.append(leg["id"])
        return write_side_car(leg)

    write_side_car = sidecar.write
    monkeypatch.setattr(sidecar, "write", write)
    first, second = begun(watching.recorder), begun(watching.recorder)
    with written(first.file):
        watching.round()
        with written(second.file):
            pass
        third = begun(watching.recorder)
        with written(third.file):
            pass
    watching.round()

    assert [watching.status(leg) for leg in (first, second, third)] == ["completed"] * 3
    assert written_side_cars.count(third.id) == 1
    assert watching.recorder.waiting() == []
    watching.recorder.assert_side_cars_tell_the_same()


def test_a_kill_between_a_whole_leg_and_its_side_car_is_made_good(watching: Watching) -> None:
    def die(leg: dict[str, object]) -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return False

    def round_and_die() -> None:
        sidecar.write = die  # in a process that ends with this
        watching.round()

    first = begun(watching.recorder)
    with written(first.file):
        watching.round()
        leg = begun(watching.recorder)
        with written(leg.file):
            pass
        os.waitpid(forked(round_and_die), 0)
    assert (watching.status(leg), os.path.exists(sidecar.path_for(leg.file))) == ("completed", False)
    watching.begin()

    watching.round()

    watching.recorder.assert_side_cars_tell_the_same()


def test_a_file_that_is_closed_while_nobody_watches_is_completed_by_the_next_process(
    watching: Watching,
) -> None:
    leg = begun(watching.recorder)
    with written(leg.file):
        watching.round()
    watching.begin()

    watching.round()

    assert watching.status(leg) == "completed"


def test_a_file_that_asterisk_left_behind_is_interrupted_and_mended(watching: Watching) -> None:
    leg = begun(watching.recorder)
    with open(leg.file, "wb") as audio:
        watching.round()
        write_audio(f"{leg.file}.other", is_closed=False)
        audio.write(Path(f"{leg.file}.other").read_bytes())

    watching.round()

    assert watching.status(leg) == "interrupted"
    with wave.open(leg.file) as mended:
        assert mended.getnframes() == 8000


def test_another_folder_in_the_place_of_the_watched_one_is_watched_anew(watching: Watching) -> None:
    """As a disk that is mounted there: its file was closed on it."""
    leg = begun(watching.recorder)
    folder = os.path.dirname(leg.file)
    Path(leg.file).touch()
    with open(leg.file, "r+b"):
        watching.round()
        shutil.move(folder, f"{folder}-away")
        os.mkdir(folder)
        with written(leg.file):
            pass
    watching.round()

    assert watching.status(leg) == "completed"


def test_what_another_drain_has_brought_in_ends_too(watching: Watching) -> None:
    first = begun(watching.recorder)
    with written(first.file):
        watching.round()
        other = begun(watching.recorder)
        watching.recorder.drain()
        with written(other.file):
            pass
        watching.round()

    assert (watching.status(first), watching.status(other)) == ("recording", "completed")


def test_what_another_drain_has_brought_in_ends_though_nothing_else_is_open(watching: Watching) -> None:
    """No folder was watched then."""
    watching.round()
    other = begun(watching.recorder)
    watching.recorder.drain()
    with written(other.file):
        watching.round()
        assert watching.status(other) == "recording"
    watching.round()

    assert watching.status(other) == "completed"


def test_a_leg_that_another_drain_is_about_to_bring_in_ends_after_that(watching: Watching) -> None:
    first = begun(watching.recorder)
    with written(first.file):
        watching.round()
        other = begun(watching.recorder)
        with spool.lock(watching.recorder.spool), written(other.file):
            pass
        with spool.lock(watching.recorder.spool):
            watching.round()
        assert other.id not in [row["id"] for row in watching.recorder.legs()]
        watching.recorder.drain()

        watching.round()

    assert watching.status(other) == "completed"


def test_a_leg_whose_end_somebody_else_tells_is_closed_once(watching: Watching) -> None:
    """MixMonitor's end command, of a start that went the plain way."""
    leg = begun(watching.recorder)
    with written(leg.file):
        watching.round()
    watching.recorder.put(recording.ending(leg.id, leg.file, recording.now()))
    watching.round()
    row = watching.recorder.the_leg(leg)
    side_car = Path(leg.file).with_suffix(".json").stat()

    watching.recorder.put(recording.ending(leg.id, leg.file, recording.now()))
    watching.round()

    assert watching.recorder.the_leg(leg) == row
    assert row["status"] == "completed"
    assert side_car.st_size == Path(leg.file).with_suffix(".json").stat().st_size


def test_a_file_that_is_closed_while_the_database_is_away_ends_its_leg_afterwards(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = begun(watching.recorder)
    with written(leg.file):
        watching.round()
    with monkeypatch.context() as away:
        away.setattr(drain, "run_own", _unavailable)
        watching.round()
    assert watching.counters.report()["trouble_since"]

    watching.round()

    assert watching.status(leg) == "completed"


def _unavailable(*_: object) -> None:
    raise OSError("away")


def test_when_not_all_was_told_every_open_leg_is_looked_at(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """inotify's queue was full."""
    leg = begun(watching.recorder)
    with written(leg.file):
        watching.round()
    recordings = watching.process._recordings
    assert recordings
    recordings._watch.read()
    monkeypatch.setattr(recordings._watch, "read", lambda: Closed(frozenset(), False))

    watching.round()

    assert watching.status(leg) == "completed"


@pytest.mark.parametrize("what", ["FileWatch", "add", "lease"])
def test_where_files_cannot_be_watched_mixmonitor_keeps_its_end_command(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if what == "FileWatch":
        monkeypatch.setattr(open_recordings, "FileWatch", fail)
    elif what == "add":
        monkeypatch.setattr(FileWatch, "add", fail)
    else:
        monkeypatch.setattr(closing, "has_writer", lambda file: None)
    leg = begun(watching.recorder)
    with written(leg.file):
        watching.round()
        watching.round()

    assert not watching.counters.sees_ends()
    assert watching.status(leg) == "recording"
    lines = [record.message for record in caplog.records if "cannot be watched" in record.message]
    assert len(lines) == (what != "lease")


def test_a_stranger_s_leg_is_left_alone(watching: Watching) -> None:
    """Of another server's: its file lies elsewhere, whatever lies here under that name."""
    leg = watching.recorder.leg(started_at=recording.now(), server="pbx2")
    watching.recorder.put(leg)
    with written(leg.file):
        watching.round()
    watching.round()

    assert watching.status(leg) == "recording"


def test_ended_legs_are_not_kept_in_mind(watching: Watching) -> None:
    for _ in range(3):
        leg = begun(watching.recorder)
        with written(leg.file):
            watching.round()
        watching.round()
    recordings = watching.process._recordings
    assert recordings

    assert (recordings._legs, recordings._leg_of, recordings._closed) == ({}, {}, set())


# --- a whole server ---


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(Site(tmp_path / "site")) as running:
        wait_until(lambda: running.status()["sees_ends"], 20, "the server to see the ends")
        yield running


@contextlib.contextmanager
def recording_call(served: Served) -> Iterator[None]:
    """A call that is being recorded as long as the block runs."""
    with network_call.NetworkCall(served.port, served.site.key) as call:
        call.begin()
        call.show_key()
        command = call.next_command()
        found = re.fullmatch(rb'EXEC "MixMonitor" "([^",]+),i\(\w+\)"', command)
        assert found, command
        with written(found[1].decode()):
            call.answer(command)
            assert call.finish() == "200"
            served.site.wait_for_legs(status="recording")
            yield


def wait_until_completed(served: Served) -> None:
    """The one leg."""
    (leg,) = served.site.wait_for_legs(status="completed")
    assert leg["duration_seconds"] == SECONDS


def test_a_leg_of_a_server_s_ends_and_no_process_is_started(served: Served) -> None:
    with recording_call(served):
        pass

    wait_until_completed(served)

    assert served.site.processes() == []


def test_what_ends_while_the_drain_process_is_dead_is_completed_by_the_next(served: Served) -> None:
    killed = served.drain_process
    with recording_call(served):
        os.kill(killed, signal.SIGSTOP)
    os.kill(killed, signal.SIGKILL)

    wait_until_completed(served)


def test_what_ends_while_no_server_runs_is_completed_by_the_next(served: Served) -> None:
    with recording_call(served):
        assert served.stop() == 0

    with Served(served.site):
        wait_until_completed(served)


def test_a_former_look_is_no_reason_to_end_what_somebody_writes(recorder: Recorder) -> None:
    recordings = OpenRecordings("pbx1")
    leg = recorder.leg()
    with contextlib.closing(recordings), written(leg.file):
        recordings.begin([OpenLeg(leg.id, leg.file, leg.started_at)])
        assert recordings.endings(recorder.store) == []


def test_a_file_that_was_closed_before_its_folder_was_watched_ends_a_leg_that_is_stored_later(
    recorder: Recorder,
) -> None:
    """By the second drain of a round, say."""
    recordings = OpenRecordings("pbx1")
    first, second = (recorder.leg(started_at=recording.now()) for _ in range(2))
    with contextlib.closing(recordings), written(first.file):
        with written(second.file):
            pass
        recordings.stored([first])
        assert recordings.endings(recorder.store) == []
        recordings.read()

        recordings.stored([second])

        assert [ending.leg_id for ending in recordings.endings(recorder.store)] == [second.id]
