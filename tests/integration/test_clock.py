"""A clock that is set back in the middle of a call, and the two nights on which it is changed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lab.site import PROGRAMS, Site

from integration.recorder import Recorder, after, ended
from integration.silent_legs import write_audio
from noojee_agi import cli
from noojee_agi.database.store import Store
from noojee_agi.recordings import recording
from noojee_agi.recordings.recording import Leg, OpenLeg
from noojee_agi.sync import closing

HOUR = 3600.0
# Europe/Berlin, by its rule: also where no zoneinfo is installed.
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"


class Clock:
    """Says what the machine's clock says in the middle of a call."""

    def __init__(self) -> None:
        self.moment = after(0)

    def set(self, seconds: float) -> datetime:
        """So long after the call's start, be it forwards or backwards."""
        self.moment = after(seconds)
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- set back ---


@pytest.mark.parametrize("is_drained_in_between", [False, True])
def test_an_ending_before_its_start_keeps_the_order_and_the_files_duration(
    recorder: Recorder, clock: Clock, is_drained_in_between: bool
) -> None:
    """An hour back in mid-call: the ending's time lies before the start's."""
    leg = recorder.leg(started_at=clock.set(0))
    write_audio(leg.file)
    recorder.put(leg)
    if is_drained_in_between:
        recorder.drain()

    closed_at = clock.set(60 - HOUR)
    os.utime(leg.file, (closed_at.timestamp(), closed_at.timestamp()))
    recorder.put(recording.ending(leg.id, leg.file, closed_at))
    recorder.drain()

    row = recorder.the_leg(leg)
    assert (row["status"], row["duration_seconds"]) == ("completed", 1.0)
    assert (row["started_at"], row["ended_at"]) == (after(0), after(60 - HOUR))
    assert (recorder.waiting(), recorder.reasons()) == ([], [])
    recorder.assert_side_cars_tell_the_same()


@pytest.mark.parametrize("status", ["completed", "empty", "failed", "interrupted"])
@pytest.mark.parametrize("back", [0.001, HOUR, 40 * 365 * 24 * HOUR])
def test_no_duration_is_negative(recorder: Recorder, clock: Clock, back: float, status: str) -> None:
    """Also of a file that is no WAV, whose duration is what the clock says."""
    leg = recorder.leg(started_at=clock.set(0))
    recorder.put(leg, ended(leg, status=status, ended_at=clock.set(-back), duration_seconds=None))

    recorder.drain()

    assert recorder.the_leg(leg)["duration_seconds"] in (None, 0.0)
    assert (recorder.waiting(), recorder.reasons()) == ([], [])


@pytest.mark.parametrize("in_one_drain", [False, True])
def test_the_legs_of_a_call_that_goes_on_before_it_began_are_numbered_once(
    recorder: Recorder, clock: Clock, in_one_drain: bool
) -> None:
    legs = []
    for number in range(6):
        legs.append(recorder.leg(started_at=clock.set(-number * HOUR), tag=f"INV-{number}"))
        recorder.put(legs[-1])
        if not in_one_drain:
            recorder.drain()
    for number, leg in enumerate(legs):
        recorder.put(ended(leg, ended_at=clock.set(-7 * HOUR - number)))
    recorder.drain()

    rows = {row["id"]: row for row in recorder.legs()}
    numbers = [rows[leg.id]["leg"] for leg in legs]
    # Legs can only be told apart by the clock, whether they have waited together or not.
    assert numbers == [6, 5, 4, 3, 2, 1]
    assert {row["status"] for row in rows.values()} == {"completed"}
    assert recorder.waiting() == []


def test_events_of_before_and_after_the_step_wait_in_one_spool(recorder: Recorder, clock: Clock) -> None:
    """More than a batch of each, drained in one go: no event is passed over for ever."""
    before = [recorder.leg(call_uniqueid=f"17.{number}") for number in range(250)]
    clock.set(HOUR)
    recorder.put(*before)
    clock.set(0)
    later = [recorder.leg(call_uniqueid=f"18.{number}") for number in range(250)]
    recorder.put(*later, *map(ended, before), *map(ended, later))

    result = recorder.drain()

    assert (result.stored, result.rejected, result.left) == (1000, 0, 0)
    assert {row["status"] for row in recorder.legs()} == {"completed"}


def test_an_ending_from_the_future_waits_for_its_start(recorder: Recorder) -> None:
    """It was noted before the clock was set back, so nobody can say how long ago that is."""
    leg = recorder.leg()
    recorder.put(ended(leg, ended_at=recording.now() + timedelta(hours=1)))
    assert recorder.drain().left == 1

    recorder.put(leg)
    recorder.drain()

    assert recorder.the_leg(leg)["status"] == "completed"


def test_a_silent_leg_is_closed_once_the_clock_has_passed_its_start_again(recorder: Recorder) -> None:
    """Set back by an hour: closed an hour later, with the duration of the file."""
    leg = recorder.leg()
    write_audio(leg.file, is_closed=False)
    open_leg = OpenLeg(leg.id, leg.file, leg.started_at)
    os.utime(leg.file, (after(60).timestamp() - HOUR,) * 2)

    assert list(closing.endings([open_leg], after(60 - HOUR))) == []
    [ending] = closing.endings([open_leg], after(60))

    assert (ending.status, ending.duration_seconds) == ("interrupted", 1.0)
    recorder.store_all(leg, ending)
    assert recorder.the_leg(leg)["duration_seconds"] == 1.0


def test_a_silent_leg_of_no_wav_file_has_no_negative_duration(recorder: Recorder) -> None:
    leg = recorder.leg()
    Path(leg.file).write_bytes(b"gsm" * 1000)
    os.utime(leg.file, (after(0).timestamp() - HOUR,) * 2)
    recorder.store_all(leg)

    assert recorder.close_silent_legs() == 1

    row = recorder.the_leg(leg)
    assert (row["status"], row["duration_seconds"]) == ("interrupted", 0.0)


# --- summer time ---


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process lives there."""
    monkeypatch.setenv("TZ", BERLIN)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc(*words: int) -> datetime:
    return datetime(*words, tzinfo=timezone.utc)  # type: ignore[arg-type, misc]


# Twice 02:30 in Berlin, and what is around it: UTC -> local.
AUTUMN = {
    utc(2026, 10, 24, 23, 30): "2026-10-25 01:30:00",
    utc(2026, 10, 25, 0, 30): "2026-10-25 02:30:00",
    utc(2026, 10, 25, 1, 15): "2026-10-25 02:15:00",
    utc(2026, 10, 25, 1, 30): "2026-10-25 02:30:00",
    utc(2026, 10, 25, 2, 30): "2026-10-25 03:30:00",
}
# There is no 02:30.
SPRING = {
    utc(2026, 3, 29, 0, 30): "2026-03-29 01:30:00",
    utc(2026, 3, 29, 1, 30): "2026-03-29 03:30:00",
    utc(2026, 3, 29, 2, 30): "2026-03-29 04:30:00",
}


def legs_of_the_night(recorder: Recorder, moments: Any) -> list[Leg]:
    """A leg at each moment, in one call, as start_record notes it: drained in the end."""
    legs = [recorder.leg(started_at=moment) for moment in moments]
    recorder.store_all(*legs)
    return legs


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize("night", [AUTUMN, SPRING], ids=["autumn", "spring"])
def test_the_legs_of_the_night_keep_their_utc_times_and_their_order(
    recorder: Recorder, night: dict[datetime, str]
) -> None:
    legs = legs_of_the_night(recorder, night)

    rows = recorder.legs()

    assert [row["id"] for row in rows] == [leg.id for leg in legs]
    assert [row["started_at"] for row in rows] == list(night)
    assert [row["leg"] for row in rows] == list(range(1, len(night) + 1))
    assert [str(row["started_at"].astimezone())[:19] for row in rows] == list(night.values())


@pytest.mark.usefixtures("berlin")
def test_a_leg_is_never_made_with_a_local_time(recorder: Recorder) -> None:
    """Start, spool and end of a leg in the double hour; and its folder is that of the day in UTC."""
    assert recording.now().utcoffset() == timedelta(0)
    leg = recorder.leg(started_at=utc(2026, 10, 25, 1, 15))
    recorder.put(leg)
    [line] = recorder.waiting()
    assert json.loads(line)["started_at"] == "2026-10-25T01:15:00.000000+00:00"
    assert recording.from_json(line.decode()) == leg


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("moment", "folder"),
    [
        (utc(2026, 10, 25, 22, 59), "2026/10/25"),  # 23:59 there, the same day
        (utc(2026, 10, 25, 23, 1), "2026/10/25"),  # 00:01 there, the next day
        (utc(2026, 3, 29, 21, 59), "2026/03/29"),  # 23:59 there, the same day
        (utc(2026, 3, 29, 22, 1), "2026/03/29"),  # 00:01 there, the next day
    ],
)
def test_the_folder_is_that_of_the_day_in_utc(moment: datetime, folder: str) -> None:
    file = recording.file_path("/recordings", "17.1", recording.new_id(), "wav", moment)

    assert os.path.dirname(file) == f"/recordings/{folder}"


# --- the command line, for people in Berlin ---


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """With a leg at each moment of both nights."""
    folder = tmp_path_factory.mktemp("clock")
    site = Site(folder / "site")
    recorder = Recorder(Store(site.database_url), folder / "recordings")
    legs_of_the_night(recorder, [*SPRING, *AUTUMN])
    return site


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        # The double hour, whole: both of its passes.
        ("2026-10-25 02:00:00", "2026-10-25 03:00:00", list(AUTUMN)[1:4]),
        # A time that comes twice is the first of the two,
        ("2026-10-25 02:30:00", "2026-10-25 03:00:00", list(AUTUMN)[1:4]),
        # so the second pass is not to be had by itself, and nothing is found twice.
        ("2026-10-25 02:00:00", "2026-10-25 02:45:00", list(AUTUMN)[1:2]),
        ("2026-10-25 02:45:00", "2026-10-25 03:00:00", list(AUTUMN)[2:4]),
        ("2026-10-25", "2026-10-26", list(AUTUMN)),
        # A time that there is not is as much later as the clock was put forward.
        ("2026-03-29 02:30:00", "2026-03-29 03:45:00", list(SPRING)[1:2]),
        ("2026-03-29 02:00:00", "2026-03-29 03:00:00", []),
        ("2026-03-29 01:00:00", "2026-03-29 02:30:00", list(SPRING)[:1]),
        ("2026-03-29", "2026-03-30", list(SPRING)),
    ],
)
def test_local_times_of_the_night_find_what_a_person_means(
    site: Site, start: str, end: str, found: list[datetime]
) -> None:
    words = ["recordings", "--json", "--from", start, "--to", end]
    done = CliRunner(env=site.environment).invoke(cli.cli, words)

    rows = json.loads(done.stdout)

    assert [datetime.fromisoformat(row["started_at"]) for row in rows] == found


def test_the_table_shows_local_times_in_the_order_of_time(site: Site) -> None:
    """In a process that finds the time zone in its environment."""
    command = [str(PROGRAMS / "noojee-agi"), "recordings", "--from", "2026-10-24"]
    environment = {**site.environment, "TZ": BERLIN}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)

    lines = done.stdout.splitlines()[1:]
    assert [line[:19] for line in lines] == list(AUTUMN.values())
