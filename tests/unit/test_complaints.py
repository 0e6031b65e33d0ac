"""Complaints: one line at once, the others counted and never lost."""

from __future__ import annotations

import logging

import pytest

from noojee_agi.server import complaints
from noojee_agi.server.complaints import Complaints

TEXT = "%s waited for %g s"


def test_the_first_is_told_at_once_and_the_others_with_their_number(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Complaints(logging.getLogger("test"))
    for number in range(32):
        told.add(TEXT, f"192.0.2.{number}", 10.0)
    told.tell()
    assert caplog.messages == ["192.0.2.0 waited for 10 s"]

    monkeypatch.setattr(complaints, "_EVERY_SECONDS", 0.0)
    told.tell(is_last=True)
    assert caplog.messages[1:] == ["192.0.2.31 waited for 10 s (31 connections since the last such line)"]
    told.add(TEXT, "192.0.2.99", 10.0)
    assert caplog.messages[2:] == ["192.0.2.99 waited for 10 s"]
