"""The end of a leg goes through the spool like its start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from noojee_agi import recording
from noojee_agi.actions.finish_record import finish_record
from unit.fakes import PROGRAMS, WAV_HEADER, FakeAsterisk, Site


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
    if audio is not None:
        file.write_bytes(WAV_HEADER + audio)
    before = recording.now()

    finish_record("leg-1", str(file))

    [ending] = site.endings()
    assert (ending.leg_id, ending.status, ending.bytes) == ("leg-1", status, size)
    assert before <= ending.ended_at <= recording.now()


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
        finish_record("leg-1", str(day_folder(site) / "x.wav"))

    assert [ending.leg_id for ending in site.endings()] == ["leg-1", "leg-1"]


def test_without_the_recordings_folder_the_end_is_an_error_and_nothing_is_made(tmp_path: Path) -> None:
    site = Site(tmp_path)
    file = day_folder(site) / "x.wav"
    shutil.rmtree(site.recordings)

    with pytest.raises(FileNotFoundError):
        finish_record("leg-1", str(file))

    assert not site.recordings.exists()
