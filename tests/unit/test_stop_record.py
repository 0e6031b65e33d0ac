"""stop_record on the channel that asks, with Asterisk's side played."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from noojee_agi.recordings import journal, sidecar
from noojee_agi.recordings.recording import Leg
from unit.fakes import DEAD_CHANNEL, FakeAsterisk, FakeDatabase, Site

KNOWN = {"Fred", "Ann"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, FakeDatabase(logins=tuple(KNOWN)))


@pytest.fixture
def asterisk() -> FakeAsterisk:
    return FakeAsterisk(MEMBERINTERFACE="PJSIP/410")


def stop(site: Site, asterisk: FakeAsterisk, *words: str) -> tuple[str, str]:
    """Status and message."""
    site.run(asterisk, *words, program="stop_record")
    return asterisk.answers()["RECORDING_STATUS"], asterisk.answers()["RECORDING_MESSAGE"]


def drained(site: Site, owner: str | None) -> Leg:
    """What the drain does of the one leg that was started: the event becomes a side-car."""
    (leg,) = site.legs()
    row = {
        **{name: value for name, value in leg._asdict().items() if name not in ("extensions", "agent_known")},
        **{"leg": 1, "owner": owner, "status": "recording", "external_reference": leg.tag},
        **{"call_started_at": leg.started_at, "ended_at": None, "duration_seconds": None, "bytes": None},
    }
    assert sidecar.write(row)
    journal.keep_only(journal.take(site.config.spool_directory), [])
    return leg


def test_the_leg_ends_and_the_dialplan_is_told_which(site: Site, asterisk: FakeAsterisk) -> None:
    site.run(asterisk, "410", "INV-22", "Fred")
    (leg,) = site.legs()

    assert stop(site, asterisk) == ("200", "OK")

    assert asterisk.running() == []
    assert (asterisk.answers()["RECORDING_ID"], asterisk.answers()["RECORDING_FILE"]) == (leg.id, leg.file)
    assert asterisk.executed("StopMixMonitor") == [f'EXEC "StopMixMonitor" "{asterisk.mixmonitors[0].id}"']
    assert site.endings() == []  # finish_record.py, MixMonitor's end command, tells of the end


def test_who_is_not_being_recorded_cannot_be_stopped(site: Site, asterisk: FakeAsterisk) -> None:
    status, message = stop(site, asterisk)

    assert (status, asterisk.executed("StopMixMonitor")) == ("409", [])
    assert "not being recorded" in message


def test_a_second_stop_is_409(site: Site, asterisk: FakeAsterisk) -> None:
    site.run(asterisk)
    assert [stop(site, asterisk)[0] for _ in range(2)] == ["200", "409"]


def test_what_somebody_else_has_stopped_is_409(site: Site, asterisk: FakeAsterisk) -> None:
    """StopMixMonitor in the dialplan: our variable still names it."""
    site.run(asterisk)
    asterisk.mixmonitors[0].is_running = False

    assert stop(site, asterisk)[0] == "409"


def test_somebody_elses_mixmonitor_goes_on(site: Site, asterisk: FakeAsterisk) -> None:
    site.run(asterisk)
    theirs = asterisk.mixmonitors[0]
    stop(site, asterisk)
    theirs.is_running = True  # as if the dialplan had started it without us

    assert stop(site, asterisk)[0] == "409"
    assert theirs.is_running


def test_a_start_after_it_is_a_new_leg_that_replaces_nothing(site: Site, asterisk: FakeAsterisk) -> None:
    site.run(asterisk)
    stop(site, asterisk)

    site.run(asterisk)

    assert len(site.legs()) == 2
    assert len(asterisk.executed("StopMixMonitor")) == 1


@pytest.mark.parametrize("key", ["wrong", ""])
def test_without_the_key_it_goes_on(site: Site, asterisk: FakeAsterisk, key: str) -> None:
    site.run(asterisk)
    asterisk.variables["apiKey"] = key

    assert stop(site, asterisk)[0] == "401"
    assert len(asterisk.running()) == 1


@pytest.mark.parametrize("words", [["410"], ["PJSIP/410"], ["extenOrUniqueId=410"], ["1762420501.77"], []])
def test_the_call_is_named_as_for_a_start(site: Site, asterisk: FakeAsterisk, words: list[str]) -> None:
    site.run(asterisk)
    assert stop(site, asterisk, *words)[0] == "200"


@pytest.mark.parametrize("words", [["", "tag=x"], ["410", "Fred", "third"], ["410", "a" * 101]])
def test_arguments_that_cannot_be_are_refused(site: Site, asterisk: FakeAsterisk, words: list[str]) -> None:
    """tag= is none of its names, so it is a login that nobody has."""
    site.run(asterisk)
    assert stop(site, asterisk, *words)[0] in ("400", "403")
    assert len(asterisk.running()) == 1


def test_a_caller_who_hangs_up_meanwhile_disturbs_nothing(site: Site, asterisk: FakeAsterisk) -> None:
    site.run(asterisk)
    for at in range(1, 6):
        asterisk.hang_up_at, asterisk.hang_up_style = at, DEAD_CHANNEL
        report = site.run(asterisk, program="stop_record")
        assert (report.result.status in (200, 404, 409), report.failure) == (True, None)


# ---- Who may stop it by name


@pytest.mark.parametrize("owner", ["Ann", None])
def test_who_does_not_own_the_leg_may_not(site: Site, asterisk: FakeAsterisk, owner: str | None) -> None:
    site.run(asterisk)
    drained(site, owner)

    status, message = stop(site, asterisk, "", "Fred")

    assert (status, len(asterisk.running())) == ("403", 1)
    assert message == "the recording is not Fred's: it stays as it is"


def test_its_owner_may(site: Site, asterisk: FakeAsterisk) -> None:
    site.run(asterisk)
    leg = drained(site, "Ann")

    assert stop(site, asterisk, "410", "Ann") == ("200", "OK")
    assert asterisk.answers()["RECORDING_ID"] == leg.id


def test_before_the_database_knows_of_it_the_login_that_was_named_counts(
    site: Site, asterisk: FakeAsterisk
) -> None:
    site.run(asterisk, "", "", "Fred")
    assert stop(site, asterisk, "", "Ann")[0] == "403"
    assert stop(site, asterisk, "", "Fred")[0] == "200"


@pytest.mark.parametrize("named", ["", "Nemo"])
def test_an_owner_whom_only_the_database_will_know_is_not_guessed(
    site: Site, asterisk: FakeAsterisk, named: str
) -> None:
    site.run(asterisk, "", "", named)

    status, message = stop(site, asterisk, "", "Ann")

    assert (status, len(asterisk.running())) == ("403", 1)
    assert "try again" in message


@pytest.mark.parametrize("has_variable", [True, False])
def test_without_a_name_it_needs_no_owner_and_no_side_car(
    site: Site, asterisk: FakeAsterisk, has_variable: bool
) -> None:
    site.run(asterisk)
    leg = drained(site, "Ann")
    Path(sidecar.path_for(leg.file)).write_text(json.dumps({"id": "damaged"}))
    if not has_variable:  # its start died before it could set it
        del asterisk.variables["NOOJEE_LEG"]

    assert stop(site, asterisk) == ("200", "OK")
    expected = (leg.id if has_variable else "", leg.file)
    assert (asterisk.answers()["RECORDING_ID"], asterisk.answers()["RECORDING_FILE"]) == expected


def test_what_another_leg_has_left_on_the_channel_counts_for_nothing(
    site: Site, asterisk: FakeAsterisk
) -> None:
    site.run(asterisk, "", "", "Fred")
    former = asterisk.variables["NOOJEE_LEG"]
    site.run(asterisk, "", "", "Ann")
    asterisk.variables["NOOJEE_LEG"] = former

    assert stop(site, asterisk, "", "Fred")[0] == "403"


def test_nothing_is_searched_for_in_the_spool(site: Site, asterisk: FakeAsterisk) -> None:
    """It may be long while the database is away, and the caller waits."""
    site.run(asterisk, "", "", "Fred")
    leg = site.legs()[0]
    shutil.rmtree(site.config.spool_directory)

    assert stop(site, asterisk, "", "Fred") == ("200", "OK")
    assert asterisk.answers()["RECORDING_ID"] == leg.id
