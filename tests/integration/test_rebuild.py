"""`noojee-agi sync --rebuild`: what the database has lost comes back from the recordings, exactly once."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from lab.site import PROGRAMS
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until
from sqlalchemy import ColumnElement, delete, select, update

from integration.losable import (
    KEY,
    Dump,
    LosableSite,
    set_age,
    write_wav,
)
from integration.recorder import CALL_TIME, after, die_after, ended, exit_code, forked
from noojee_agi.actions import access
from noojee_agi.cli import output
from noojee_agi.database import schema, settings
from noojee_agi.database.store import Store
from noojee_agi.database.tables import access_log, call_record, recording_event, recording_leg, team_member
from noojee_agi.recordings import recording, sidecar, snapshot, spool, wav
from noojee_agi.recordings.recording import Attachment, Leg
from noojee_agi.recordings.snapshot import Knowledge
from noojee_agi.sync import rebuild, renew_snapshot


@pytest.fixture
def site(database_url: str, backend: str, tmp_path: Path) -> Iterator[LosableSite]:
    store = Store(database_url)

    def remove() -> None:
        if backend == "sqlite":
            remove_files(store)
        else:
            with store.transaction() as connection:
                connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    yield LosableSite(tmp_path, database_url, remove)
    if not store.revision():  # the next test finds the tables
        schema.upgrade(store)


def remove_files(store: Store) -> None:
    file = Path(str(store.url.database))
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()


only_sqlite = pytest.mark.parametrize("backend", ["sqlite"])


_OF_CALLS = ("call_record", "recording_leg", "recording_event", "access_log")  # the rest are settings


def legs_of(dump: Dump) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in dump["recording_leg"]}


def refused(site: LosableSite) -> dict[str, str]:
    """What a rebuild that ends with 1 says of each file."""
    done = site.run("sync", "--rebuild")
    assert done.returncode == 1, done
    lines = [line.split(" cannot be used: ", 1) for line in done.stderr.splitlines()]
    assert done.stderr.splitlines()[-1] == f"Error: {len(lines) - 1} files could not be used: see above"
    return {path: reason for path, reason in lines[:-1]}


# --- everything is lost ---


def test_every_row_comes_back(site: LosableSite) -> None:
    site.set_up()
    legs = site.record_everything()
    before = site.dump()
    assert all(before.values()), "each table has something to lose"
    assert {row["status"] for row in before["recording_leg"]} == {
        *("recording", "completed", "empty", "failed", "interrupted")
    }
    owners = {row["owner"] for row in site.recorder.legs()}
    assert owners == {None, "ann", "fred", "gone"}
    site.empty()
    assert not any(site.dump().values())

    said = site.rebuild()

    assert site.dump() == before
    site.recorder.assert_side_cars_tell_the_same()
    rows = sum(len(found) for table, found in before.items() if table not in _OF_CALLS)
    assert said.startswith(f"10 side-cars read, {len(legs)} legs and {rows} settings made again\n")


def test_a_database_that_is_made_anew_gets_its_settings_at_once(site: LosableSite) -> None:
    """With its first use: the calls that come now have their owners."""
    site.set_up()
    site.record_everything()
    before = site.dump()
    site.remove()

    assert site.run("db", "upgrade").returncode == 0

    after_loss = site.dump()
    assert [after_loss.pop(table) for table in _OF_CALLS] == [[], [], [], []]
    assert all(rows == before[table] for table, rows in after_loss.items())
    site.rebuild()
    assert site.dump() == before


@only_sqlite
def test_a_sqlite_file_that_is_gone_is_made_again(site: LosableSite) -> None:
    site.set_up()
    site.completed()
    before = site.dump()
    remove_files(site.store)

    site.rebuild()

    assert site.dump() == before


@pytest.mark.postgresql
@pytest.mark.parametrize("backend", ["postgresql"])
def test_without_tables_it_says_how_they_are_made(site: LosableSite) -> None:
    site.completed()
    site.remove()

    done = site.run("sync", "--rebuild")

    assert done.returncode == 1
    assert "run noojee-agi db upgrade" in done.stderr


def test_the_second_and_third_run_restore_nothing_and_touch_no_file(site: LosableSite) -> None:
    site.set_up()
    site.record_everything()
    site.lose()
    site.rebuild()
    before, files = site.dump(), site.files()

    for _ in range(2):
        assert "10 side-cars read, 0 legs and 0 settings made again" in site.rebuild()

        assert site.dump() == before
        assert site.files() == files


def test_without_the_settings_copy_owners_come_back_as_accounts_that_are_not_enabled(
    site: LosableSite,
) -> None:
    site.set_up()
    site.record_everything()
    before = site.dump()
    site.settings_copy.unlink()
    site.lose()

    site.rebuild()

    found = site.dump()
    assert [found[name] for name in ("call_record", "recording_leg")] == [
        before[name] for name in ("call_record", "recording_leg")
    ]
    assert [(row["id"], row["login"], row["enabled"]) for row in found["account"]] == [
        (row["id"], row["login"], False)
        for row in before["account"]
        if row["login"] in ("ann", "fred", "gone")
    ]


@only_sqlite
def test_an_account_that_came_back_not_enabled_can_be_used_again(site: LosableSite) -> None:
    site.set_up()
    site.record_everything()
    site.settings_copy.unlink()
    site.lose()
    site.rebuild()

    enabled = site.run("account", "enable", "fred")

    assert (enabled.returncode, enabled.stderr) == (0, "")
    assert site.run("attach", "fred", "410").returncode == 0
    rows = json.loads(site.run("account", "list", "--json").stdout)
    assert [row["extensions"] for row in rows if row["enabled"]] == [["410"]]


@only_sqlite
def test_side_cars_of_version_0_1_0_come_back_without_a_partner(site: LosableSite) -> None:
    leg = site.completed()
    before = site.dump()
    content = json.loads(site.side_car(leg).read_text())
    del content["peer_channel"], content["peer_uniqueid"]
    site.side_car(leg).write_text(json.dumps(content))
    site.lose()

    site.rebuild()

    assert site.dump() == before


def test_the_order_in_which_side_cars_are_read_does_not_count(
    site: LosableSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time, sorted by the legs' random ids; the numbers are those of before."""
    monkeypatch.setattr(rebuild, "_BATCH", 1)
    for number in range(6):
        site.completed(
            0.01, started_at=after(number), tag=f"INV-{number}" if number % 2 else "", did=f"{number}"
        )
    before = site.dump()
    site.lose()

    site.rebuild()

    assert site.dump() == before
    site.recorder.assert_side_cars_tell_the_same()


@only_sqlite
def test_a_call_whose_first_leg_is_lost_for_good_keeps_what_the_others_know_of_it(site: LosableSite) -> None:
    """Somebody has removed old files with their side-cars."""
    first = site.completed(tag="INV-1")
    second = site.completed(started_at=after(70), source="other", destination="700")
    [before] = site.recorder.calls()
    site.side_car(first).unlink()
    os.unlink(first.file)
    site.lose()

    site.rebuild()

    assert site.recorder.calls() == [before]
    assert [row["id"] for row in site.recorder.legs()] == [second.id]


@only_sqlite
def test_a_leg_whose_file_was_missing_before_an_older_backup_is_as_its_side_car_says(
    site: LosableSite,
) -> None:
    leg = site.leg()
    site.recorder.store_all(leg, ended(leg, status="failed", bytes=None, duration_seconds=None))
    backup = site.dump()
    site.recorder.store_all(ended(leg))
    before = site.dump()
    put_back(site, backup)

    site.rebuild()

    assert site.dump() == before


# --- some of it is lost ---


def test_exactly_the_legs_that_were_lost_come_back(site: LosableSite) -> None:
    site.set_up()
    legs = site.record_everything()
    before = site.dump()
    lost = [legs[number].id for number in (1, 2, 5, 8)]
    lose_legs(site, recording_leg.c.id.in_(lost))

    said = site.rebuild()

    assert ", 4 legs and 0 settings made again" in said
    assert site.dump() == before
    site.recorder.assert_side_cars_tell_the_same()


def test_a_call_record_that_was_lost_with_its_legs_comes_back(site: LosableSite) -> None:
    site.set_up()
    legs = site.record_everything()
    before = site.dump()
    call = legs_of(before)[legs[0].id]["call_record_id"]
    lose_legs(site, recording_leg.c.call_record_id == call)
    site.recorder.execute(delete(call_record).where(call_record.c.id == call))

    said = site.rebuild()

    assert ", 3 legs and 0 settings made again" in said
    assert site.dump() == before


def lose_legs(site: LosableSite, which: ColumnElement[bool]) -> None:
    lost = select(recording_leg.c.id).where(which)
    for table in (recording_event, access_log):
        site.recorder.execute(delete(table).where(table.c.leg_id.in_(lost)))
    site.recorder.execute(delete(recording_leg).where(which))


def put_back(site: LosableSite, backup: Dump) -> None:
    site.empty()
    for table, rows in backup.items():
        if rows:
            site.insert(table, *rows)


def test_what_came_after_a_backup_that_was_put_back_comes_back(site: LosableSite) -> None:
    site.set_up()
    site.record_everything()
    backup = site.dump()
    assert site.run("account", "add", "new", "--group", "Agent").returncode == 0
    assert site.run("attach", "new", "420").returncode == 0
    site.completed(started_at=after(200), agent_login_name="new", agent_known=True, tag="INV-9")
    site.completed(call_uniqueid="1700000009.1", started_at=after(300))
    before = site.dump()
    put_back(site, backup)

    said = site.rebuild()

    assert ", 2 legs and 3 settings made again" in said
    assert site.dump() == before
    site.recorder.assert_side_cars_tell_the_same()


@only_sqlite
def test_a_plain_sync_keeps_the_copy_of_settings_that_an_older_backup_does_not_know(
    site: LosableSite,
) -> None:
    """It runs every five minutes; somebody types --rebuild an hour later."""
    site.set_up()
    backup = site.dump()
    assert site.run("attach", "fred", "420").returncode == 0
    before = site.dump()
    put_back(site, backup)

    assert "sync --rebuild" in site.run("sync").stderr
    site.rebuild()

    assert site.dump() == before


def test_a_telephone_that_changed_hands_after_an_older_backup_belongs_to_the_last_one(
    site: LosableSite,
) -> None:
    """Else the one before hears what is not theirs."""
    site.set_up()
    backup = site.dump()
    assert site.run("attach", "fred", "410").returncode == 0
    before = site.dump()
    put_back(site, backup)

    site.rebuild()

    assert site.dump()["extension_attachment"] == before["extension_attachment"]


def test_an_owner_whom_an_attachment_that_came_late_has_settled_comes_back(site: LosableSite) -> None:
    """Its side-car lies on a host that was not told of it, or an older backup was put back."""
    site.set_up()
    leg = site.completed(extensions=("777", "413"), started_at=after(-60))
    backup = site.dump()
    assert legs_of(backup)[leg.id]["owner_id"] == settings.account_id("lena")
    side_car = site.side_car(leg).read_text()
    site.recorder.store_all(Attachment("777", after(-90), "fred"))
    site.sync()
    before = site.dump()
    assert legs_of(before)[leg.id]["owner_id"] == settings.account_id("fred")
    assert site.recorder.the_leg(leg)["extension"] == "777"

    site.side_car(leg).write_text(side_car)
    site.lose()
    site.rebuild()
    assert site.dump() == before

    put_back(site, backup)
    site.rebuild()
    assert site.dump() == before
    site.recorder.assert_side_cars_tell_the_same()


@only_sqlite
def test_a_member_who_left_after_an_older_backup_has_left(site: LosableSite) -> None:
    site.set_up()
    backup = site.dump()
    site.recorder.execute(update(team_member).where(team_member.c.left_at.is_(None)).values(left_at=after(5)))
    site.sync()
    before = site.dump()
    put_back(site, backup)

    site.rebuild()

    assert site.dump()["team_member"] == before["team_member"]


def test_a_key_that_was_set_after_an_older_backup_is_the_key(site: LosableSite) -> None:
    """Else every call is refused."""
    site.set_up()
    backup = site.dump()
    assert site.run("apikey", "new").returncode == 0
    before, known = site.dump(), snapshot.load(str(site.snapshot))
    put_back(site, backup)
    site.run("sync")

    site.rebuild()

    assert site.dump() == before
    now = snapshot.load(str(site.snapshot))
    assert known is not None
    assert now is not None
    assert now.key_digest == known.key_digest


@only_sqlite
def test_a_telephone_that_was_given_away_since_the_loss_keeps_its_history(site: LosableSite) -> None:
    """What was recorded before still waits in the spool, and belongs to who had it then."""
    site.set_up()
    copy = site.settings_copy.read_text()
    site.settings_copy.unlink()
    site.lose()
    waiting = site.leg(extensions=("410",))
    site.recorder.put(waiting, ended(waiting))
    assert site.run("account", "add", "new").returncode == 0
    assert site.run("attach", "new", "410").returncode == 0
    site.settings_copy.write_text(copy)  # another host still had it

    site.rebuild()

    assert site.recorder.the_leg(waiting)["owner"] == "ann"
    attached = [row for row in site.dump()["extension_attachment"] if row["extension"] == "410"]
    assert [row["detached_at"] is None for row in attached] == [False, False, True]


def test_a_leg_that_ended_after_an_older_backup_has_ended_as_its_side_car_says(site: LosableSite) -> None:
    """Its file alone does not tell so much: that of another format has no length."""
    site.set_up()
    leg = site.leg(call_uniqueid="1700000002.1")
    leg = site.leg(call_uniqueid="1700000002.1", id=leg.id, file=leg.file.replace(".wav", ".gsm"))
    site.recorder.store_all(leg)
    backup = site.dump()
    Path(leg.file).write_bytes(b"\xd2" * 3300)
    site.recorder.store_all(ended(leg, bytes=3300))
    set_age(leg.file, 3600)
    before = site.dump()
    put_back(site, backup)

    site.rebuild()

    assert site.dump() == before


# --- what happened since the loss ---


@pytest.mark.parametrize(("tag", "reference"), [("", "INV-2"), ("INV-3", "INV-3")])
def test_a_call_that_went_on_after_the_loss_is_one_call(site: LosableSite, tag: str, reference: str) -> None:
    first = site.completed(tag="INV-1")
    second = site.completed(tag="INV-2", started_at=after(70))
    site.lose()
    late = site.completed(tag=tag, started_at=after(140), destination="700", source="other", did="other")
    assert site.recorder.the_leg(late)["leg"] == 1

    site.rebuild()

    numbers = {row["id"]: row["leg"] for row in site.recorder.legs()}
    assert numbers == {first.id: 1, second.id: 2, late.id: 3}
    [call] = site.recorder.calls()
    assert (call["started_at"], call["ended_at"]) == (CALL_TIME, after(200))
    assert call["external_reference"] == reference
    site.recorder.assert_side_cars_tell_the_same()


def test_a_call_that_went_on_after_the_loss_is_described_as_it_began(site: LosableSite) -> None:
    """After a transfer the channel's extension is another one."""
    site.completed()
    [before] = site.recorder.calls()
    site.lose()
    site.completed(started_at=after(70), destination="700", source="other", did="other")

    site.rebuild()

    [call] = site.recorder.calls()
    assert call == {**before, "ended_at": after(130)}
    site.recorder.assert_side_cars_tell_the_same()


@only_sqlite
def test_an_ending_that_waits_for_a_leg_of_a_side_car_is_stored(site: LosableSite) -> None:
    leg = site.running(tag="INV-1")
    site.lose()
    site.recorder.put(ended(leg, duration_seconds=59.5))

    said = site.rebuild()

    assert "1 events stored, 0 set aside, 0 for later" in said
    row = site.recorder.the_leg(leg)
    assert (row["status"], row["ended_at"], row["duration_seconds"]) == ("completed", after(60), 59.5)
    assert (site.recorder.waiting(), site.recorder.reasons()) == ([], [])


@only_sqlite
def test_a_leg_that_waits_in_the_spool_has_owner_and_number_as_if_nothing_was_lost(
    site: LosableSite,
) -> None:
    site.set_up()
    site.completed(extensions=("410",))
    site.lose()
    leg = site.leg(extensions=("410",), started_at=after(70))
    site.recorder.put(leg, ended(leg))

    site.rebuild()

    assert [(row["leg"], row["owner"]) for row in site.recorder.legs()] == [(1, "ann"), (2, "ann")]


def test_what_was_set_aside_since_the_loss_is_tried_again(site: LosableSite) -> None:
    """A drain of another server's, or one that came too early, has met an ending without its start."""
    leg = site.running()
    site.lose()
    site.recorder.put(ended(leg))
    assert site.recorder.drain().rejected == 1

    site.rebuild()

    assert site.recorder.the_leg(leg)["status"] == "completed"
    assert site.recorder.reasons() == []


# --- legs whose end died with the database ---


def test_a_leg_that_nobody_ended_is_closed_by_its_file(site: LosableSite) -> None:
    crashed, closed, absent = (site.left_alone(started_at=after(number)) for number in range(3))
    write_wav(closed.file, 1.5)
    set_age(closed.file, 3600)
    os.unlink(absent.file)
    site.lose()

    said = site.rebuild()

    assert "3 legs closed that had ended without a word" in said
    rows = {row["id"]: (row["status"], row["duration_seconds"], row["bytes"]) for row in site.recorder.legs()}
    assert rows == {
        crashed.id: ("interrupted", 1.0, 16_044),
        closed.id: ("completed", 1.5, 24_044),
        absent.id: ("failed", None, None),
    }
    header = wav.read(crashed.file)
    assert header is not None
    assert header.is_right
    site.recorder.assert_side_cars_tell_the_same()


# --- strangers ---


def strangers_in(said: str) -> list[str]:
    head, tail = "nothing is known of ", ": it has no side-car, and is left alone"
    return [line[len(head) : -len(tail)] for line in said.splitlines() if line.startswith(head)]


def stranger(site: LosableSite, name: str, age: float = 61) -> Path:
    path = site.recordings / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"somebody's old recording")
    set_age(path, age)
    return path


@only_sqlite
def test_files_without_side_car_are_named_and_left_alone(site: LosableSite) -> None:
    site.completed()
    site.sync()
    old = [
        stranger(site, name)
        for name in ("2019/old call.wav", "2019/x-0123abcd.wav", "2026/03/01/1.2-0123abcd.wav", "a.mp3", "b")
    ]
    stranger(site, "2026/03/01/fresh-0123abcd.wav", age=30)
    stranger(site, ".trash/hidden.wav")
    stranger(site, "2026/.hidden/hidden.wav")
    stranger(site, "2026/.hidden.wav")
    files = site.files()

    said = site.rebuild()

    assert sorted(strangers_in(said)) == sorted(map(str, old))
    assert site.files() == files
    assert len(site.recorder.legs()) == 1


@only_sqlite
def test_a_leg_that_lost_only_its_side_car_gets_it_again(site: LosableSite) -> None:
    site.set_up()
    legs = [leg for leg in site.record_everything() if os.path.exists(leg.file) and leg.tag != "INV-5"]
    before = contents(site)
    for leg in legs:
        set_age(leg.file, 61)
        site.side_car(leg).unlink()

    said = site.rebuild()

    assert strangers_in(said) == []
    assert contents(site) == before


def contents(site: LosableSite) -> dict[str, bytes]:
    return {path: content for path, (_, content) in site.files().items()}


@only_sqlite
def test_a_file_that_lost_both_its_row_and_its_side_car_is_a_stranger(site: LosableSite) -> None:
    leg = site.completed()
    set_age(leg.file, 61)
    site.side_car(leg).unlink()
    site.lose()

    assert strangers_in(site.rebuild()) == [leg.file]

    assert site.recorder.legs() == []


@only_sqlite
def test_side_cars_in_hidden_folders_are_not_read(site: LosableSite) -> None:
    leg = site.completed()
    hidden = site.recordings / ".old"
    hidden.mkdir()
    shutil.move(site.side_car(leg), hidden)
    site.lose()

    said = site.rebuild()

    assert said.startswith("0 side-cars read, 0 legs")


ODD_NAMES = [
    b"a call.wav",
    b"two\nlines.wav",
    b"escape\x1b]0;owned\x07.wav",
    b"latin-1 \xe9.wav",
    b"-rf",
    b"x" * 255,
    b"no-json.json.wav",
    "☎.wav".encode(),
]


@only_sqlite
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:surrogateescape"])
def test_odd_names_break_nothing(site: LosableSite, encoding: str) -> None:
    """As a process: its standard output may be strict, and a terminal obeys what it prints."""
    leg = site.completed()
    folder = os.fsencode(site.recordings)
    for name in ODD_NAMES:
        path = os.path.join(folder, name)
        Path(os.fsdecode(path)).write_bytes(b"")
        os.utime(path, (0, 0))
    os.mkdir(os.path.join(folder, b"latin-1 \xe9"))
    site.lose()

    environment = {**site.environment, "PYTHONIOENCODING": encoding}
    command: list[str | Path] = [PROGRAMS / "noojee-agi", "sync", "--rebuild"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    said = done.stdout

    assert (done.returncode, done.stderr) == (0, b"")
    assert [row["id"] for row in site.recorder.legs()] == [leg.id]
    assert said.count(b"nothing is known of ") == len(ODD_NAMES)
    assert len(said.splitlines()) == 2 + len(ODD_NAMES)
    assert b"\x1b" not in said


@only_sqlite
def test_links_that_lead_nowhere_or_round_break_nothing(site: LosableSite) -> None:
    site.completed()
    before = site.dump()
    links = {"loop.wav": "loop.wav", "loop.json": "loop.json", "away.wav": "/nonexistent/x", "round": "."}
    for name, target in {**links, "up": "..", "1-latest": "2026", "top": "/"}.items():
        (site.recordings / name).symlink_to(target)
    site.lose()

    found = refused(site)

    assert list(found) == [str(site.recordings / "loop.json")]
    assert site.dump() == before


@only_sqlite
def test_a_year_that_lies_on_another_disk_comes_back(site: LosableSite, tmp_path: Path) -> None:
    """An administrator has moved it there, and left a link."""
    site.completed()
    before = site.dump()
    shutil.move(site.recordings / "2026", tmp_path / "disk")
    (site.recordings / "2026").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/round").symlink_to(tmp_path / "disk")
    site.lose()

    site.rebuild()

    assert site.dump() == before


@only_sqlite
def test_a_recording_that_somebody_has_copied_is_restored_where_it_was(site: LosableSite) -> None:
    """Such as all of one case, with their side-cars; the folder comes before or behind the years."""
    site.completed()
    before = site.dump()
    copies = [site.recordings / name / "03" for name in ("1-case", "case")]
    for copy in copies:
        shutil.copytree(site.recordings / "2026/03", copy)
    site.lose()

    found = refused(site)

    assert {Path(path).parents[1] for path in found} == set(copies)
    assert site.dump() == before


@only_sqlite
def test_a_pipe_is_not_waited_for(site: LosableSite) -> None:
    leg = site.completed()
    os.mkfifo(site.recordings / "pipe.json")
    site.lose()

    found = refused(site)

    assert list(found) == [str(site.recordings / "pipe.json")]
    assert [row["id"] for row in site.recorder.legs()] == [leg.id]


@only_sqlite
def test_a_folder_that_cannot_be_read_is_named(site: LosableSite) -> None:
    """Root itself may read everything, unless it gives up that right."""
    words: list[str | Path] = [PROGRAMS / "noojee-agi", "sync", "--rebuild"]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            raise LabUnavailable("root reads every folder, and there is no setpriv to give that up")
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *words]
    here = site.completed()
    there = site.completed(started_at=after(86_400))
    site.lose()
    folder = Path(there.file).parent
    folder.chmod(0)

    done = subprocess.run(
        words, env=site.environment, capture_output=True, text=True, check=False, timeout=60
    )
    folder.chmod(0o750)

    assert "Traceback" not in done.stderr
    assert (done.returncode, str(folder) in done.stderr) == (1, True), done
    assert [row["id"] for row in site.recorder.legs()] == [here.id]


# --- damaged side-cars ---

DAMAGED = {
    "empty": "",
    "truncated": '{"id": "0000',
    "no JSON": "hello",
    "an empty object": "{}",
    "a list": "[1, 2]",
    "a list of pairs": '[["id", "x"]]',
    "a number": "7",
    "a text": '"id"',
    "null": "null",
    "somebody else's": '{"name": "x", "version": 1}',
    "deep list": "[" * 100_000,
    "deep object": '{"id":' * 100_000,
    "a lone brace": "}",
}
WRONG: dict[str, dict[str, Any]] = {
    "id is no UUID": {"id": "4711"},
    "id is empty": {"id": ""},
    "id is a number": {"id": 7},
    "id is a list": {"id": ["x"]},
    "tag is a list": {"tag": ["INV"]},
    "tag is null": {"tag": None},
    "tag is an object": {"tag": {"a": 1}},
    "tag with NUL": {"tag": "a\0b"},
    "tag with surrogate": {"tag": "a\udcffb"},
    "server is null": {"server": None},
    "owner is a number": {"owner": 7},
    "owner with NUL": {"owner": "fr\0ed"},
    "file is null": {"file": None},
    "file is empty": {"file": ""},
    "file is a folder": {"file": "/tmp/"},
    "file is another": {"file": "/tmp/noojee-agi-another.wav"},
    "file with NUL": {"file": "/tmp/x\0.wav"},
    "leg is a text": {"leg": "1"},
    "leg is true": {"leg": True},
    "leg is a fraction": {"leg": 1.5},
    "bytes is a text": {"bytes": "many"},
    "bytes beyond all": {"bytes": 2**80},
    "duration is a text": {"duration_seconds": "long"},
    "duration is a list": {"duration_seconds": [1]},
    "status is unknown": {"status": "lost"},
    "status is null": {"status": None},
    "status is too long": {"status": "x" * 200},
    "start is a text": {"started_at": "yesterday"},
    "start is a number": {"started_at": 7},
    "start is null": {"started_at": None},
    "start without zone": {"started_at": "2026-03-01T09:30:15"},
    "start before all": {"started_at": "0001-01-01T00:00:00+14:00"},
    "call's start is null": {"call_started_at": None},
    "end is a text": {"ended_at": "later"},
    "end is true": {"ended_at": True},
}
TOO_LONG: dict[str, dict[str, Any]] = {
    **{
        f"{name} is too long": {name: "x" * 256}
        for name in ("server", "call_uniqueid", "source", "destination", "did", "external_reference")
    },
    **{f"{name} is too long": {name: "x" * 256} for name in ("uniqueid", "channel", "extension", "tag")},
    "login is too long": {"agent_login_name": "x" * 101},
    "owner is too long": {"owner": "x" * 101},
}


def damage(site: LosableSite, right: Leg, number: int, changes: dict[str, Any]) -> str:
    """A side-car like that of the right leg, of a leg of its own, with these changes; its path."""
    content = json.loads(site.side_car(right).read_text())
    leg = site.leg(call_uniqueid=f"17.{number}")
    write_wav(leg.file, 0.01)
    own = {"id": leg.id, "file": leg.file, "call_uniqueid": leg.call_uniqueid}
    site.side_car(leg).write_text(json.dumps({**content, **own, **changes}))
    return str(site.side_car(leg))


def test_each_damaged_side_car_is_named_with_its_reason_and_all_others_are_used(
    site: LosableSite, backend: str
) -> None:
    good = [site.completed(0.01, call_uniqueid=f"18.{number}") for number in range(3)]
    damaged = {}
    for name, text in DAMAGED.items():
        damaged[name] = str(site.recordings / "2026" / f"{name}.json")
        Path(damaged[name]).write_text(text)
    wrong = {**WRONG, **(TOO_LONG if backend == "postgresql" else {})}
    for number, (name, changes) in enumerate(wrong.items()):
        damaged[name] = damage(site, good[0], number, changes)
    missing = damage(site, good[0], 1000, {})
    content = json.loads(Path(missing).read_text())
    del content["channel"]
    Path(missing).write_text(json.dumps(content))
    Path(site.recordings, "latin-1.json").write_bytes(b'{"tag": "\xe9"}')
    damaged.update({"a field is missing": missing, "not UTF-8": str(site.recordings / "latin-1.json")})
    site.lose()

    found = refused(site)

    assert [name for name, path in damaged.items() if not found.pop(path, "")] == []
    assert found == {}
    assert {row["id"] for row in site.recorder.legs()} == {leg.id for leg in good}
    assert site.recorder.calls() != []
    assert {row["server"] for row in site.recorder.calls()} == {"pbx1"}


@only_sqlite
def test_a_side_car_that_names_a_file_elsewhere_changes_nothing_there(
    site: LosableSite, tmp_path: Path
) -> None:
    victim = tmp_path / "snapshot.json"
    victim.write_text("keep me")
    right = site.completed(0.01, call_uniqueid="18.1")
    path = damage(site, right, 1, {"file": str(tmp_path / "snapshot.wav")})
    site.lose()

    assert list(refused(site)) == [path]

    assert victim.read_text() == "keep me"
    assert [row["id"] for row in site.recorder.legs()] == [right.id]


@only_sqlite
def test_a_damaged_side_car_of_a_leg_that_is_known_is_written_anew(site: LosableSite) -> None:
    """A power cut leaves empty files."""
    leg = site.completed()
    before = site.side_car(leg).read_text()
    site.side_car(leg).write_text("")
    set_age(leg.file, 61)

    site.rebuild()

    assert site.side_car(leg).read_text() == before


DAMAGED_COPY = {
    "empty": "",
    "half": "{",
    "list": "[]",
    "number": "7",
    "deep": "[" * 100_000,
    "wrong table": '{"system_variable": 7}',
    "wrong column": '{"system_variable": [{"colour": "blue"}]}',
    "tables missing": '{"system_variable": []}',
}


@pytest.mark.parametrize("text", DAMAGED_COPY.values(), ids=DAMAGED_COPY)
@only_sqlite
def test_a_damaged_copy_of_the_settings_is_named_and_nothing_is_guessed(site: LosableSite, text: str) -> None:
    """What waits in the spool would have no owner, and accounts would not be enabled; it can be mended."""
    site.set_up()
    site.completed(extensions=("410",))
    late = site.leg(started_at=after(70), extensions=("410",))
    copy = site.settings_copy.read_text()
    site.lose()
    site.recorder.put(late, ended(late))
    site.settings_copy.write_text(text)

    done = site.run("sync", "--rebuild")

    assert done.returncode == 1
    assert f"{site.settings_copy}, the copy of the settings, cannot be used" in done.stderr
    assert site.settings_copy.read_text() == text
    site.settings_copy.write_text(copy)
    site.rebuild()
    assert [row["owner"] for row in site.recorder.legs()] == ["ann", "ann"]
    assert [row["login"] for row in site.dump()["account"] if not row["enabled"]] == ["gone"]


# --- the recordings have been moved ---


@only_sqlite
def test_recordings_that_were_moved_are_where_they_are_now(site: LosableSite, tmp_path: Path) -> None:
    site.set_up()
    site.record_everything()
    before = site.dump()
    old = str(site.recordings)
    site.lose()
    site.recordings = site.recordings.rename(tmp_path / "elsewhere")
    site.recorder.spool = str(site.recordings / ".spool")
    site.configure()

    site.rebuild()

    for row in before["recording_leg"]:
        for name in ("file", "purged_file"):
            row[name] = row[name].replace(old, str(site.recordings))
    assert site.dump() == before
    site.recorder.assert_side_cars_tell_the_same()


@only_sqlite
def test_recordings_that_were_copied_are_where_the_configuration_says(
    site: LosableSite, tmp_path: Path
) -> None:
    leg = site.completed()
    site.lose()
    shutil.copytree(site.recordings, tmp_path / "copy")
    old = site.files()
    site.recordings = tmp_path / "copy"
    site.configure()

    site.rebuild()

    assert site.recorder.the_leg(leg)["file"].startswith(f"{tmp_path}/copy/")
    site.recordings = tmp_path / "recordings"
    assert site.files() == old


# --- the background drain of a database that lost its rows ---


@only_sqlite
def test_what_comes_after_a_loss_has_its_owner_at_once(site: LosableSite) -> None:
    """The settings are back with the first use; an ending waits for its leg, set aside, until the rebuild."""
    site.set_up()
    known = site.completed(extensions=("410",))
    running = site.running(call_uniqueid="1700000003.1", extensions=("410",))
    before = snapshot.load(str(site.snapshot))
    site.lose()
    new = site.leg(started_at=after(70), extensions=("410",))
    site.recorder.put(new, ended(new), ended(running))

    site.background_drain()

    assert site.recorder.the_leg(new)["owner"] == "ann"
    assert len(site.recorder.reasons()) == 1
    left = snapshot.load(str(site.snapshot))
    assert before is not None
    assert left is not None
    assert (left.key_digest, left.logins) == (before.key_digest, before.logins)

    site.rebuild()

    assert site.recorder.reasons() == []
    assert {row["id"]: (row["owner"], row["status"]) for row in site.recorder.legs()} == {
        leg.id: ("ann", "completed") for leg in (known, new, running)
    }


@only_sqlite
def test_calls_are_accepted_although_nothing_is_left_of_the_key_but_the_snapshot(site: LosableSite) -> None:
    site.set_up()
    site.settings_copy.unlink()
    site.lose()
    site.run("account", "add", "bob")
    site.rebuild()

    def read_database() -> None:
        renew_snapshot.run(site.store, str(site.snapshot))

    knowledge = Knowledge(str(site.snapshot), read_database)

    access.require_key(KEY, knowledge)
    assert knowledge.renewed() is not None


@only_sqlite
def test_owners_are_known_although_the_snapshot_was_lost_with_the_database(site: LosableSite) -> None:
    """Both lie in the state folder, and the recordings on a disk of their own."""
    site.set_up()
    site.lose()
    site.snapshot.unlink()
    leg = site.leg(extensions=("410",))
    site.recorder.put(leg)

    site.run("sync")
    site.background_drain()
    site.rebuild()

    assert site.recorder.the_leg(leg)["owner"] == "ann"


@only_sqlite
def test_who_sets_a_new_key_first_loses_nothing_else(site: LosableSite) -> None:
    site.set_up()
    accounts = site.dump()["account"]
    site.lose()

    done = site.run("apikey", "new")
    site.rebuild()

    assert done.returncode == 0
    assert site.dump()["account"] == accounts


@only_sqlite
def test_an_account_added_to_a_lost_database_makes_no_call_be_refused(site: LosableSite) -> None:
    site.set_up()
    site.lose()

    site.run("account", "add", "new")
    site.background_drain()

    assert_key_is_accepted(site)


@only_sqlite
def test_a_rebuild_without_the_settings_copy_makes_no_call_be_refused(site: LosableSite) -> None:
    """The snapshot, too, knows the key's digest."""
    site.set_up()
    site.completed(agent_login_name="fred", agent_known=True)
    site.settings_copy.unlink()
    site.lose()

    site.rebuild()

    assert_key_is_accepted(site)
    assert [row["name"] for row in site.dump()["system_variable"]] == ["apiKey"]


def assert_key_is_accepted(site: LosableSite) -> None:
    def read_database() -> None:
        renew_snapshot.run(site.store, str(site.snapshot))

    access.require_key(KEY, Knowledge(str(site.snapshot), read_database))


@only_sqlite
def test_a_new_installation_hears_nothing_of_loss(site: LosableSite) -> None:
    """Whatever is set first, and however often cron has synced before."""
    for _ in range(2):
        site.sync()
    assert "none is set, so no call is recorded: " in site.run("check").stdout
    for words in [("account", "add", "a"), ("account", "add", "b"), ("attach", "a", "1"), ("apikey", "new")]:
        done = site.run(*words)
        assert (words, done.returncode, done.stderr) == (words, 0, "")


# --- progress ---


def make_side_cars(site: LosableSite, count: int) -> None:
    """Of so many calls with one leg each, fifty to a day."""
    leg = site.completed(0.01, tag="INV-22", agent_login_name="fred", agent_known=True)
    content = site.recorder.the_leg(leg)
    for number in range(1, count):
        leg_id = recording.new_id()
        started_at = after(86_400 * (number // 50))
        file = recording.file_path(str(site.recordings), f"17.{number}", leg_id, "wav", started_at)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        changes = {"id": leg_id, "file": file, "call_uniqueid": f"17.{number}", "started_at": started_at}
        sidecar.write({**content, **changes})


def test_elsewhere_than_on_a_terminal_long_work_says_a_line_for_each_tenth(
    site: LosableSite,
    backend: str,
    is_long: bool,
    tell: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 10_000 if is_long else 200
    monkeypatch.setattr(rebuild, "_BATCH", count // 10)
    monkeypatch.setattr(output, "_LONG_WORK", count)
    site.set_up()
    make_side_cars(site, count)
    site.lose()

    began = time.monotonic()
    done = site.run("sync", "--rebuild")
    seconds = time.monotonic() - began

    assert done.returncode == 0
    assert len(site.recorder.legs()) == count
    assert done.stderr.splitlines() == [
        f"rebuilding: {count * tenth // 10} of {count}" for tenth in range(1, 11)
    ]
    tell(f"rebuild, {backend}: {count} side-cars in {seconds:.1f} s, {count / seconds:.0f} a second")


@only_sqlite
def test_on_a_terminal_there_is_a_bar(site: LosableSite) -> None:
    site.record_everything()
    site.lose()
    ours, theirs = os.openpty()

    process = site.start("sync", "--rebuild", stdout=PIPE, stderr=theirs)
    os.close(theirs)
    said, _ = process.communicate(timeout=60)
    shown = _all_of(ours)

    assert process.returncode == 0
    assert b"rebuilding  [" in shown
    assert b"100%" in shown
    assert b"10 side-cars read, 10 legs" in said
    assert b"[" not in said


def _all_of(terminal: int) -> bytes:
    shown = b""
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        while True:
            try:
                found = screen.read(4096)
            except OSError:  # nobody has the other end open any more
                return shown
            if not found:
                return shown
            shown += found


# --- beside live work ---


def test_an_ending_that_a_drain_sets_aside_beside_a_rebuild_is_stored_after_it(
    site: LosableSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drains work between the batches; this leg's row comes later."""
    monkeypatch.setattr(rebuild, "_BATCH", 1)
    legs = [site.running(call_uniqueid=f"17.{number}") for number in range(4)]
    site.lose()
    site.recorder.put(*map(ended, legs))

    def drain_in_between(_: int) -> None:
        site.recorder.drain()

    rebuild.run(site.store, str(site.recordings), drain_in_between)
    site.rebuild()

    assert site.recorder.reasons() == []
    assert {row["status"] for row in site.recorder.legs()} == {"completed"}


def test_a_side_car_never_says_less_than_a_drain_has_just_written(
    site: LosableSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a rebuild's commit and its side-cars, the call ends."""
    leg = site.running()
    site.lose()
    former = json.loads(site.side_car(leg).read_text())
    site.side_car(leg).write_text(json.dumps({**former, "leg": 7}))
    write = sidecar.write

    def write_late(row: dict[str, Any]) -> bool:
        monkeypatch.setattr(sidecar, "write", write)
        site.recorder.put(ended(leg))
        site.recorder.drain()
        return write(row)

    monkeypatch.setattr(sidecar, "write", write_late)
    site.rebuild()

    assert site.recorder.the_leg(leg)["status"] == "completed"
    site.recorder.assert_side_cars_tell_the_same()


def test_two_rebuilds_at_once_are_as_good_as_one(
    site: LosableSite, is_long: bool, tell: Callable[[str], None], backend: str
) -> None:
    site.set_up()
    site.record_everything()
    before = site.dump()
    rounds = 25 if is_long else 1

    for _ in range(rounds):
        site.lose()
        children = [forked(site.rebuild_in_a_fork) for _ in range(2)]
        assert [exit_code(child) for child in children] == [0, 0]
        assert site.dump() == before

    site.recorder.assert_side_cars_tell_the_same()
    tell(f"two rebuilds at once, {backend}: {rounds} rounds, 0 legs lost, 0 twice")


@only_sqlite
def test_a_rebuild_waits_for_the_drain_that_is_at_work(site: LosableSite) -> None:
    leg = site.completed()
    site.lose()

    with spool.lock(site.recorder.spool):
        process = site.start("sync", "--rebuild", stdout=PIPE)
        wait_until(
            lambda: is_waiting_for_a_lock(process.pid) or process.poll() is not None, 60, "the rebuild"
        )
        assert site.recorder.legs() == []
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert [row["id"] for row in site.recorder.legs()] == [leg.id]


def is_waiting_for_a_lock(process: int) -> bool:
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return str(process) in [words[5] for words in waiting]


@pytest.mark.postgresql
@pytest.mark.parametrize("backend", ["postgresql"])
def test_two_servers_rebuild_one_database_at_once(
    site: LosableSite, tmp_path: Path, is_long: bool, tell: Callable[[str], None]
) -> None:
    """Without the settings' copy, so both make the same accounts, each in its own order."""
    (tmp_path / "other").mkdir()
    other = LosableSite(tmp_path / "other", site.url, site.remove)
    servers = {"pbx1": site, "pbx2": other}
    logins = [f"agent {number}" for number in range(60)]
    with site.store.transaction() as connection:
        for login in logins:
            settings.add_account(connection, login, login, ())
    for server, place in servers.items():
        calls_of_it = [owned_call(place, server, login) for login in logins]
        place.recorder.store_all(*(event for events in calls_of_it for event in events))
    legs, calls = site.recorder.legs(), site.recorder.calls()
    rounds = 40 if is_long else 2

    for _ in range(rounds):
        for place in servers.values():
            place.settings_copy.unlink(missing_ok=True)
        site.lose()
        together = multiprocessing.get_context("fork").Barrier(2)
        start = functools.partial(together.wait, 20)
        children = [forked(rebuilder(place, start)) for place in servers.values()]
        assert [exit_code(child) for child in children] == [0, 0]
        assert (site.recorder.legs(), site.recorder.calls()) == (legs, calls)

    tell(f"two servers rebuild one database at once: {rounds} rounds, {len(legs)} legs each, 0 lost, 0 twice")


def owned_call(site: LosableSite, server: str, login: str) -> list[recording.Event]:
    leg = site.leg(server=server, call_uniqueid=f"17.{login}", agent_login_name=login, agent_known=True)
    return [leg, ended(leg)]


def rebuilder(site: LosableSite, wait: Callable[[], object]) -> Callable[[], None]:
    """A rebuild, after that wait."""

    def work() -> None:
        wait()
        site.rebuild_in_a_fork()

    return work


CALLS = 8


def test_a_rebuild_beside_live_calls_loses_and_doubles_nothing(
    site: LosableSite,
    is_long: bool,
    tell: Callable[[str], None],
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rebuild, "_BATCH", 3)
    site.set_up()
    rounds = 40 if is_long else 1

    for number in range(rounds):
        calls = [f"{number}.{call}" for call in range(CALLS)]
        with site.recorder.together():
            waiting = {call: lost_call(site, call) for call in calls}
        site.lose()
        children = [forked(worker(site, [waiting[call] for call in calls[at::2]])) for at in range(2)]
        moment = random.Random(number).uniform(0, 0.2)  # a sysadmin comes when he comes
        children.append(forked(rebuilder(site, functools.partial(time.sleep, moment))))
        assert [exit_code(child) for child in children] == [0, 0, 0]
        site.sync()
        assert_whole(site, CALLS * (number + 1))

    legs = 3 * CALLS * rounds
    tell(f"rebuild beside live calls, {backend}: {rounds} rounds, {legs} legs, 0 lost, 0 twice")


def lost_call(site: LosableSite, call: str) -> list[recording.Event]:
    """A call with a leg that has ended and one that goes on; returns what is still to come."""
    site.completed(0.01, call_uniqueid=call, extensions=("410",))
    going_on = site.running(call_uniqueid=call, extensions=("410",), started_at=after(1))
    late = site.leg(call_uniqueid=call, extensions=("410",), started_at=after(2))
    return [ended(going_on), late, ended(late)]


def worker(site: LosableSite, calls: list[list[recording.Event]]) -> Callable[[], None]:
    def work() -> None:
        for event in (event for events in calls for event in events):
            site.recorder.put(event)
            site.drain_in_a_fork()

    return work


def assert_whole(site: LosableSite, calls: int) -> None:
    """Three legs of each call, ended, numbered and owned, as their side-cars say; nothing is left over."""
    rows = site.recorder.legs()
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(row["call_uniqueid"], []).append(row["leg"])
    assert len(numbers) == calls
    assert all(sorted(found) == [1, 2, 3] for found in numbers.values())
    assert {(row["status"], row["owner"]) for row in rows} == {("completed", "ann")}
    assert (site.recorder.waiting(), site.recorder.reasons()) == ([], [])
    site.recorder.assert_side_cars_tell_the_same()


# --- kill -9 ---


def test_a_rebuild_killed_at_any_moment_is_finished_by_the_next(
    site: LosableSite,
    is_long: bool,
    tell: Callable[[str], None],
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rebuild, "_BATCH", 2)
    site.set_up()
    site.record_everything()
    before, wanted = site.dump(), 200 if is_long else 5
    chance, killed, losses = random.Random(4711), 0, 0
    began = time.monotonic()
    assert exit_code(forked(site.rebuild_in_a_fork)) == 0
    whole = 2 * (time.monotonic() - began)

    while killed < wanted:
        site.lose()
        losses += 1
        assert losses <= 3 * wanted, f"only {killed} rebuilds met their end"
        while code := exit_code(forked(killed_rebuild(site, chance.uniform(0, whole)))):
            assert code == -signal.SIGALRM
            killed += 1
            whole *= 1.1  # so that the late steps are met, too, however fast this machine is just now
        whole *= 0.7
        assert site.dump() == before

    site.recorder.assert_side_cars_tell_the_same()
    legs = len(before["recording_leg"]) * losses
    tell(f"kill -9 of a rebuild, {backend}: {killed} kills, {legs} legs, 0 lost, 0 twice")


def killed_rebuild(site: LosableSite, seconds: float) -> Callable[[], None]:
    def work() -> None:
        die_after(seconds)
        site.rebuild_in_a_fork()

    return work


@only_sqlite
def test_a_rebuild_killed_before_its_side_cars_writes_them_the_next_time(
    site: LosableSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recordings have been moved, so the side-cars have something new to tell."""
    site.set_up()
    site.record_everything()
    site.lose()
    site.recordings = site.recordings.rename(tmp_path / "elsewhere")
    site.configure()

    def die(_: object) -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(sidecar, "write", die)
        assert exit_code(forked(site.rebuild_in_a_fork)) == -signal.SIGKILL
    assert len(site.recorder.legs()) == 10

    site.rebuild()

    site.recorder.assert_side_cars_tell_the_same()
