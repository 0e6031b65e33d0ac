"""What no unit test is about unless it says so: how long a call waits for Asterisk, the disk and its turn.

On a busy machine each step may take seconds, and whoever gives up goes another way than the test expects.
"""

from __future__ import annotations

import pytest

from noojee_agi.actions import channel_lock, start_record
from noojee_agi.asterisk import manager
from noojee_agi.recordings import disk

_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "PATIENCE_SECONDS", _SECONDS)
    monkeypatch.setattr(channel_lock, "WAIT_SECONDS", _SECONDS)
    monkeypatch.setattr(start_record, "FILE_SEEN_WITHIN_SECONDS", _SECONDS)
    monkeypatch.setattr(disk, "LIMIT_SECONDS", _SECONDS)
