"""`noojee-agi sync --audit`: what the database says beside what lies in the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.losable import LosableSite, set_age
from integration.recorder import after
from noojee_agi.recordings.recording import Leg

HOUR = 3600


@pytest.fixture
def site(tmp_path: Path) -> LosableSite:
    def remove() -> None:
        for path in tmp_path.glob("noojee.db*"):
            path.unlink()

    return LosableSite(tmp_path, f"sqlite:///{tmp_path}/noojee.db", remove)


def audit(site: LosableSite, exit_code: int) -> list[str]:
    """What it says, without what a plain sync says before."""
    done = site.run("sync", "--audit")
    assert (done.returncode, done.stderr) == (exit_code, "")
    kinds = ("gone", "changed", "open", "converted", "unknown", "audit")
    return [line for line in done.stdout.splitlines() if line.startswith(kinds)]


def convert(leg: Leg, suffix: str, is_removed: bool) -> Path:
    file = Path(leg.file)
    converted = file.with_suffix(suffix)
    converted.write_bytes(b"compressed")
    set_age(converted, HOUR)
    if is_removed:
        file.unlink()
    return converted


def test_files_and_rows_that_agree(site: LosableSite) -> None:
    site.set_up()
    site.completed()
    site.completed(started_at=after(3 * 24 * HOUR))
    files = site.files()

    assert audit(site, 0) == ["audit: files and rows agree"]
    assert site.files() == files


def test_each_difference_is_told_and_nothing_is_deleted(site: LosableSite) -> None:
    gone, changed = site.completed(), site.completed(started_at=after(70))
    Path(gone.file).unlink()
    with Path(changed.file).open("ab") as file:
        file.write(b"more")
    size = Path(changed.file).stat().st_size
    strangers = [Path(gone.file).with_name("stranger.wav"), site.recordings / "2001/01/01/older.wav"]
    for stranger in strangers:
        stranger.parent.mkdir(parents=True, exist_ok=True)
        stranger.write_bytes(b"audio")
        set_age(stranger, HOUR)
    site.sync()
    files = site.files()

    assert audit(site, 1) == [
        f"gone: {gone.file}: the file of a leg that is completed",
        f"changed: {changed.file}: it had {size - 4} bytes, and has {size}",
        *(f"unknown: {stranger}: no row knows this file" for stranger in strangers),
        "audit: 1 gone, 1 changed, 2 unknown",
    ]
    assert site.files() == files


@pytest.mark.parametrize("suffix", [".mp3", ".ogg"])
def test_the_row_follows_a_converted_file(site: LosableSite, suffix: str) -> None:
    leg = site.completed()
    converted = convert(leg, suffix, is_removed=True)

    said = audit(site, 0)

    assert said == [
        f"converted: {converted}: it was {leg.file}; the row follows it",
        "audit: 1 converted",
    ]
    (row,) = site.recorder.legs()
    assert (row["file"], row["bytes"]) == (str(converted), len(b"compressed"))
    known = json.loads(site.side_car(leg).read_text())
    assert (known["file"], [event["what"] for event in known["events"]]) == (
        str(converted),
        ["started", "converted"],
    )
    assert audit(site, 0) == ["audit: files and rows agree"]
    before = site.dump()
    site.lose()
    site.rebuild()
    assert site.dump() == before


def test_a_converted_file_beside_the_recording_is_not_unknown_and_the_row_stays(site: LosableSite) -> None:
    """It follows when the recording has gone."""
    leg = site.completed()
    convert(leg, ".mp3", is_removed=False)

    assert audit(site, 0) == ["audit: files and rows agree"]
    (row,) = site.recorder.legs()
    assert row["file"] == leg.file


def test_two_files_that_could_be_it_are_told(site: LosableSite) -> None:
    leg = site.completed()
    both = [convert(leg, suffix, is_removed=False) for suffix in (".mp3", ".ogg")]
    Path(leg.file).unlink()

    assert audit(site, 1) == [
        f"gone: {leg.file}: the file of a leg that is completed: {both[0]}, {both[1]} could be it",
        "audit: 1 gone",
    ]
