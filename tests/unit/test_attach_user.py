"""attach_user and detach_user on the channel that asks, with Asterisk's side played."""

from __future__ import annotations

from pathlib import Path

import pytest

from noojee_agi.recordings import recording
from noojee_agi.recordings.recording import Attachment
from unit.fakes import FakeAsterisk, FakeDatabase, Site, age_snapshot


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, FakeDatabase(logins=("Fred", "Ann O'Neill")))


def channel(name: str = "PJSIP/410-0000001f") -> FakeAsterisk:
    asterisk = FakeAsterisk()
    asterisk.environment["agi_channel"] = name
    return asterisk


def ask(site: Site, asterisk: FakeAsterisk, *words: str, program: str = "attach_user") -> tuple[str, str]:
    """Status and message."""
    site.run(asterisk, *words, program=program)
    return asterisk.answers()["RECORDING_STATUS"], asterisk.answers()["RECORDING_MESSAGE"]


def noted(site: Site) -> list[tuple[str, str]]:
    """Extension and login of each event."""
    found = [event for event in site.events() if isinstance(event, Attachment)]
    assert all(abs((recording.now() - event.at).total_seconds()) < 20 for event in found)
    return [(event.extension, event.login) for event in found]


@pytest.mark.parametrize(
    ("words", "event"),
    [
        (("Fred",), ("410", "Fred")),
        (("Fred", "411"), ("411", "Fred")),
        (("Fred", "PJSIP/411"), ("411", "Fred")),
        (("Fred", "Local/411@agents/n"), ("411", "Fred")),
        (("  Ann O'Neill ", "  411 "), ("411", "Ann O'Neill")),
        (("extension=411", "agentloginname=Fred"), ("411", "Fred")),
        (("Fred", ""), ("410", "Fred")),
    ],
)
def test_who_sits_down_is_noted_for_the_extension_that_is_named_else_the_channels_own(
    site: Site, words: tuple[str, ...], event: tuple[str, str]
) -> None:
    asterisk = channel()

    status, message = ask(site, asterisk, *words)

    shown = event[1].replace("'", "?")
    assert (status, message) == ("200", f"OK, recordings of {event[0]} belong to {shown} from now on")
    assert noted(site) == [event]
    assert (asterisk.answers()["RECORDING_ID"], asterisk.answers()["RECORDING_FILE"]) == ("", "")


@pytest.mark.parametrize(
    ("words", "extension"), [((), "410"), (("411",), "411"), (("extension=411",), "411")]
)
def test_who_gets_up_is_noted(site: Site, words: tuple[str, ...], extension: str) -> None:
    status, message = ask(site, channel(), *words, program="detach_user")

    assert (status, message) == ("200", f"OK, recordings of {extension} belong to nobody from now on")
    assert noted(site) == [(extension, "")]


def test_an_unknown_or_disabled_login_is_404_and_nothing_is_noted(site: Site) -> None:
    age_snapshot(site.config, 60)
    status, message = ask(site, channel(), "ghost")

    assert (status, message) == ("404", "no enabled account ghost: run noojee-agi account add, or list")
    assert site.events() == []
    assert site.database.times_read == 1  # the account may have been added just now


def test_a_login_that_was_added_just_now_is_known_after_a_look(site: Site) -> None:
    age_snapshot(site.config, 60)
    site.database.logins = frozenset({"Fred", "new"})

    assert ask(site, channel(), "new")[0] == "200"

    assert site.database.times_read == 1


def test_a_known_login_waits_for_no_database(site: Site) -> None:
    age_snapshot(site.config, 3600)

    assert ask(site, channel(), "Fred")[0] == "200"

    assert site.database.times_read == 0


@pytest.mark.parametrize("program", ["attach_user", "detach_user"])
def test_a_wrong_key_is_401_and_nothing_is_noted(site: Site, program: str) -> None:
    asterisk = channel()
    asterisk.variables["apiKey"] = "wrong"

    assert ask(site, asterisk, *(["Fred"] if program == "attach_user" else []), program=program)[0] == "401"

    assert site.events() == []


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        ("attach_user", (), "there is no agentLoginName"),
        ("attach_user", ("Fred", "410", "x"), "more than 2 arguments"),
        ("attach_user", ("x" * 101,), "agentLoginName has 101 characters"),
        ("attach_user", ("Fred", "4" * 150), "extension has 150 characters"),
        ("detach_user", ("410", "x"), "more than 1 arguments"),
        ("detach_user", ("apiKey=x",), "apiKey must not be an argument"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_400(
    site: Site, program: str, words: tuple[str, ...], said: str
) -> None:
    status, message = ask(site, channel(), *words, program=program)

    assert (status, site.events()) == ("400", [])
    assert said in message


def test_a_channel_without_an_extension_of_its_own_needs_one(site: Site) -> None:
    assert ask(site, channel("odd"), "Fred")[0] == "400"
    assert ask(site, channel("odd"), "Fred", "410")[0] == "200"


@pytest.mark.parametrize("name", ["PJSIP/410-0000001f", "SIP/410-12FA7B", "Local/410@desks-00000001;2"])
def test_the_own_extension_is_that_in_the_channels_name(site: Site, name: str) -> None:
    ask(site, channel(name), "Fred")

    assert noted(site) == [("410", "Fred")]


def test_a_spool_that_cannot_be_used_is_said(site: Site) -> None:
    (site.recordings / ".spool").write_text("")

    status, message = ask(site, channel(), "Fred")

    assert status == "503"
    assert ".spool" in message
