"""The disk of the recordings is not mounted when sync runs: no leg is given up, and nothing is put there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from lab.small_disk import small_disk
from lab.umask import kept_umask

from integration.recorder import Recorder, after
from integration.silent_legs import write_audio
from noojee_agi import cli
from noojee_agi.cli import check
from noojee_agi.config import Config
from noojee_agi.recordings import history, recording
from noojee_agi.recordings.recording import Ending, Leg
from noojee_agi.sync import closing, housekeeping

RECENTLY = recording.now() - timedelta(hours=1)


@pytest.fixture
def config(recorder: Recorder, tmp_path: Path) -> Config:
    """Of the recorder's folder, which a drain has used before."""
    (tmp_path / "state").mkdir(mode=0o750)
    conf = tmp_path / "noojee_agi.conf"
    conf.touch(mode=0o640)
    config = Config(
        path=str(conf),
        database_url=recorder.store.engine.url.render_as_string(hide_password=False),
        recordings_directory=str(recorder.directory),
        recordings_min_free_percent=0,
        state_directory=str(tmp_path / "state"),
        server_name="pbx1",
    )
    housekeeping.run(recorder.store, config)
    return config


def unmount(recorder: Recorder) -> Path:
    """What is left of the disk's folder is the bare mount point; returns where the disk is now."""
    aside = recorder.directory.with_name("unmounted")
    recorder.directory.rename(aside)
    recorder.directory.mkdir(mode=0o750)
    return aside


def mount(recorder: Recorder, disk: Path) -> None:
    recorder.directory.rename(recorder.directory.with_name(f"below-{disk.name}"))
    disk.rename(recorder.directory)


def put_cut_off_leg(recorder: Recorder) -> Leg:
    """That of a host which lost its power an hour ago."""
    leg = recorder.leg(started_at=RECENTLY)
    write_audio(leg.file, is_closed=False)
    recorder.store_all(leg)
    return leg


def failed_stages(config: Config) -> dict[str, str]:
    return {stage.name: stage.text for stage in check.stages(config, "/nonexistent") if stage.has_failed}


def run_sync(config: Config, *words: str) -> tuple[int, str]:
    assert config.path
    Path(config.path).write_text(
        f"[database]\nurl = {config.database_url}\n[recordings]\ndirectory = {config.recordings_directory}\n"
        f"[state]\ndirectory = {config.state_directory}\n[server]\nname = {config.server_name}\n"
    )
    with kept_umask():
        done = CliRunner(env={"NOOJEE_AGI_CONF": config.path}).invoke(cli.cli, ["sync", *words])
    return done.exit_code, done.output


def test_a_leg_whose_folder_is_not_there_stays_open_until_it_is(recorder: Recorder, config: Config) -> None:
    """Such as a year on a disk of its own."""
    leg = put_cut_off_leg(recorder)
    year = recorder.directory / leg.file[len(str(recorder.directory)) + 1 :].split("/")[0]
    year.rename(year.with_name("elsewhere"))

    done = housekeeping.run(recorder.store, config)

    assert (done.closed, recorder.the_leg(leg)["status"]) == (0, "recording")
    assert "1 legs stay open" in done.problems[0]
    assert os.path.dirname(leg.file) in failed_stages(config)["open legs"]
    assert not year.exists()
    year.with_name("elsewhere").rename(year)
    assert housekeeping.run(recorder.store, config).closed == 1
    assert recorder.the_leg(leg)["status"] == "interrupted"
    assert recorder.the_leg(leg)["duration_seconds"] == 1.0


def test_a_leg_whose_folder_is_there_without_its_file_has_failed(recorder: Recorder, config: Config) -> None:
    leg = recorder.leg()
    recorder.store_all(leg)

    assert housekeeping.run(recorder.store, config).closed == 1

    assert recorder.the_leg(leg)["status"] == "failed"


@pytest.mark.parametrize("calls_came", [False, True])
def test_sync_over_a_bare_mount_point_gives_up_no_leg_and_makes_nothing(
    recorder: Recorder, config: Config, calls_came: bool
) -> None:
    """calls_came: recorded below the mount point, so that a spool and the day's folder are there."""
    leg = put_cut_off_leg(recorder)
    disk = unmount(recorder)
    if calls_came:
        recorder.put(recorder.leg(started_at=RECENTLY, call_uniqueid="17.2"))
    below = sorted(recorder.directory.iterdir())

    code, said = run_sync(config)

    assert code == 1
    assert f"{recorder.directory} is not what it was" in said
    assert "mount" in failed_stages(config)["recordings"].lower()
    assert sorted(recorder.directory.iterdir()) == below
    assert recorder.the_leg(leg)["status"] == "recording"
    assert recorder.waiting() == []  # what came there is stored all the same
    assert len(recorder.legs()) == 1 + calls_came
    code, said = run_sync(config, "--rebuild")
    assert (code, "is not what it was" in said) == (1, True)
    mount(recorder, disk)
    code, said = run_sync(config)
    assert (code, recorder.the_leg(leg)["status"]) == (0, "interrupted")


def test_a_disk_that_is_gone_for_good_is_taken_out_by_its_line(recorder: Recorder, config: Config) -> None:
    unmount(recorder)
    path = Path(history.path_in(config.state_directory))
    assert str(path) in housekeeping.run(recorder.store, config).problems[0]

    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.endswith(f"{recorder.directory}\n")))

    assert housekeeping.run(recorder.store, config).problems == []


def put_failed_leg(recorder: Recorder, **changes: object) -> Leg:
    """One that was given up although its file is there, as by the versions before this one."""
    leg = recorder.leg(**{"started_at": RECENTLY, **changes})
    recorder.store_all(leg, Ending(leg.id, "failed", recording.now()))
    assert recorder.the_leg(leg)["status"] == "failed"
    return leg


def test_failed_legs_whose_file_appears_get_their_true_status(recorder: Recorder, config: Config) -> None:
    legs = [put_failed_leg(recorder, call_uniqueid=f"17.{number}") for number in range(5)]
    closed, cut, silent, written, _ = legs
    write_audio(closed.file)
    write_audio(cut.file, is_closed=False)
    Path(silent.file).write_bytes(b"")
    os.utime(silent.file, (after(60).timestamp(),) * 2)
    Path(written.file).write_bytes(b"just now")

    assert housekeeping.run(recorder.store, config).closed == 0, "each call's drain need not look"
    assert housekeeping.run(recorder.store, config, failed_since=housekeeping.LATELY).closed == 3

    expected = ["completed", "interrupted", "interrupted", "failed", "failed"]
    assert [recorder.the_leg(leg)["status"] for leg in legs] == expected
    assert recorder.the_leg(cut)["duration_seconds"] == recorder.the_leg(closed)["duration_seconds"] == 1.0
    assert {call["ended_at"] for call in recorder.calls() if call["uniqueid"] in ("17.0", "17.1")} == {
        after(60)
    }
    assert housekeeping.run(recorder.store, config, failed_since=housekeeping.LATELY).closed == 0
    recorder.assert_side_cars_tell_the_same()


def test_sync_looks_at_those_of_a_week_and_rebuild_at_all(recorder: Recorder, config: Config) -> None:
    legs = [
        put_failed_leg(recorder, started_at=start, call_uniqueid=str(start)) for start in (RECENTLY, after(0))
    ]
    for leg in legs:
        write_audio(leg.file)

    run_sync(config)
    assert [recorder.the_leg(leg)["status"] for leg in legs] == ["completed", "failed"]
    run_sync(config, "--rebuild")
    assert [recorder.the_leg(leg)["status"] for leg in legs] == ["completed", "completed"]


def test_failed_legs_of_another_server_are_left_alone(recorder: Recorder, config: Config) -> None:
    leg = put_failed_leg(recorder, server="pbx2")
    write_audio(leg.file)

    housekeeping.run(recorder.store, config, failed_since=housekeeping.LATELY)

    assert recorder.the_leg(leg)["status"] == "failed"


def test_each_folder_of_failed_legs_is_read_once(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: read.append(path) or listdir(path))  # type: ignore[func-returns-value]
    legs = [recorder.leg() for _ in range(100)]

    closing.with_file(recording.OpenLeg(leg.id, leg.file, leg.started_at) for leg in legs)

    assert read == [os.path.dirname(legs[0].file)]


@pytest.fixture
def disk(recorder: Recorder) -> Iterator[Path]:
    """A real disk, which is not mounted at the recordings' folder yet."""
    with small_disk(1_000_000) as disk:
        yield disk


@pytest.mark.parametrize("is_used", [False, True])
def test_a_disk_that_is_mounted_after_the_first_sync_is_the_one_that_counts(
    recorder: Recorder, config: Config, disk: Path, is_used: bool
) -> None:
    """is_used: there are recordings of a version that gave no spool its identity."""
    there = str(recorder.directory)
    disk.chmod(0o750)
    if is_used:
        (disk / "2026").mkdir()
        (disk / ".spool").mkdir()
    subprocess.run(["mount", "--bind", str(disk), there], check=True)
    try:
        assert run_sync(config)[0] == 0
        assert "recordings" not in failed_stages(config)
    finally:
        subprocess.run(["umount", "--lazy", there], check=True)

    assert f"{there} is not what it was" in run_sync(config)[1], "it is the bare mount point again"


def test_the_same_on_a_disk_that_is_really_unmounted(recorder: Recorder, config: Config, disk: Path) -> None:
    there = str(recorder.directory)
    os.unlink(history.path_in(config.state_directory))
    subprocess.run(["mount", "--bind", str(disk), there], check=True)
    try:
        housekeeping.run(recorder.store, config)
        leg = put_cut_off_leg(recorder)
        subprocess.run(["umount", there], check=True)
        done = housekeeping.run(recorder.store, config)
        assert (done.closed, recorder.the_leg(leg)["status"]) == (0, "recording")
        assert f"{there} is not what it was" in done.problems[0]
    finally:
        subprocess.run(["mount", "--bind", str(disk), there], check=True)
        done = housekeeping.run(recorder.store, config)
        subprocess.run(["umount", "--lazy", there], check=True)

    assert (done.closed, done.problems) == (1, [])
    assert recorder.the_leg(leg)["status"] == "interrupted"
