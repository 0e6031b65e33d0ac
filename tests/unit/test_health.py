"""/health: how long who asks waits, how often a check runs, and that none outlives the server."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from lab.waiting import wait_until

from noojee_agi.web import health
from noojee_agi.web.health import Health

SECRET = "hunter2"
STAGES = (
    '[{"name": "apiKey", "state": "%s", "text": "Fred and hunter2", "cure": "rm hunter2"},'
    ' {"name": "asterisk", "state": "not seen", "text": "hunter2", "cure": ""}]'
)
SAYS_OK = f"echo '{STAGES % 'ok'}'"
SAYS_FAILED = f"echo '{STAGES % 'failed'}'; exit 1"


class Fake:
    """A noojee-agi that does what a test says; it notes each time that it runs, and its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.runs.touch()

    def does(self, script: str) -> Fake:
        program = self.folder / "noojee-agi"
        new = self.folder / "new"
        new.write_text(f'#!/bin/bash\necho "$$ $NOOJEE_AGI_CONF $*" >> {self.runs}\n{script}\n')
        new.chmod(0o755)
        new.replace(program)
        return self

    @property
    def health(self) -> Health:
        return Health(str(self.folder), "/etc/other.conf")

    def lines(self) -> list[str]:
        return self.runs.read_text().splitlines()


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def asked(asking: Health, times: int = 1) -> list[tuple[int, dict[str, object]]]:
    """Nothing that was begun for it goes on afterwards."""

    async def ask() -> list[tuple[int, dict[str, object]]]:
        return [await asking.answer() for _ in range(times)]

    try:
        return asyncio.run(ask())
    finally:
        asking.close()


def test_who_asks_first_waits_for_the_check_and_the_others_get_the_same(fake: Fake) -> None:
    (first, *others) = asked(fake.does(f"sleep 0.2; {SAYS_OK}").health, 3)

    status, body = first
    assert (status, body["ok"], body["message"]) == (200, True, "OK")
    assert str(body["checked_at"]).startswith("2")
    assert body["stages"] == [
        {"name": "apiKey", "state": "ok"},
        {"name": "asterisk", "state": "not seen"},
    ]
    assert others == [first, first]
    assert [line.split(" ", 1)[1] for line in fake.lines()] == ["/etc/other.conf check --json --passive"]


def test_a_stage_that_fails_makes_it_ill_and_nothing_that_it_says_gets_out(fake: Fake) -> None:
    ((status, body),) = asked(fake.does(SAYS_FAILED).health)

    assert (status, body["ok"]) == (503, False)
    assert body["message"] == "noojee-agi check says what to do"
    assert body["stages"] == [
        {"name": "apiKey", "state": "failed"},
        {"name": "asterisk", "state": "not seen"},
    ]
    assert SECRET not in str(body)
    assert "Fred" not in str(body)


def test_those_who_ask_together_wait_for_one_check(fake: Fake) -> None:
    asking = fake.does(f"sleep 0.2; {SAYS_OK}").health

    async def ask() -> set[int]:
        return {status for status, _ in await asyncio.gather(*(asking.answer() for _ in range(20)))}

    assert asyncio.run(ask()) == {200}
    assert len(fake.lines()) == 1


def test_an_old_answer_is_given_at_once_and_the_next_is_another(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_KEPT_SECONDS", 0.0)
    asking = fake.does(SAYS_OK).health
    gate = fake.folder / "gate"
    os.mkfifo(gate)

    async def ask() -> list[int]:
        statuses = [(await asking.answer())[0]]
        fake.does(f"cat {gate}; {SAYS_FAILED}")
        begun = time.monotonic()
        statuses += [(await asking.answer())[0] for _ in range(2)]
        assert time.monotonic() - begun < health._PATIENCE_SECONDS / 2
        gate.write_text("")  # waits for the check to have begun, and lets it go on
        assert asking._work
        await asking._work
        return [*statuses, (await asking.answer())[0]]

    try:
        assert asyncio.run(ask()) == [200, 200, 200, 503]
    finally:
        asking.close()
    assert len(fake.lines()) in (2, 3)


def test_an_answer_of_an_hour_ago_is_none(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_KEPT_SECONDS", 0.0)
    monkeypatch.setattr(health, "_TOO_OLD_SECONDS", 0.0)
    asking = fake.does(SAYS_OK).health

    async def ask() -> list[int]:
        before = (await asking.answer())[0]
        fake.does(SAYS_FAILED)
        return [before, (await asking.answer())[0]]

    assert asyncio.run(ask()) == [200, 503]


def test_who_asks_first_does_not_wait_for_ever(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PATIENCE_SECONDS", 0.2)

    ((status, body),) = asked(fake.does("sleep 60").health)

    assert (status, body["message"]) == (503, "noojee-agi check is at work: ask again")
    assert body["checked_at"] is None


def is_gone(asking: Health) -> bool:
    """Its check, with all that it has started: they are one group."""
    assert asking._process
    try:
        os.killpg(asking._process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_check_that_takes_too_long_is_killed(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_LIMIT_SECONDS", 0.3)
    asking = fake.does("trap '' TERM; sleep 60 & wait; sleep 60").health

    async def ask() -> tuple[int, dict[str, object]]:
        return await asking.answer()

    status, body = asyncio.run(ask())

    assert (status, body["message"]) == (503, "noojee-agi check has not come to its end within 60 s")
    wait_until(lambda: is_gone(asking), 20, "its end")


def test_it_ends_with_the_server(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PATIENCE_SECONDS", 0.0)
    asking = fake.does("sleep 60 & wait").health

    async def serve() -> None:
        await asking.answer()
        while not fake.lines():
            await asyncio.sleep(0.01)
        asking.close()

    # As the server's processes have it: what they start hears of no signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    try:
        asyncio.run(serve())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})

    wait_until(lambda: is_gone(asking), 20, "its end")


def test_none_begins_when_the_server_ends(fake: Fake) -> None:
    asking = fake.does(SAYS_OK).health
    asking.close()

    assert asked(asking)[0][0] == 503
    assert fake.lines() == []


@pytest.mark.parametrize(
    "script", ["echo no JSON", "echo '[1]'", "echo '[{}]'", "echo '{}'; exit 3", "kill -KILL $$"]
)
def test_a_check_that_breaks_is_no_health(fake: Fake, script: str) -> None:
    ((status, body),) = asked(fake.does(script).health)

    assert (status, body["ok"]) == (503, False)


def test_a_check_that_is_not_there_is_no_health(tmp_path: Path) -> None:
    ((status, body),) = asked(Health(str(tmp_path), ""))

    assert (status, body["message"]) == (503, "noojee-agi check cannot be run: run it by hand")
