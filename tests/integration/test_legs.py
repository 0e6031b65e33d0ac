"""`noojee-agi recordings show, hold and release`: one leg's story, and what a purge must leave alone."""

from __future__ import annotations

import getpass
import json
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lab.loaded_command import loaded
from lab.site import PROGRAMS
from lab.waiting import wait_until

from integration.losable import LosableSite
from integration.recorder import after
from noojee_agi.cli import legs
from noojee_agi.recordings import recording, sidecar, spool
from noojee_agi.recordings.recording import Access, Leg, Note


@pytest.fixture
def site(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LosableSite:
    for name in ("SUDO_USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    made = LosableSite(tmp_path, database_url, lambda: None)
    made.set_up()
    return made


def said(site: LosableSite, *words: str) -> str:
    done = site.run("recordings", *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def refusal(site: LosableSite, *words: str) -> str:
    """The one line of an error."""
    done = site.run("recordings", *words)
    assert (done.returncode, done.stdout) == (1, ""), done
    return done.stderr


def side_car(leg: Leg) -> dict[str, Any]:
    return sidecar.read(sidecar.path_for(leg.file))


# --- show ---


def test_show_as_somebody_is_for_those_who_may_hear_it(site: LosableSite) -> None:
    leg = site.completed(agent_login_name="ann", agent_known=True)

    assert site.run("account", "add", "carl").returncode == 0

    for login in ("ann", "lena", "fred"):  # whose it is, who leads her team, and a Recording Manager
        assert leg.id in said(site, "show", leg.id, "--as", login)

    assert refusal(site, "show", leg.id[:8], "--as", "carl") == f"Error: carl may not hear {leg.id}\n"
    assert "gone" in refusal(site, "show", leg.id, "--as", "gone")


def test_show_tells_the_whole_story_in_order(site: LosableSite) -> None:
    leg = site.completed(tag="INV-22", agent_login_name="fred", agent_known=True)
    site.recorder.store_all(
        Access(recording.new_id(), leg.id, after(900), "ann", "played", False, "192.0.2.7"),
        Note(leg.id, after(20), "resumed", "fred", "card\x1b[31m number"),
        Note(leg.id, after(10), "paused"),
    )

    lines = said(site, "show", leg.id).splitlines()

    assert f"  file               {leg.file}" in lines
    assert "  external_reference INV-22" in lines
    assert "  held               no" in lines
    events = lines[lines.index("events") + 1 : lines.index("accesses")]
    assert [line.split()[2:] for line in events[1:]] == [
        ["started", "fred", "-"],
        ["paused", "-", "-"],
        ["resumed", "fred", "card?[31m", "number"],
    ]
    assert events[1].split()[:2] == after(0).astimezone().strftime("%Y-%m-%d %H:%M:%S").split()
    assert lines[-1].split()[2:] == ["played", "ann", "no", "192.0.2.7"]


def test_show_as_json_is_one_object_with_both_lists(site: LosableSite) -> None:
    leg = site.completed()

    told = json.loads(said(site, "show", leg.id[:8], "--json"))

    assert (told["id"], told["held"], told["accesses"], told["file"]) == (leg.id, False, [], leg.file)
    assert [event["what"] for event in told["events"]] == ["started"]
    assert "accesses: none" in said(site, "show", leg.id.upper())


def test_two_legs_of_the_same_eight_digits_are_both_named(site: LosableSite) -> None:
    one, other = (f"0e5f6b1c-000{number}-4000-8000-000000000000" for number in (1, 2))
    for number, leg_id in enumerate((one, other)):
        leg = site.leg(id=leg_id, started_at=after(number))
        site.recorder.store_all(leg._replace(file=leg.file.replace(".wav", f"{number}.wav")))

    assert f"0e5f6b1c may be {one} or {other}: give all of it" in refusal(site, "show", "0e5f6b1c")
    assert json.loads(said(site, "show", other, "--json"))["id"] == other


@pytest.mark.parametrize("asked", ["", "410", "0e5f6b1", "0e5f6b1g", "0e5f6b1c-0001", "0e5f6b1c%"])
def test_what_is_no_id_is_said(site: LosableSite, asked: str) -> None:
    assert "is no leg's id: take RECORDING_ID, or its first eight digits" in refusal(site, "show", asked)


@pytest.mark.parametrize("asked", ["0e5f6b1c", "0e5f6b1c-0001-4000-8000-000000000000"])
def test_an_id_that_nobody_has_is_said(site: LosableSite, asked: str) -> None:
    site.completed()

    assert f"there is no leg {asked}" in refusal(site, "show", asked)


# --- hold and release ---


def test_a_hold_is_in_row_and_side_car_when_it_is_said(site: LosableSite) -> None:
    leg = site.completed()

    assert said(site, "hold", leg.id[:8], "--reason", " INV-22 goes to court ") == f"{leg.id} is held\n"

    assert site.recorder.the_leg(leg)["held"] is True
    told = side_car(leg)
    assert told["held"] is True
    assert told["events"][-1]["reason"] == f"INV-22 goes to court (by {getpass.getuser()})"
    assert (told["events"][-1]["what"], told["events"][-1]["login"]) == ("held", None)

    assert said(site, "release", leg.id, "--reason", "settled") == f"{leg.id} is released\n"

    assert site.recorder.the_leg(leg)["held"] is False
    assert side_car(leg)["held"] is False
    assert [event["what"] for event in side_car(leg)["events"]] == ["started", "held", "released"]


def test_who_runs_it_as_root_is_named(site: LosableSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "lena")
    leg = site.completed()

    said(site, "hold", leg.id, "--reason", "court")

    assert side_car(leg)["events"][-1]["reason"] == "court (by lena)"


def test_it_counts_against_what_a_host_whose_clock_is_ahead_has_said(site: LosableSite) -> None:
    leg = site.completed()
    ahead = recording.now() + timedelta(hours=1)
    site.recorder.store_all(Note(leg.id, ahead, "released"))

    said(site, "hold", leg.id, "--reason", "court")

    assert site.recorder.the_leg(leg)["held"] is True


def test_a_hold_that_the_side_car_does_not_have_is_not_said_to_be_done(
    site: LosableSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another drain holds the lock, and hangs."""
    monkeypatch.setattr(legs, "_PATIENCE_SECONDS", 0.3)
    leg = site.completed()

    with spool.lock(site.recorder.spool):
        told = refusal(site, "hold", leg.id, "--reason", "court")

    assert "it is noted, but" in told
    site.sync()
    assert side_car(leg)["held"] is True  # nothing is lost


def test_what_another_drain_does_meanwhile_counts(site: LosableSite) -> None:
    leg = site.completed()
    with open(os.devnull, "r+b") as null, spool.lock(site.recorder.spool):
        words = ["recordings", "hold", leg.id, "--reason", "court"]
        command = loaded(PROGRAMS / "noojee-agi").start(words, site.environment, [null.fileno()] * 3)
        wait_until(site.recorder.waiting, 20, "the hold in the spool")
    site.sync()

    assert command.wait(60) == 0
    assert site.recorder.the_leg(leg)["held"] is True


def test_what_cannot_be_held_or_released_is_said(site: LosableSite) -> None:
    leg, purged, elsewhere = (site.completed(started_at=after(number * 90_000)) for number in range(3))
    site.recorder.store_all(Note(purged.id, after(5000), "purged"))
    shutil.rmtree(Path(elsewhere.file).parent)

    assert "is not held" in refusal(site, "release", leg.id, "--reason", "settled")
    assert "was purged at" in refusal(site, "hold", purged.id, "--reason", "court")
    assert "is not on this machine: do it on pbx1" in refusal(site, "hold", elsewhere.id, "--reason", "court")
    assert site.run("recordings", "hold", leg.id).returncode == 2
    assert "--reason is empty" in refusal(site, "hold", leg.id, "--reason", "  ")
    assert site.recorder.waiting() == []


def test_a_plain_list_is_as_it_was(site: LosableSite) -> None:
    leg = site.completed(tag="INV-22")
    site.completed(tag="other", call_uniqueid="1700000001.1")

    assert [row["id"] for row in json.loads(said(site, "--tag", "INV-22", "--json"))] == [leg.id]
