"""The end of a leg goes through the spool like its start."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timezone
from pathlib import Path

import pytest

from noojee_agi.actions.finish_record import finish_record
from noojee_agi.errors import BadArgument
from noojee_agi.recordings import recording
from unit.fakes import PROGRAMS, WAV_HEADER, FakeAsterisk, Site

LEG_ID = "0e5f6b1c-6a57-4a6e-8f5e-0123456789ab"
CLOSED_AT = datetime(2026, 11, 23, 9, 30, 15, 123456, tzinfo=timezone.utc)


def day_folder(site: Site) -> Path:
    folder = site.recordings / "2026/11/23"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("audio", "status", "size"),
    [(None, "failed", None), (b"", "empty", 44), (b"\x01" * 32000, "completed", 32044)],
)
def test_the_end_of_a_leg_is_spooled_with_what_the_file_says(
    tmp_path: Path, audio: bytes | None, status: str, size: int | None
) -> None:
    site = Site(tmp_path)
    file = day_folder(site) / "x.wav"
    before = recording.now()
    if audio is not None:
        file.write_bytes(WAV_HEADER + audio)
        os.utime(file, (CLOSED_AT.timestamp(), CLOSED_AT.timestamp()))

    finish_record(LEG_ID, str(file))

    [ending] = site.endings()
    assert (ending.leg_id, ending.status, ending.bytes) == (LEG_ID, status, size)
    if audio is None:
        assert before <= ending.ended_at <= recording.now()
    else:
        assert ending.ended_at == CLOSED_AT


def test_the_end_command_that_asterisk_was_given_closes_its_leg(tmp_path: Path) -> None:
    site, asterisk = Site(tmp_path), FakeAsterisk()
    site.run(asterisk)
    [mixmonitor] = asterisk.mixmonitors

    program, path, leg_id, file = mixmonitor.command.split(" ")
    finish_record(leg_id, file)

    assert (program, path) == (f"{PROGRAMS}/finish_record.py", "-")
    [leg], [ending] = site.legs(), site.endings()
    assert (ending.leg_id, ending.status) == (leg.id, "empty")


def test_an_end_that_comes_twice_is_spooled_twice_and_harms_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)

    for _ in range(2):
        finish_record(LEG_ID, str(day_folder(site) / "x.wav"))

    assert [ending.leg_id for ending in site.endings()] == [LEG_ID, LEG_ID]


def test_without_the_recordings_folder_the_end_is_an_error_and_nothing_is_made(tmp_path: Path) -> None:
    site = Site(tmp_path)
    file = day_folder(site) / "x.wav"
    shutil.rmtree(site.recordings)

    with pytest.raises(FileNotFoundError):
        finish_record(LEG_ID, str(file))

    assert not site.recordings.exists()


@pytest.mark.parametrize("leg_id", ["", "leg-1", f"../../{LEG_ID}", f"{LEG_ID}\n", LEG_ID.upper()])
def test_what_is_no_id_of_ours_never_becomes_the_name_of_a_file(tmp_path: Path, leg_id: str) -> None:
    site = Site(tmp_path)
    file = day_folder(site) / "x.wav"
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(BadArgument, match="no leg's id"):
        finish_record(leg_id, str(file))

    assert sorted(tmp_path.rglob("*")) == before
