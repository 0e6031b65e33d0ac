"""Which legs ended without a word: not those that begin, grow, are written to, or have changed just now."""

from __future__ import annotations

import os
import struct
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from noojee_agi.recordings import recording
from noojee_agi.recordings.recording import Ending, OpenLeg
from noojee_agi.sync import closing

NOW = datetime(2025, 3, 9, 12, tzinfo=timezone.utc)
SETTLED = closing.SETTLED_AFTER
LONG_AGO = NOW - timedelta(hours=2)
A_SECOND = 8000 * 2


def wav(audio_bytes: int, told: int) -> bytes:
    """A WAV file of 8 kHz, 16 bits, whose header tells of so many bytes."""
    chunk = struct.pack("<HHIIHH", 1, 1, 8000, A_SECOND, 2, 16)
    riff = told and told + 36
    head = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<I", len(chunk)) + chunk
    return head + b"data" + struct.pack("<I", told) + bytes(audio_bytes)


def leg(tmp_path: Path, content: bytes | None, age: timedelta, started_at: datetime = LONG_AGO) -> OpenLeg:
    """A leg whose file changed so long ago; None: it has no file."""
    file = tmp_path / "a.wav"
    if content is not None:
        file.write_bytes(content)
        changed_at = (NOW - age).timestamp()
        os.utime(file, (changed_at, changed_at))
    return OpenLeg("id", str(file), started_at)


def statuses(*legs: OpenLeg) -> list[str]:
    return [ending.status for ending in closing.endings(legs, NOW)]


MOMENT = timedelta(seconds=1)
WHOLE, LEFT_OPEN = wav(A_SECOND, A_SECOND), wav(A_SECOND, 0)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (WHOLE, "completed"),
        (LEFT_OPEN, "interrupted"),
        (b"x" * 100, "interrupted"),
        (wav(0, 0), "interrupted"),
    ],
    ids=["closed", "left open", "no WAV", "no audio"],
)
def test_a_file_that_has_changed_just_now_is_not_closed_yet(
    tmp_path: Path, content: bytes, status: str
) -> None:
    assert statuses(leg(tmp_path, content, SETTLED - MOMENT)) == []
    assert statuses(leg(tmp_path, content, SETTLED)) == [status]


def test_a_leg_that_has_begun_just_now_is_not_missed(tmp_path: Path) -> None:
    begun_at = NOW - SETTLED

    assert statuses(leg(tmp_path, None, SETTLED, begun_at + MOMENT)) == []
    assert statuses(leg(tmp_path, None, SETTLED, begun_at)) == ["failed"]


def test_a_file_that_is_open_for_writing_goes_on(tmp_path: Path) -> None:
    open_leg = leg(tmp_path, LEFT_OPEN, timedelta(hours=2))

    with open(open_leg.file, "ab"):
        assert statuses(open_leg) == []
    assert statuses(open_leg) == ["interrupted"]


def test_a_file_that_somebody_reads_is_closed(tmp_path: Path) -> None:
    open_leg = leg(tmp_path, WHOLE, timedelta(hours=2))

    with open(open_leg.file, "rb"):
        assert statuses(open_leg) == ["completed"]


def test_one_that_cannot_be_closed_is_no_obstacle_for_the_next(tmp_path: Path) -> None:
    odd = OpenLeg("odd", str(tmp_path / ("x" * 300)), LONG_AGO)

    assert statuses(odd, leg(tmp_path, WHOLE, SETTLED)) == ["completed"]


def test_what_has_no_header_lasted_from_its_start_to_its_last_change(tmp_path: Path) -> None:
    (ending,) = closing.endings([leg(tmp_path, b"x" * 100, timedelta(hours=1))], NOW)
    (strange,) = closing.endings([leg(tmp_path, b"x" * 100, timedelta(hours=3))], NOW)

    changed_at = NOW - timedelta(hours=1)
    assert ending == Ending("id", "interrupted", changed_at, 100, 3600.0)
    assert strange.duration_seconds == 0.0


# --- whose file has just been closed ---


@pytest.mark.parametrize(
    ("content", "ending"),
    [
        (WHOLE, Ending("id", "completed", NOW, len(WHOLE), 1.0)),
        (LEFT_OPEN, Ending("id", "interrupted", NOW, len(WHOLE), 1.0)),
        (wav(A_SECOND + 1, 0), Ending("id", "interrupted", NOW, len(WHOLE), 1.0)),
    ],
    ids=["by Asterisk", "by its death", "in a sample"],
)
def test_a_file_that_has_just_been_closed_ends_its_leg_at_once(
    tmp_path: Path, content: bytes, ending: Ending
) -> None:
    assert closing.ended([leg(tmp_path, content, timedelta(0), NOW - MOMENT)]) == [ending]


def test_a_closed_file_without_audio_is_empty(tmp_path: Path) -> None:
    nothing = wav(0, 0)
    nothing = nothing[:4] + struct.pack("<I", 36) + nothing[8:]

    assert closing.ended([leg(tmp_path, nothing, timedelta(0))]) == [Ending("id", "empty", NOW, 44, 0.0)]


def test_who_finishes_the_record_says_the_same_of_the_end(tmp_path: Path) -> None:
    whole = leg(tmp_path, WHOLE, timedelta(minutes=1))

    assert closing.ended([whole]) == [recording.ending("id", whole.file, recording.now())]


@pytest.mark.parametrize("content", [None, b"x" * 100, b""], ids=["not there", "no header", "nothing"])
def test_of_what_says_too_little_no_end_is_guessed(tmp_path: Path, content: bytes | None) -> None:
    assert closing.ended([leg(tmp_path, content, timedelta(0))]) == []


def test_a_file_that_somebody_writes_to_has_not_ended_whoever_has_closed_it(tmp_path: Path) -> None:
    open_leg = leg(tmp_path, WHOLE, timedelta(0))

    with open(open_leg.file, "ab"):
        assert closing.ended([open_leg]) == []
    assert len(closing.ended([open_leg])) == 1


def test_one_that_cannot_be_read_keeps_back_none_of_the_others(tmp_path: Path) -> None:
    odd = OpenLeg("odd", str(tmp_path / ("x" * 300)), LONG_AGO)

    assert [ending.leg_id for ending in closing.ended([odd, leg(tmp_path, WHOLE, SETTLED)])] == ["id"]
