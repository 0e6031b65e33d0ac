"""Holds the database, the recordings folder and the spool against each other when all calls are over."""

from __future__ import annotations

import functools
import json
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab import spooled
from lab.site import Site
from lab.waiting import wait_until

SYNC_SECONDS = 90.0
PAUSE_SECONDS = 1.0  # a leg that nobody closed waits for 15 (closing.SETTLED_AFTER)
WITHOUT_AUDIO_BYTES = 44


def sync_until_all_is_closed(site: Site) -> None:
    """Type `noojee-agi sync`, once a second, until no leg records and no event waits."""

    def all_is_closed() -> bool:
        site.cli("sync")
        # In this order: a drain of the server's may bring in a leg between the two looks.
        return spooled.is_empty(site.recordings_directory) and not site.legs("--status", "recording")

    wait_until(all_is_closed, SYNC_SECONDS, "all legs to be closed", pause=PAUSE_SECONDS)


def assert_nothing_is_lost_or_twice(site: Site) -> list[dict[str, Any]]:
    """Every file has its one leg, each leg tells the truth of its file, and nothing was set aside."""
    # Asterisk starts finish_record.py after it has closed the file, which a server has seen before.
    waiting = functools.partial(spooled.events, site.recordings_directory)
    wait_until(lambda: spooled.is_empty(site.recordings_directory), SYNC_SECONDS, "an empty spool", waiting)
    legs = site.legs()
    assert spooled.set_aside(site.recordings_directory) == []
    _assert_each_once(legs)
    files = [str(path) for path in site.audio_files()]
    assert sorted(leg["file"] for leg in legs if Path(leg["file"]).exists()) == sorted(files)
    for leg in legs:
        assert_tells_the_truth(leg)
    return legs


def _assert_each_once(legs: Sequence[dict[str, Any]]) -> None:
    for name in ("id", "file"):
        assert len({leg[name] for leg in legs}) == len(legs), f"the same {name} twice"
    assert len({(leg["call_record_id"], leg["leg"]) for leg in legs}) == len(legs)


def assert_tells_the_truth(leg: dict[str, Any]) -> None:
    """Status, bytes and duration against the file, and the side-car against the row."""
    file = Path(leg["file"])
    if not file.exists():
        assert (leg["status"], leg["bytes"]) == ("failed", None), leg
        return
    assert leg["bytes"] == file.stat().st_size, leg
    if leg["bytes"] <= WITHOUT_AUDIO_BYTES:
        assert leg["status"] in ("empty", "interrupted"), leg
        assert leg["duration_seconds"] == wav_seconds(file) == 0, leg
    else:
        assert leg["status"] in ("completed", "interrupted"), leg
        assert leg["duration_seconds"] == pytest.approx(wav_seconds(file), abs=0.001), leg
    side_car = json.loads(file.with_suffix(".json").read_text())
    assert {name: side_car[name] for name in leg} == leg


def wav_seconds(file: Path) -> float:
    """How long the file plays, read to its very last frame; its header's lengths must be right."""
    size = file.stat().st_size
    with file.open("rb") as raw:
        assert int.from_bytes(raw.read(8)[4:], "little") == size - 8, file
    with wave.open(str(file), "rb") as audio:
        frames = audio.getnframes()
        read = len(audio.readframes(frames + 1))
        assert read == frames * audio.getsampwidth() == size - WITHOUT_AUDIO_BYTES, file
        return frames / audio.getframerate()
