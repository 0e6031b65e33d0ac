"""The side-car is written beside recordings of this program, and nowhere else."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from noojee_agi.recordings import sidecar

ID = "0e5f6b1c-6a57-4a6e-8f5e-0123456789ab"


def leg(file: Path) -> dict[str, Any]:
    return {"id": ID, "file": str(file)}


def test_it_lies_beside_its_recording(tmp_path: Path) -> None:
    day = tmp_path / "2026/11/27"
    day.mkdir(parents=True)

    assert sidecar.write(leg(day / f"1762420501.77-{ID[:8]}.wav"))
    assert (day / f"1762420501.77-{ID[:8]}.json").exists()


@pytest.mark.parametrize("name", ["daemon.wav", "2026/11/27/daemon.wav", f"1762420501.77-{ID[:8]}.wav"])
def test_a_file_that_a_database_names_and_that_is_none_of_ours_gets_none(tmp_path: Path, name: str) -> None:
    """Several hosts share it, and root may be who reads it."""
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)

    assert sidecar.write(leg(file))  # nothing to be tried again
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_person_can_read_it_a_line_for_each_name() -> None:
    moment = datetime(2026, 3, 1, 9, 30, 15, 123456, tzinfo=timezone.utc)
    named = {"id": ID, "source": 'O"Neil, "Jürgen",\n "x": 1', "leg": 1, "owner": None, "started_at": moment}

    written = sidecar.to_json(named)

    assert written == json.dumps(named, indent=1, ensure_ascii=False, default=datetime.isoformat) + "\n"
    assert len(written.splitlines()) == 2 + len(named)
