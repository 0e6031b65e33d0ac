"""Another recordings directory, another server's name: what began before is brought to its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from lab.site import PROGRAMS, Site
from lab.unavailable import LabUnavailable

from integration.recorder import CALL_TIME, Recorder, after, ended
from integration.silent_legs import put_cut_off_leg, write_audio
from noojee_agi import cli
from noojee_agi.actions.finish_record import finish_record
from noojee_agi.cli import check
from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.recordings import history
from noojee_agi.recordings.recording import Leg
from noojee_agi.server import tending
from noojee_agi.server.counters import Counters
from noojee_agi.server.drain_process import DrainProcess
from noojee_agi.sync import __main__ as background_drain
from noojee_agi.sync import housekeeping


@dataclass
class Machine:
    """One with a configuration that changes. first: the recordings directory that it begins with."""

    first: Recorder
    conf: Path
    state: Path

    def configure(self, directory: Path, name: str = "pbx1") -> None:
        url = self.first.store.engine.url.render_as_string(hide_password=False)
        self.conf.write_text(
            f"[database]\nurl = {url}\n[recordings]\ndirectory = {directory}\nmin_free_percent = 0\n"
            f"[state]\ndirectory = {self.state}\n[server]\nname = {name}\n"
        )

    def second(self) -> Recorder:
        """Another directory, with the same database."""
        return Recorder(self.first.store, self.first.directory.with_name("second"))

    @property
    def config(self) -> Config:
        return Config.load(str(self.conf))

    def failed_stages(self) -> dict[str, str]:
        return {stage.name: stage.text for stage in check.stages(self.config, "/x") if stage.has_failed}

    def stage(self, name: str) -> str:
        return next(stage.text for stage in check.stages(self.config, "/x") if stage.name == name)


@pytest.fixture
def machine(recorder: Recorder, tmp_path: Path) -> Machine:
    (tmp_path / "state").mkdir(mode=0o750)
    machine = Machine(recorder, tmp_path / "noojee_agi.conf", tmp_path / "state")
    machine.configure(recorder.directory)
    return machine


def by_drain(machine: Machine) -> None:
    background_drain.main(str(machine.conf))


def by_sync(machine: Machine, *words: str) -> str:
    umask = os.umask(0)
    try:
        done = CliRunner(env={"NOOJEE_AGI_CONF": str(machine.conf)}).invoke(cli.cli, ["sync", *words])
    finally:
        os.umask(umask)
    assert done.exit_code == 0, done.output
    return done.output


def by_server(machine: Machine) -> None:
    known = machine.config
    DrainProcess(lambda: known, known, -1, -1, Counters(1), [])._drain(is_last=True)


# History, folders, their owners and the host's name are the same whatever the database is.
of_folders = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
every_way = pytest.mark.parametrize("work", [by_drain, by_sync, by_server])


def put_running_leg(recorder: Recorder, uniqueid: str, **changes: object) -> Leg:
    """A call that has just begun: its file is there, and nobody thinks that it has ended."""
    leg = recorder.leg(call_uniqueid=uniqueid, **changes)
    write_audio(leg.file)
    os.utime(leg.file)
    recorder.put(leg)
    return leg


# --- another directory ---


@every_way
def test_what_waits_in_former_spools_is_taken_in_to_and_fro(
    machine: Machine, work: Callable[[Machine], None]
) -> None:
    """A -> B -> A; each time a call goes on in the former directory, and one waits there, unknown yet."""
    first, second = machine.first, machine.second()
    legs = []
    for number, (here, there) in enumerate([(first, second), (second, first), (first, second)]):
        running = put_running_leg(here, f"17.{number}")
        work(machine)
        waiting = here.leg(call_uniqueid=f"18.{number}")
        here.put(waiting, ended(waiting))
        machine.configure(there.directory)
        work(machine)
        finish_record(running.id, running.file)
        work(machine)
        legs += [running, waiting]

    assert [first.the_leg(leg)["status"] for leg in legs] == ["completed"] * 6
    assert (first.waiting(), second.waiting()) == ([], [])
    first.assert_side_cars_tell_the_same()


def test_legs_that_are_open_in_the_former_directory_are_closed(machine: Machine) -> None:
    leg = put_cut_off_leg(machine.first)
    by_drain(machine)
    assert machine.first.the_leg(leg)["status"] == "interrupted"
    leg = put_cut_off_leg(machine.first, call_uniqueid="17.2")
    second = machine.second()
    machine.configure(second.directory)

    by_drain(machine)

    assert machine.first.the_leg(leg)["status"] == "interrupted"


@of_folders
def test_check_says_what_waits_where_recordings_were_kept_before(machine: Machine) -> None:
    by_drain(machine)
    machine.first.put(machine.first.leg())
    machine.configure(machine.second().directory)
    by_drain(machine)
    machine.first.put(machine.first.leg())

    said = machine.stage("former spools")
    assert said.startswith(f"1 events wait in {machine.first.spool}, the oldest for too long: ")


@of_folders
def test_a_former_directory_that_is_not_there_is_named_and_keeps_nothing_back(machine: Machine) -> None:
    by_drain(machine)
    second = machine.second()
    machine.configure(second.directory)
    machine.first.directory.rename(machine.first.directory.with_name("unmounted"))
    leg = second.leg()
    second.put(leg, ended(leg))

    by_drain(machine)

    assert second.the_leg(leg)["status"] == "completed"
    assert str(machine.first.directory) in machine.failed_stages()["former spools"]
    assert f"{machine.first.directory} is not what it was" in (machine.state / "noojee-agi.log").read_text()
    assert not machine.first.directory.exists()


@of_folders
def test_a_server_tells_once_of_a_former_directory_that_is_not_there(machine: Machine) -> None:
    by_drain(machine)
    machine.configure(machine.second().directory)
    machine.first.directory.rename(machine.first.directory.with_name("unmounted"))
    known = machine.config
    drain_process = DrainProcess(lambda: known, known, -1, -1, Counters(1), [])

    for _ in range(3):
        drain_process._tending._silent_legs_at = 0.0
        drain_process._drain(is_last=False)

    assert Path(known.log_file).read_text().count("is not what it was") == 1


@of_folders
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_former_spool_of_another_user_is_named_and_left_alone(machine: Machine) -> None:
    by_drain(machine)
    machine.first.put(machine.first.leg())
    os.chown(machine.first.spool, 65534, 65534)
    machine.configure(machine.second().directory)

    by_drain(machine)

    assert len(machine.first.waiting()) == 1
    assert "belongs to another user" in machine.failed_stages()["former spools"]


@every_way
def test_a_former_disk_that_hangs_holds_one_process_and_no_event(
    machine: Machine, work: Callable[[Machine], None]
) -> None:
    """Another process hangs there, and has the lock; what waits here is stored all the same."""
    leg = machine.first.leg()
    machine.first.put(leg, ended(leg))

    with history.tending(str(machine.state)) as ours:
        assert ours
        assert housekeeping.run(machine.first.store, machine.config).busy
        work(machine)

    assert machine.first.the_leg(leg)["status"] == "completed"
    assert not housekeeping.run(machine.first.store, machine.config).busy


@of_folders
def test_a_server_drains_beside_a_former_disk_that_hangs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, answers = machine.config, threading.Event()
    begun: list[int] = []

    def hang(*_: object) -> housekeeping.Result:
        begun.append(1)
        answers.wait(60)
        return housekeeping.Result()

    monkeypatch.setattr(housekeeping, "run", hang)
    monkeypatch.setattr(tending, "_WAIT_SECONDS", 0.1)
    drain_process = DrainProcess(lambda: known, known, -1, -1, Counters(1), [])

    for number in range(3):
        drain_process._tending._silent_legs_at = 0.0
        machine.first.put(machine.first.leg(call_uniqueid=f"17.{number}"))
        drain_process._drain(is_last=False)

    assert (len(machine.first.legs()), begun) == (3, [1])
    answers.set()


@of_folders
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_the_spool_in_use_may_seem_another_user_s(machine: Machine) -> None:
    """As on NFS with all_squash (exports(5)), where we can work all the same."""
    by_drain(machine)
    os.chown(machine.first.spool, 65534, 65534)

    assert housekeeping.run(machine.first.store, machine.config).problems == []


@of_folders
def test_what_a_former_spool_has_set_aside_is_named_and_tried_again(machine: Machine) -> None:
    leg = machine.first.leg()
    machine.first.put(ended(leg))
    by_drain(machine)
    machine.configure(machine.second().directory)
    by_drain(machine)
    assert machine.first.spool in machine.failed_stages()["rejected"]
    machine.first.put(leg)

    said = by_sync(machine, "--retry-rejected")

    assert "2 events stored that waited where recordings were kept before" in said
    assert machine.first.the_leg(leg)["status"] == "completed"


def leave_open(machine: Machine) -> None:
    put_running_leg(machine.first, "17.1")
    machine.first.drain()


def leave_rejected(machine: Machine) -> None:
    machine.first.put(ended(machine.first.leg()))
    machine.first.drain()


def leave_nothing(machine: Machine) -> None:
    pass


@of_folders
@pytest.mark.parametrize(
    ("leave", "is_quiet", "is_kept"),
    [
        (leave_nothing, True, False),
        (leave_nothing, False, True),
        (leave_open, True, True),
        (leave_rejected, True, True),
    ],
)
def test_a_former_directory_is_forgotten_when_nothing_can_come_of_it(
    machine: Machine, leave: Callable[[Machine], None], is_quiet: bool, is_kept: bool
) -> None:
    by_drain(machine)
    leave(machine)
    if is_quiet:
        os.utime(machine.first.spool, (CALL_TIME.timestamp(),) * 2)
    machine.configure(machine.second().directory)

    by_drain(machine)

    kept = history.load(str(machine.state)).former(str(machine.second))
    assert (str(machine.first.directory) in kept) is is_kept


@of_folders
def test_a_state_directory_that_cannot_be_written_is_told_and_keeps_nothing_back(machine: Machine) -> None:
    leg = put_cut_off_leg(machine.first)
    shutil.rmtree(machine.state)
    known = machine.config._replace(state_directory="/nonexistent")

    assert housekeeping.run(machine.first.store, known).closed == 1

    assert machine.first.the_leg(leg)["status"] == "interrupted"


# --- another name ---


@every_way
def test_legs_that_are_open_under_a_former_name_are_closed_to_and_fro(
    machine: Machine, work: Callable[[Machine], None]
) -> None:
    for number, (now, then) in enumerate([("pbx1", "sales"), ("sales", "pbx1"), ("pbx1", "sales")]):
        machine.configure(machine.first.directory, now)
        work(machine)
        leg = put_cut_off_leg(machine.first, call_uniqueid=f"17.{number}", server=now)
        machine.configure(machine.first.directory, then)

        work(machine)

        row = machine.first.the_leg(leg)
        assert (row["status"], row["server"]) == ("interrupted", now)


def test_a_name_that_another_host_has_now_is_that_host_s(machine: Machine) -> None:
    by_drain(machine)
    machine.configure(machine.first.directory, "sales")
    by_drain(machine)
    theirs = put_cut_off_leg(machine.first, started_at=after(10**9))

    by_drain(machine)

    assert machine.first.the_leg(theirs)["status"] == "recording"


@of_folders
def test_a_host_that_is_really_renamed_closes_its_legs_and_stays_the_same_server(
    database_url: str, tmp_path: Path
) -> None:
    """With the kernel's own host name, in a namespace of the test (uts_namespaces(7))."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise LabUnavailable("a host name of one's own needs root and unshare")
    site = Site(tmp_path / "site", database_url)

    def called(name: str, *words: str) -> str:
        script = 'hostname "$0" 2>/dev/null || echo "$0" > /proc/sys/kernel/hostname; exec "$@"'
        command = ["unshare", "--uts", "sh", "-c", script, name, str(PROGRAMS / "noojee-agi"), *words]
        return subprocess.run(
            command, env={**os.environ, **site.environment}, capture_output=True, text=True, check=False
        ).stdout

    called("pbx1", "sync")
    recorder = Recorder(Store(site.database_url), tmp_path / "recorder")
    leg = put_cut_off_leg(recorder)
    assert recorder.the_leg(leg)["server"] == "pbx1"

    said = called("pbx2", "sync")

    assert "1 legs closed" in said
    assert recorder.the_leg(leg)["status"] == "interrupted"
    assert "pbx1, which was this host's name at first, not pbx2" in called("pbx2", "check")
