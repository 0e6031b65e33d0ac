"""agi/noojee-agi.service: systemd takes every line of it, and it leaves the server little to do harm with."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import systemd
from lab.site import PROGRAMS

UNIT = Path(__file__).parents[2] / "agi/noojee-agi.service"
MOST_EXPOSURE = 2.0


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Ours, with a program that is there."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/noojee-agi/bin", str(PROGRAMS)))
    return copy


def test_systemd_has_nothing_to_say_against_it(unit: Path) -> None:
    done = systemd.analyze("verify", "--man=no", str(unit))

    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


def test_a_word_that_systemd_does_not_know_would_be_seen(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("KillMode=", "KilMode="))

    assert "KilMode" in systemd.analyze("verify", "--man=no", str(unit)).stderr


def exposure(unit: Path, most: float) -> subprocess.CompletedProcess[str]:
    words = ("--offline=yes", f"--threshold={10 * most:.0f}", "--no-pager")
    return systemd.analyze("security", *words, str(unit))


def test_its_exposure_is_low(unit: Path, tell: Callable[[str], None]) -> None:
    done = exposure(unit, MOST_EXPOSURE)

    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert found, done.stdout + done.stderr
    tell(f"systemd-analyze security: exposure {found[1]} of 10")
    assert done.returncode == 0
    assert float(found[1]) <= MOST_EXPOSURE


def test_a_unit_without_its_hardening_would_be_seen(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("CapabilityBoundingSet=", ""))

    assert exposure(unit, MOST_EXPOSURE).returncode != 0


def test_it_is_started_again_however_often_it_dies_and_its_processes_finish_alone() -> None:
    """What tests of the server show, systemd must not take back."""
    lines = UNIT.read_text().splitlines()

    assert {"Restart=always", "StartLimitIntervalSec=0", "KillMode=process"} <= set(lines)
    assert lines.index("StartLimitIntervalSec=0") < lines.index("[Service]")
