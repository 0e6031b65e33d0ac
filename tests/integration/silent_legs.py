"""Calls with a leg of every kind: told, cut off by a crash, closed without a word, without a file."""

from __future__ import annotations

import json
import os
import wave
from pathlib import Path
from typing import Any

from integration.recorder import Recorder, after, as_json
from noojee_agi.database.queries import Filter
from noojee_agi.recordings import recording, sidecar
from noojee_agi.recordings.recording import Ending, Leg

HEADER_BYTES = 44
REJECTED_PER_CALL = 2


def write_audio(file: str, is_closed: bool = True, half_a_sample: bool = False) -> None:
    """A second of audio, as Asterisk leaves it, closed or cut off; nobody has written there for long."""
    with wave.open(file, "wb") as audio:
        audio.setparams((1, 2, 8000, 0, "NONE", ""))
        audio.writeframes(bytes(16000))
    if not is_closed:
        with open(file, "r+b") as cut:
            for place in (4, HEADER_BYTES - 4):
                cut.seek(place)
                cut.write(bytes(4))
            cut.seek(0, os.SEEK_END)
            cut.write(b"\1" * half_a_sample)
    os.utime(file, (after(60).timestamp(),) * 2)


def lengths(file: str) -> tuple[int, int, int]:
    """Of the file, by its RIFF header, and by its data header; without what each of these leaves out."""
    content = Path(file).read_bytes()
    riff, data = (int.from_bytes(content[at : at + 4], "little") for at in (4, HEADER_BYTES - 4))
    return len(content), riff + 8, data + HEADER_BYTES


def put_call(recorder: Recorder, uniqueid: str) -> dict[str, str]:
    """Put all that one call can bring; leg id -> the status that it must get.

    Two events are put that no database ever takes.
    """
    told, closed, cut, cut_in_a_sample, without_file = (
        recorder.leg(call_uniqueid=uniqueid, tag=f"INV-{leg}", started_at=after(leg)) for leg in range(5)
    )
    for leg in (told, closed):
        write_audio(leg.file)
    write_audio(cut.file, is_closed=False)
    write_audio(cut_in_a_sample.file, is_closed=False, half_a_sample=True)
    recorder.put(told, closed, cut, cut_in_a_sample, without_file)
    recorder.put(recording.ending(told.id, told.file, after(60)))
    recorder.put(Ending(recording.new_id(), "completed", after(60)))
    recorder.put_text(f'{{"event": "{uniqueid}"}}')
    return {
        told.id: "completed",
        closed.id: "completed",
        cut.id: "interrupted",
        cut_in_a_sample.id: "interrupted",
        without_file.id: "failed",
    }


def assert_made_good(recorder: Recorder, uniqueid: str, statuses: dict[str, str]) -> None:
    """Every leg of the call once, with its number, its status, a sound file and the right side-car."""
    rows = recorder.legs(Filter(uniqueid=uniqueid))
    assert recorder.waiting() == []
    assert {row["id"]: row["status"] for row in rows} == statuses
    assert sorted(row["leg"] for row in rows) == list(range(1, len(statuses) + 1))
    for row in rows:
        assert_sound(row)


def assert_sound(row: dict[str, Any]) -> None:
    if row["status"] != "failed":
        assert lengths(row["file"]) == (row["bytes"],) * 3
        assert row["duration_seconds"] == 1.0
    text = Path(sidecar.path_for(row["file"])).read_text(encoding="utf-8")
    story = {"events", "accesses"}
    content = {name: value for name, value in json.loads(text).items() if name not in story}
    assert content == as_json(row)


def put_cut_off_leg(recorder: Recorder, **changes: Any) -> Leg:
    """A leg that the database knows, and that Asterisk's death has cut off."""
    leg = recorder.leg(**changes)
    write_audio(leg.file, is_closed=False)
    recorder.store_all(leg)
    return leg
