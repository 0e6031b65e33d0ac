"""`noojee-agi purge`: old audio goes, rows and side-cars stay, and nothing that is held ever goes."""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from lab.loaded_command import LoadedProcess, loaded
from lab.site import PROGRAMS
from lab.waiting import wait_until

from integration.losable import LosableSite
from integration.recorder import exit_code, forked
from noojee_agi.config import Config
from noojee_agi.database import queries
from noojee_agi.database.queries import Filter
from noojee_agi.recordings import recording, sidecar, spool
from noojee_agi.recordings.recording import Leg, Note
from noojee_agi.server import purging
from noojee_agi.sync import purge, rebuild

# What a file alone decides, whatever the database.
only_sqlite = pytest.mark.parametrize("backend", ["sqlite"])


@pytest.fixture
def site(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LosableSite:
    for name in ("SUDO_USER", "LOGNAME"):
        monkeypatch.setenv(name, "lena")
    made = LosableSite(tmp_path, database_url, lambda: None)
    made.set_up()
    return made


_NUMBERS = itertools.count()


def days_ago(days: float) -> Any:
    return recording.now() - timedelta(days=days)


def old(site: LosableSite, days: float = 100, **changes: Any) -> Leg:
    """A recording of a call of its own."""
    return site.completed(started_at=days_ago(days), call_uniqueid=f"17.{next(_NUMBERS)}", **changes)


def purged(site: LosableSite, *words: str) -> str:
    done = site.run("purge", "--older-than", "90d", *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def started(site: LosableSite, *words: str) -> LoadedProcess:
    """`noojee-agi WORDS` in another process, which says nothing."""
    with open(os.devnull, "r+b") as null:
        return loaded(PROGRAMS / "noojee-agi").start(words, site.environment, [null.fileno()] * 3)


def run(site: LosableSite) -> purge.Result:
    """As the command does, in this process."""
    wanted = Filter(started_to=days_ago(90))
    return purge.run(site.store, Config.load(str(site.conf)), wanted, "a test", lambda count: None)


def assert_purged(site: LosableSite, leg: Leg) -> None:
    row = site.recorder.the_leg(leg)
    assert (row["file"], row["purged_file"], row["purged_at"] is not None) == ("", leg.file, True)
    assert not os.path.exists(leg.file)
    assert not os.path.exists(f"{leg.file}.purging")
    told = sidecar.read(sidecar.path_for(leg.file))
    assert (told["purged_at"], told["events"][-1]["what"]) == (row["purged_at"], "purged")


def assert_is_there(site: LosableSite, leg: Leg) -> None:
    row = site.recorder.the_leg(leg)
    assert (row["file"], row["purged_at"]) == (leg.file, None)
    assert os.path.exists(leg.file)


def test_old_audio_goes_and_row_and_side_car_say_when_and_who(site: LosableSite) -> None:
    first, second, young = old(site), old(site, 91), old(site, 89)

    said = purged(site)

    assert said.startswith("2 recordings purged, ")
    assert_purged(site, first)
    assert_purged(site, second)
    assert_is_there(site, young)
    with site.store.reading() as connection:
        (leg,) = queries.whole_legs(connection, [first.id])
    assert (leg["events"][-1]["login"], leg["events"][-1]["reason"]) == (None, "older than 90d (by lena)")
    site.recorder.assert_side_cars_tell_the_same()
    assert purged(site) == "0 recordings purged, 0 bytes\n"


@only_sqlite
def test_what_somebody_has_made_of_it_goes_with_it(site: LosableSite) -> None:
    first = old(site)
    made = [Path(first.file).with_suffix(suffix) for suffix in (".mp3", ".txt")]
    for path in made:
        path.write_bytes(b"made of it")

    purged(site)

    assert_purged(site, first)
    assert [path.exists() for path in made] == [False, True]


def test_what_was_purged_comes_back_as_that_with_a_rebuild(site: LosableSite) -> None:
    leg = old(site)
    purged(site)
    before, side_car = site.recorder.the_leg(leg), Path(sidecar.path_for(leg.file)).read_text()
    with site.store.transaction() as connection:
        for table in ("recording_event", "recording_leg", "call_record"):
            connection.exec_driver_sql(f"DELETE FROM {table}")

    site.rebuild()

    assert site.recorder.the_leg(leg) == before
    assert Path(sidecar.path_for(leg.file)).read_text() == side_car


def test_a_dry_run_says_what_would_go_and_touches_nothing(site: LosableSite) -> None:
    leg = old(site, tag="INV-22")
    before = site.dump(), site.files()

    said = purged(site, "--dry-run")

    assert leg.id in said
    assert said.splitlines()[-1].startswith("1 recordings would be purged, ")
    assert (site.dump(), site.files()) == before


def test_only_what_the_filters_say_goes(site: LosableSite) -> None:
    mine = old(site, tag="INV-22", agent_login_name="fred", agent_known=True)
    others = [
        old(site, tag="INV-23", agent_login_name="fred", agent_known=True),
        old(site, tag="INV-22", agent_login_name="ann", agent_known=True),
    ]

    purged(site, "--tag", "INV-22", "--owner", "fred", "--status", "completed")

    assert_purged(site, mine)
    for leg in others:
        assert_is_there(site, leg)


@only_sqlite
def test_an_age_that_is_none_is_refused(site: LosableSite) -> None:
    for age in ("", "90", "0d", "-1d", "90days", "d"):
        done = site.run("purge", "--older-than", age)

        assert done.returncode == 1
        assert "give days, such as 90d" in done.stderr


def test_the_server_purges_what_is_older_than_keep_days(tmp_path: Path) -> None:
    site = LosableSite(tmp_path, f"sqlite:///{tmp_path}/noojee.db", lambda: None)
    site.set_up()
    leg, young, held = old(site, 31), old(site, 29), old(site, 32)
    site.recorder.store_all(Note(held.id, days_ago(1), "held", "lena", "court"))
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # for the socket's path (unix(7))
        site.conf.write_text(
            site.conf.read_text().replace("[state]", "keep_days = 30\n[state]")
            + f"listen =\nsocket = {short}/agi.sock\n"
        )
        with started(site, "serve") as server:
            wait_until(lambda: site.recorder.the_leg(leg)["purged_at"], 30, "the purge")
            wait_until(lambda: "1 recordings purged" in site.log(), 20, "its line in the log")
            server.terminate()
            assert server.wait(60) == 0

    assert_purged(site, leg)
    assert_is_there(site, young)
    assert_is_there(site, held)
    with site.store.reading() as connection:
        (row,) = queries.whole_legs(connection, [leg.id])
    assert row["events"][-1]["reason"] == "keep_days = 30"


def test_without_keep_days_nothing_goes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "run", pytest.fail)

    purging.Purging().run_if_due(Config())


def test_holds_that_race_with_a_purge_are_refused_or_keep_the_audio(site: LosableSite) -> None:
    """At the same moment, in other processes: a hold that was said to be done is one."""
    with site.recorder.together():
        legs = [old(site, 95 + number) for number in range(6)]
    holds = {leg.id: started(site, "recordings", "hold", leg.id, "--reason", "court") for leg in legs}
    purges = [started(site, "purge", "--older-than", "90d") for _ in range(2)]

    ends = {leg_id: process.wait(120) for leg_id, process in holds.items()}
    assert [process.wait(120) for process in purges] == [0, 0]

    site.sync()
    for leg in legs:
        if ends[leg.id] == 0:
            assert_is_there(site, leg)
            assert site.recorder.the_leg(leg)["held"]
        else:
            assert not os.path.exists(leg.file)
    site.recorder.assert_side_cars_tell_the_same()


# --- what never goes ---


def test_what_is_held_never_goes_and_goes_after_its_release(site: LosableSite) -> None:
    leg = old(site)
    site.recorder.store_all(Note(leg.id, days_ago(1), "held", "lena", "court"))

    assert purged(site).startswith("0 recordings")
    assert_is_there(site, leg)

    site.recorder.store_all(Note(leg.id, recording.now(), "released", "lena", "settled"))
    assert purged(site).startswith("1 recordings")
    assert_purged(site, leg)


def test_a_hold_that_waits_in_the_spool_counts(site: LosableSite) -> None:
    leg, other = old(site), old(site, 101)
    site.recorder.put(Note(leg.id, recording.now(), "held", "lena", "court"))

    assert run(site).purged == 1  # without a drain before

    assert_is_there(site, leg)
    assert_purged(site, other)


def test_a_hold_that_comes_between_the_look_and_the_purge_counts(
    site: LosableSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as from another host: it is in the database before ours locks the leg's call."""
    leg = old(site)
    due = purge.due

    def held_meanwhile(*words: Any) -> Iterator[purge.Row]:
        found = list(due(*words))
        site.recorder.store_all(Note(leg.id, recording.now(), "held", "lena", "court"))
        yield from found

    monkeypatch.setattr(purge, "due", held_meanwhile)

    assert run(site).purged == 0
    assert_is_there(site, leg)


def test_a_leg_that_records_never_goes(site: LosableSite) -> None:
    leg = site.running(started_at=days_ago(100))

    assert run(site).purged == 0
    assert_is_there(site, leg)


@only_sqlite
def test_a_file_that_is_written_to_never_goes(site: LosableSite) -> None:
    leg = old(site)

    with open(leg.file, "ab"):
        assert run(site).left_alone == {leg.file: "it is being written"}

    assert_is_there(site, leg)


@only_sqlite
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_never_goes(site: LosableSite) -> None:
    leg = old(site)
    os.chown(leg.file, 12345, -1)

    done = site.run("purge", "--older-than", "90d")

    assert done.returncode == 1
    assert f"{leg.file} is left alone: it belongs to another user" in done.stderr
    assert_is_there(site, leg)


def test_what_a_database_that_is_shared_names_elsewhere_never_goes(site: LosableSite, tmp_path: Path) -> None:
    daemon = tmp_path / "recordings/daemon.wav"
    other = tmp_path / "2026/03/01/17.1-0e5f6b1c.wav"
    foreign = site.recordings / "2026/03/01/17.1-ffffffff.wav"
    for path in (daemon, other, foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"RIFF")
        leg = old(site)
        with site.store.transaction() as connection:
            connection.exec_driver_sql(f"UPDATE recording_leg SET file = '{path}' WHERE id = '{leg.id}'")

    assert set(run(site).left_alone) == {str(daemon), str(foreign)}  # other is none of this machine's

    assert daemon.exists()
    assert other.exists()
    assert foreign.exists()


def test_a_leg_of_another_host_stays(site: LosableSite) -> None:
    leg = old(site)
    os.rename(leg.file, f"{leg.file}.elsewhere")  # as if its disk were there

    assert run(site).purged == 0
    assert site.recorder.the_leg(leg)["purged_at"] is None


def test_files_that_are_being_purged_are_no_strangers(site: LosableSite) -> None:
    leg = old(site)
    os.rename(leg.file, f"{leg.file}.purging")

    assert list(rebuild.files_without_side_car(site.store, str(site.recordings))) == []


# --- killed at each line ---

_OURS = ("sync/purge.py", "recordings/files.py", "recordings/sidecar.py", "database/notes.py")


def killed_at(site: LosableSite, number: int) -> bool:
    """Purge in a process that is killed before the line of this number; whether there are so many lines."""

    def work() -> None:
        seen = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal seen
            if not frame.f_code.co_filename.endswith(_OURS):
                return None
            if event == "line":
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), 9)
            return trace

        sys.settrace(trace)
        run(site)

    return exit_code(forked(work)) == -9


def test_a_purge_that_is_killed_at_any_line_is_brought_to_an_end_by_the_next(
    site: LosableSite, backend: str, is_long: bool, tell: Callable[[str], None]
) -> None:
    number, kills = 1, 0
    step = 1 if is_long else {"sqlite": 12, "postgresql": 31}[backend]
    held = old(site)
    site.recorder.store_all(Note(held.id, days_ago(1), "held", "lena", "court"))
    while True:
        with site.recorder.together():
            legs = [old(site, 95), old(site, 96)]
        if not killed_at(site, number):
            break
        kills += 1
        assert_is_there(site, held)
        for leg in legs:  # meanwhile: the audio is there, under one name or the other, or the row says purged
            row = site.recorder.the_leg(leg)
            there = [path for path in (leg.file, f"{leg.file}.purging") if os.path.exists(path)]
            assert there or row["purged_at"]
            assert not (row["purged_at"] and os.path.exists(leg.file))

        run(site)

        for leg in legs:
            assert_purged(site, leg)
        assert_is_there(site, held)
        number += step
    assert kills > 10
    site.recorder.assert_side_cars_tell_the_same()
    tell(f"kill -9 of a purge, {backend}: {kills} kills at {number} lines, 0 half purged, 0 held ones gone")


@only_sqlite
def test_a_file_that_was_renamed_by_a_purge_that_was_not_committed_gets_its_name_back(
    site: LosableSite,
) -> None:
    leg = old(site, 10)  # not due by now
    os.rename(leg.file, f"{leg.file}.purging")

    run(site)

    assert_is_there(site, leg)


@only_sqlite
def test_on_a_full_disk_the_audio_goes_before_the_side_car_is_written(
    site: LosableSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = old(site)
    write = sidecar.write

    def write_if_there_is_room(row: dict[str, Any]) -> bool:
        return os.stat(f"{leg.file}.purging").st_size == 0 and write(row)

    monkeypatch.setattr(sidecar, "write", write_if_there_is_room)
    assert run(site).purged == 1
    monkeypatch.setattr(sidecar, "write", write)
    assert_purged(site, leg)

    second = old(site)
    monkeypatch.setattr(sidecar, "write", lambda row: False)
    run(site)
    assert os.path.exists(f"{second.file}.purging")
    monkeypatch.setattr(sidecar, "write", write)
    run(site)
    assert_purged(site, second)


@only_sqlite
def test_an_empty_folder_goes(site: LosableSite) -> None:
    leg = old(site)
    day = Path(leg.file).parent
    assert json.loads(Path(sidecar.path_for(leg.file)).read_text())["id"] == leg.id

    purge._remove_empty(str(day))
    assert day.exists()  # the side-car is there

    Path(sidecar.path_for(leg.file)).unlink()
    os.unlink(leg.file)
    purge._remove_empty(str(day))
    assert not day.exists()


@only_sqlite
def test_a_purge_waits_for_a_drain_that_is_at_work(site: LosableSite) -> None:
    leg = old(site)
    with spool.lock(site.recorder.spool):
        command = started(site, "purge", "--older-than", "90d")
        assert_is_there(site, leg)
    assert command.wait(60) == 0
    assert_purged(site, leg)
