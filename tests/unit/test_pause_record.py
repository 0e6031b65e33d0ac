"""pause_record and resume_record with Asterisk's side played, and who may by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from noojee_agi.actions import start_record
from noojee_agi.recordings.recording import Note
from unit.fakes import DEAD_CHANNEL, FakeAsterisk, FakeDatabase, Site

LOGINS = ("Ann", "Fred", "Rita", "Adam", "Lena", "Lea")
SINCE = "2020-01-01T00:00:00+00:00/"
FORMERLY = f"{SINCE}2026-01-01T00:00:00+00:00"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Rita and Adam hear all; Lena leads Ann's team, Lea the one in which she was."""
    database = FakeDatabase(logins=LOGINS)
    database.hear_all = frozenset({"Rita", "Adam", "Gone"})
    database.teams = [
        {"leaders": ["Lena"], "stays": {"Ann": SINCE}},
        {"leaders": ["Lea"], "stays": {"Ann": FORMERLY}},
    ]
    return Site(tmp_path, database)


@pytest.fixture
def asterisk() -> FakeAsterisk:
    return FakeAsterisk(MEMBERINTERFACE="PJSIP/410")


def run(site: Site, asterisk: FakeAsterisk, program: str, *words: str) -> str:
    """The status."""
    site.run(asterisk, *words, program=f"{program}_record")
    return asterisk.answers()["RECORDING_STATUS"]


def notes(site: Site) -> list[tuple[str, str, str | None]]:
    """Of which leg, what, and who."""
    return [(each.leg_id, each.what, each.login) for each in site.events() if isinstance(each, Note)]


def test_a_resumed_call_has_a_next_leg_of_the_same_tag_and_owner(site: Site, asterisk: FakeAsterisk) -> None:
    assert run(site, asterisk, "start", "410", "INV-22", "Ann") == "200"
    (first,) = site.legs()

    assert run(site, asterisk, "pause") == "200"
    assert asterisk.running() == []
    assert (asterisk.answers()["RECORDING_ID"], asterisk.answers()["RECORDING_STATE"]) == (first.id, "paused")
    assert run(site, asterisk, "resume") == "200"

    _, second = site.legs()
    assert asterisk.answers()["RECORDING_STATE"] == "recording"
    assert asterisk.running() == [second.file]
    kept = ("server", "call_uniqueid", "uniqueid", "extensions", "agent_login_name", "agent_known", "tag")
    assert [getattr(second, name) for name in kept] == [getattr(first, name) for name in kept]
    assert notes(site) == [(first.id, "paused", None), (second.id, "resumed", None)]


@pytest.mark.parametrize(
    ("done", "program", "status"),
    [
        ([], "pause", "409"),
        ([], "resume", "409"),
        (["start"], "resume", "409"),
        (["start", "pause"], "pause", "409"),
        (["start", "pause", "resume"], "resume", "409"),
        (["start", "stop"], "pause", "409"),
        (["start", "pause", "stop"], "resume", "409"),
        (["start", "pause", "start"], "resume", "409"),
        (["start", "pause"], "stop", "200"),
        (["start", "pause", "resume"], "pause", "200"),
        (["start", "pause", "stop"], "stop", "409"),
    ],
)
def test_what_follows_what(
    site: Site, asterisk: FakeAsterisk, done: list[str], program: str, status: str
) -> None:
    for each in done:
        assert run(site, asterisk, each) == "200"
    running, state = len(asterisk.running()), asterisk.variables.get("RECORDING_STATE")

    assert run(site, asterisk, program) == status

    if status == "409":
        assert (len(asterisk.running()), asterisk.variables.get("RECORDING_STATE")) == (running, state)


@pytest.mark.parametrize(
    ("login", "status"),
    [
        *(("Ann", "200"), ("Rita", "200"), ("Adam", "200"), ("Lena", "200"), ("", "200")),
        *(("Fred", "403"), ("Lea", "403"), ("Gone", "403"), ("nobody", "403")),
    ],
)
@pytest.mark.parametrize("program", ["stop", "pause", "resume"])
def test_who_may_hear_the_leg_may(
    site: Site, asterisk: FakeAsterisk, program: str, login: str, status: str
) -> None:
    """Gone is in the group, and disabled."""
    run(site, asterisk, "start", "410", "INV-22", "Ann")
    if program == "resume":
        run(site, asterisk, "pause")
    before = len(asterisk.running())

    assert run(site, asterisk, program, "", login) == status

    is_changed = len(asterisk.running()) != before
    assert is_changed == (status == "200")
    if status == "200" and program != "resume":
        assert notes(site)[-1][1:] == ({"stop": "stopped", "pause": "paused"}[program], login or None)


@pytest.mark.parametrize("program", ["stop", "pause"])
def test_nobodys_leg_is_for_those_who_hear_all(site: Site, asterisk: FakeAsterisk, program: str) -> None:
    """Whose it is the database has not said yet."""
    run(site, asterisk, "start", "410", "INV-22")

    assert run(site, asterisk, program, "", "Lena") == "403"
    assert "try again in a moment" in asterisk.answers()["RECORDING_MESSAGE"]
    assert run(site, asterisk, program, "", "Rita") == "200"


@pytest.mark.parametrize("program", ["stop", "pause"])
def test_where_a_former_snapshot_tells_of_no_groups_its_owner_may(
    tmp_path: Path, asterisk: FakeAsterisk, program: str
) -> None:
    site = Site(tmp_path, FakeDatabase(logins=LOGINS))
    run(site, asterisk, "start", "410", "INV-22", "Ann")

    assert run(site, asterisk, program, "", "Rita") == "403"
    assert run(site, asterisk, program, "", "Ann") == "200"


def test_it_does_not_wait_for_the_database(site: Site, asterisk: FakeAsterisk) -> None:
    site.database.is_up = False
    for program, login in (("start", "Ann"), ("pause", "Lena"), ("resume", "Rita"), ("stop", "Ann")):
        words = ["410", "INV-22", login] if program == "start" else ["", login]
        assert run(site, asterisk, program, *words) == "200"
    assert run(site, asterisk, "stop", "", "Fred") == "409"
    assert site.database.times_read == 0


@pytest.mark.parametrize("program", ["pause", "resume"])
@pytest.mark.parametrize("key", ["wrong", ""])
def test_without_the_key_it_stays_as_it_is(
    site: Site, asterisk: FakeAsterisk, program: str, key: str
) -> None:
    run(site, asterisk, "start")
    if program == "resume":
        run(site, asterisk, "pause")
    before = len(asterisk.running())
    asterisk.variables["apiKey"] = key

    assert run(site, asterisk, program) == "401"
    assert len(asterisk.running()) == before


@pytest.mark.parametrize("program", ["pause", "resume"])
def test_a_caller_who_hangs_up_meanwhile_disturbs_nothing(
    site: Site, asterisk: FakeAsterisk, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_record, "FILE_SEEN_WITHIN_SECONDS", 0.05)
    for at in range(1, 12):
        asterisk.hang_up_at = 0
        run(site, asterisk, "start")
        if program == "resume":
            run(site, asterisk, "pause")
        asterisk.hang_up_at, asterisk.hang_up_style = at, DEAD_CHANNEL
        report = site.run(asterisk, program=f"{program}_record")
        assert (report.result.status in (200, 404, 409, 503), report.failure) == (True, None)


def test_a_mixmonitor_that_does_not_end_is_told(site: Site, asterisk: FakeAsterisk) -> None:
    run(site, asterisk, "start")
    asterisk.ignores_stops = True

    assert run(site, asterisk, "pause") == "503"
    assert "has ended, but something may go on: Asterisk does" in asterisk.answers()["RECORDING_MESSAGE"]
    assert asterisk.variables["RECORDING_STATE"] == "recording"
