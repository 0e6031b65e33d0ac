"""`noojee-agi recordings export`: who may hear it gets it, and everybody who asks is noted."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from lab.postgresql import PrivatePostgreSQL
from lab.site import Site
from sqlalchemy import select

from integration.conftest import BACKENDS
from integration.recorder import Recorder, after, ended
from integration.test_cli import assert_one_line_error, run_here
from noojee_agi.cli import listing
from noojee_agi.database import settings
from noojee_agi.database.store import Store
from noojee_agi.database.tables import access_log, recording_leg
from noojee_agi.recordings import exported, recording
from noojee_agi.recordings.recording import Leg


@pytest.fixture(scope="module", params=BACKENDS)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One installation per database for the whole module; see `site`."""
    url = ""
    if request.param == "postgresql":
        server: PrivatePostgreSQL = request.getfixturevalue("postgresql")
        url = server.url(server.create_database())
    return Site(tmp_path_factory.mktemp("export") / "site", url)


@pytest.fixture
def site(installed: Site) -> Site:
    """An installation with Fred, Ann, and Sue, who hears all."""
    with Store(installed.database_url).transaction() as connection:
        for table in (
            "access_log",
            "recording_event",
            "recording_leg",
            "call_record",
            "account_group",
            "account",
        ):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        for login in ("fred", "ann", "sue"):
            groups = ("Recording Manager",) if login == "sue" else ()
            settings.add_account(connection, login, login.title(), groups)
    shutil.rmtree(installed.recordings_directory / "2026", ignore_errors=True)
    shutil.rmtree(installed.recordings_directory / ".spool", ignore_errors=True)
    return installed


@pytest.fixture
def recorder(site: Site, tmp_path: Path) -> Recorder:
    recorder = Recorder(Store(site.database_url), tmp_path / "recorder")
    recorder.directory = site.recordings_directory
    recorder.spool = str(site.recordings_directory / ".spool")
    return recorder


def record(recorder: Recorder, login: str, **changes: Any) -> Leg:
    """A leg of that owner that is over, with its audio."""
    leg = recorder.leg(
        **{"agent_login_name": login, "agent_known": True, "call_uniqueid": recording.new_id(), **changes}
    )
    Path(leg.file).write_bytes(audio(leg))
    recorder.store_all(leg, ended(leg))
    return leg


def audio(leg: Leg) -> bytes:
    return f"RIFF {leg.id}".encode() * 1000


def accesses(recorder: Recorder) -> list[tuple[str, str, str, bool]]:
    """Login, leg, what, allowed, in the order of time."""
    columns = access_log.c
    with recorder.store.reading() as connection:
        rows = connection.execute(select(access_log).order_by(columns.at))
        found = [dict(row._mapping) for row in rows]
    now = datetime.now(timezone.utc)
    assert all(abs((now - row["at"]).total_seconds()) < 60 for row in found)
    assert all(re.fullmatch(r"command line of \w+", row["address"]) for row in found)
    return [(row["login"], row["leg_id"], row["what"], row["allowed"]) for row in found]


def test_audio_and_a_table_of_it_come_into_the_folder(site: Site, recorder: Recorder, tmp_path: Path) -> None:
    legs = [record(recorder, "fred", tag="INV-1"), record(recorder, "ann", started_at=after(60))]
    to = tmp_path / "to"

    done = run_here(site, "recordings", "export", legs[0].id, legs[1].id[:8], "--to", str(to))

    names = [os.path.basename(leg.file) for leg in legs]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"2 exported to {to} with recordings.csv, 0 refused, 0 not to be had\n"
    assert sorted(os.listdir(to)) == sorted([*names, "recordings.csv"])
    assert [(to / name).read_bytes() for name in names] == [audio(leg) for leg in legs]
    rows = list(csv.DictReader(io.StringIO((to / "recordings.csv").read_text())))
    assert list(rows[0]) == list(listing.JSON_FIELDS)
    assert [(row["id"], row["file"], row["tag"], row["owner"]) for row in rows] == [
        (legs[0].id, names[0], "INV-1", "fred"),
        (legs[1].id, names[1], "", "ann"),
    ]
    assert accesses(recorder) == [("", leg.id, "exported", True) for leg in legs]
    side_car = json.loads(Path(legs[0].file).with_suffix(".json").read_text())
    assert [access["what"] for access in side_car["accesses"]] == ["exported"]


def test_who_may_not_hear_a_leg_does_not_get_it_and_that_is_noted(
    site: Site, recorder: Recorder, tmp_path: Path
) -> None:
    of_fred, of_ann, nobodys = record(recorder, "fred"), record(recorder, "ann"), record(recorder, "")
    ids = [leg.id for leg in (of_fred, of_ann, nobodys)]

    def export(login: str) -> tuple[int, list[str], str]:
        done = run_here(site, "recordings", "export", *ids, "--as", login, "--to", str(tmp_path / login))
        return done.returncode, done.stderr.splitlines(), done.stdout.partition(", ")[2]

    assert export("fred") == (
        1,
        [f"fred may not hear {of_ann.id}", f"fred may not hear {nobodys.id}"],
        "2 refused, 0 not to be had\n",
    )
    assert sorted(os.listdir(tmp_path / "fred")) == [os.path.basename(of_fred.file), "recordings.csv"]
    assert export("sue") == (0, [], "0 refused, 0 not to be had\n")
    assert accesses(recorder) == [
        *(("fred", leg_id, "exported", leg_id == of_fred.id) for leg_id in ids),
        *(("sue", leg_id, "exported", True) for leg_id in ids),
    ]


def test_who_gets_nothing_gets_no_table(site: Site, recorder: Recorder, tmp_path: Path) -> None:
    leg = record(recorder, "fred")

    done = run_here(site, "recordings", "export", leg.id, "--as", "ann", "--to", str(tmp_path / "to"))

    assert done.stdout == f"0 exported to {tmp_path}/to, 1 refused, 0 not to be had\n"
    assert (done.returncode, os.listdir(tmp_path / "to")) == (1, [])


@pytest.mark.parametrize("login", ["nobody", "off"])
def test_an_unknown_or_disabled_account_makes_no_folder(
    site: Site, recorder: Recorder, tmp_path: Path, login: str
) -> None:
    leg = record(recorder, "fred")
    run_here(site, "account", "add", "off")
    run_here(site, "account", "disable", "off")

    done = run_here(site, "recordings", "export", leg.id, "--as", login, "--to", str(tmp_path / "to"))

    assert_one_line_error(done, login)
    assert not (tmp_path / "to").exists()


def test_what_is_not_to_be_had_is_said_and_the_rest_is_exported(
    site: Site, recorder: Recorder, tmp_path: Path
) -> None:
    there, gone, purged = (record(recorder, "fred") for _ in range(3))
    runs = recorder.leg(call_uniqueid="c.9")
    recorder.store_all(runs)
    os.unlink(gone.file)
    with recorder.store.transaction() as connection:
        connection.execute(recording_leg.update().where(recording_leg.c.id == purged.id).values(file=""))
    unknown = recording.new_id()
    ids = [leg.id for leg in (gone, purged, runs, there)]

    done = run_here(site, "recordings", "export", unknown, *ids, there.id, "--to", str(tmp_path / "to"))

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"there is no leg {unknown}",
        f"{gone.id} has no audio: {gone.file} is not there",
        f"{purged.id} has no audio any more: it was purged",
        f"{runs.id} is still being recorded",
    ]
    assert done.stdout.endswith(" with recordings.csv, 0 refused, 4 not to be had\n")
    assert sorted(os.listdir(tmp_path / "to")) == [os.path.basename(there.file), "recordings.csv"]


def test_eight_digits_that_are_two_legs_are_neither(site: Site, recorder: Recorder, tmp_path: Path) -> None:
    ids = [f"0e5f6b1c-0000-4000-8000-00000000000{n}" for n in (1, 2)]
    for leg_id in ids:
        record(recorder, "fred", id=leg_id)

    done = run_here(site, "recordings", "export", "0e5f6b1c", "--to", str(tmp_path / "to"))

    assert done.returncode == 1
    assert all(leg_id in done.stderr for leg_id in ids)
    assert accesses(recorder) == []


def test_a_second_export_replaces_nothing(site: Site, recorder: Recorder, tmp_path: Path) -> None:
    first, second = record(recorder, "fred"), record(recorder, "fred")
    to = tmp_path / "to"
    assert run_here(site, "recordings", "export", first.id, "--to", str(to)).returncode == 0
    copy = to / os.path.basename(first.file)
    copy.write_text("the customer's notes")
    before = (to / "recordings.csv").read_text()

    done = run_here(site, "recordings", "export", first.id, second.id, "--to", str(to))

    assert done.returncode == 1
    assert done.stderr == f"{first.id}: {copy.name} is there already, and is left as it is\n"
    assert copy.read_text() == "the customer's notes"
    assert (to / "recordings.csv").read_text() == before
    assert second.id in (to / "recordings-2.csv").read_text()


def test_a_folder_that_cannot_be_is_an_error_that_says_what_to_do(
    site: Site, recorder: Recorder, tmp_path: Path
) -> None:
    leg = record(recorder, "fred")
    inside = site.recordings_directory / "2026/export"

    for to, words in ((tmp_path / "a/b", ["install -d -o", f"{tmp_path}/a/b"]), (inside, ["another folder"])):
        assert_one_line_error(run_here(site, "recordings", "export", leg.id, "--to", str(to)), *words)

    assert not inside.exists()
    assert accesses(recorder) == []


def test_what_cannot_be_noted_is_not_given_away(
    site: Site, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = record(recorder, "fred")
    shutil.rmtree(site.recordings_directory / ".spool")
    (site.recordings_directory / ".spool").write_text("no folder")
    try:
        done = run_here(site, "recordings", "export", leg.id, "--to", str(tmp_path / "to"))
    finally:
        (site.recordings_directory / ".spool").unlink()

    assert done.returncode == 1
    assert re.fullmatch(r"Error: [^\n]+\n", done.stderr)
    assert os.listdir(tmp_path / "to") == []


def test_who_has_enough_has_a_table_of_what_was_copied(
    site: Site, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    legs = [record(recorder, "fred") for _ in range(2)]
    copy = exported.Folder.copy

    def interrupted(folder: exported.Folder, source: str, name: str) -> None:
        if source == legs[1].file:
            raise KeyboardInterrupt
        copy(folder, source, name)

    monkeypatch.setattr(exported.Folder, "copy", interrupted)

    done = run_here(site, "recordings", "export", legs[0].id, legs[1].id, "--to", str(tmp_path / "to"))

    assert done.returncode == 1
    assert sorted(os.listdir(tmp_path / "to")) == [os.path.basename(legs[0].file), "recordings.csv"]
    table = (tmp_path / "to/recordings.csv").read_text()
    assert [leg.id in table for leg in legs] == [True, False]
    assert accesses(recorder) == [("", leg.id, "exported", True) for leg in legs]


def test_options_of_the_list_do_not_go_with_it(site: Site, tmp_path: Path) -> None:
    done = run_here(site, "recordings", "--as", "fred", "export", recording.new_id(), "--to", str(tmp_path))

    assert done.returncode == 2
    assert "options of the list do not go with export" in done.stderr
