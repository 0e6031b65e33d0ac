"""One at a time for each channel, and never a wait without end."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from noojee_agi.actions import channel_lock

UNIQUEID = "1762420501.77"


def others_turn(directory: Path, uniqueid: str) -> tuple[threading.Thread, threading.Event]:
    """Another thread that waits for its turn; the event tells that it has it."""
    has_it = threading.Event()

    def work() -> None:
        with channel_lock.of(str(directory), uniqueid, time.sleep):
            has_it.set()

    thread = threading.Thread(target=work)
    thread.start()
    return thread, has_it


def test_a_second_one_waits_until_the_first_is_done(tmp_path: Path) -> None:
    with channel_lock.of(str(tmp_path), UNIQUEID, time.sleep):
        thread, has_it = others_turn(tmp_path, UNIQUEID)
        assert not has_it.wait(0.1)
    assert has_it.wait(20)
    thread.join()


def test_another_channels_turn_is_free(tmp_path: Path) -> None:
    with channel_lock.of(str(tmp_path), UNIQUEID, time.sleep):
        thread, has_it = others_turn(tmp_path, "1762420501.78")
        assert has_it.wait(20)
        thread.join()


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_lock, "WAIT_SECONDS", 0.05)
    with channel_lock.of(str(tmp_path), UNIQUEID, time.sleep):
        thread, has_it = others_turn(tmp_path, UNIQUEID)
        assert has_it.wait(20)
        thread.join()


def test_a_failure_ends_the_turn(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), channel_lock.of(str(tmp_path), UNIQUEID, time.sleep):
        raise ZeroDivisionError
    begun = time.monotonic()
    with channel_lock.of(str(tmp_path), UNIQUEID, time.sleep):
        assert time.monotonic() - begun < channel_lock.WAIT_SECONDS


def test_without_a_state_directory_the_work_is_done_all_the_same(tmp_path: Path) -> None:
    done = []
    with channel_lock.of(str(tmp_path / "none"), UNIQUEID, time.sleep):
        done.append(True)
    assert done == [True]
