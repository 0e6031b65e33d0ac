"""noojee-agi record: the apiKey is taken out of the environment, which a drain would inherit."""

from __future__ import annotations

import os

import pytest

from noojee_agi.actions.result import Report, Result
from noojee_agi.cli import record
from noojee_agi.config import Config
from noojee_agi.session import plain, session
from unit.fakes import KEY


def test_the_key_is_used_and_left_in_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOOJEE_AGI_KEY", KEY)
    used: list[str] = []
    left: list[str | None] = []

    def act(call: session.Invocation, key: str, surroundings: session.Surroundings) -> Report:
        used.append(key)
        left.append(os.environ.get("NOOJEE_AGI_KEY"))
        return Report(call.program, "", Result(200), 1.0)

    monkeypatch.setattr(session, "run_from_command_line", act)
    monkeypatch.setattr(
        plain, "finish_in_background", lambda report, known: left.append(os.environ.get("NOOJEE_AGI_KEY"))
    )

    record._run(Config(), "start_record", extenOrUniqueId="410")

    assert (used, left) == ([KEY], [None, None])
