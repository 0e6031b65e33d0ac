"""Faults in configuration, folders, files, database and spool: what check says, its cure, then all is well.

The cure is run as it is printed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command as alembic_command
from lab.checked import KEY, USER, Checked
from lab.hung_disk import hung_disk
from lab.site import PROGRAMS
from lab.small_disk import fill, small_disk

from integration.recorder import Recorder, ended
from noojee_agi.actions import access
from noojee_agi.cli.check import user
from noojee_agi.cli.check.stage import FAILED, NOT_SEEN, Stage
from noojee_agi.config import Config
from noojee_agi.database import queries, schema, settings, store
from noojee_agi.database.store import Store
from noojee_agi.recordings import history, recording, rejected
from noojee_agi.sync import drain

Plant = Callable[[Checked], object]


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="noojee-agi-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def well(top: Path, sqlite_template: Path) -> Checked:
    return Checked(top / "site", PROGRAMS, sqlite_template)


@pytest.fixture
def site(well: Checked) -> Checked:
    well.make_anew()
    return well


def cured(site: Checked, plant: Plant, stage: str, words: str) -> Stage:
    """Plant it, see what check says, do what it says, and see that all is well."""
    plant(site)
    failed = site.failed()
    assert set(failed) == {stage}, failed
    said = failed[stage]
    assert words in said.text
    assert said.text.endswith(said.cure)
    assert said.cure
    assert "\n" not in said.text
    site.cure(said.cure)
    assert site.failed() == {}
    return said


def to_root(name: str, mode: int | None = None) -> Plant:
    """Give it to root, with all below it."""

    def plant(site: Checked) -> None:
        path = site.folder / name
        if not path.exists():
            path.touch()
        site.give(path, "root")
        path.chmod(mode or (0o750 if path.is_dir() else 0o640))

    return plant


def _line(text: str) -> Plant:
    return lambda site: site.configure(f"[server]\nlisten =\n{text}\n")


def _today(site: Checked) -> list[Path]:
    """The folders of year, month and day."""
    file = recording.file_path(str(site.recordings), "", "", "wav", recording.now())
    day = Path(file).parent
    day.mkdir(parents=True)
    folders = [day.parent.parent, day.parent, day]
    for folder in folders:
        folder.chmod(0o750)
    site.give(folders[0])
    return folders


def _root_day(number: int) -> Plant:
    return lambda site: site.give(_today(site)[number], "root")


def _flat_day(site: Checked) -> None:
    _today(site)[2].chmod(0o600)


def _file_for_day(site: Checked) -> None:
    day = _today(site)[2]
    day.rmdir()
    day.touch()
    site.give(day)


def _password_for_all(site: Checked) -> None:
    site.configure("[server]\nlisten =\n[manager]\nsecret = hunter2\n")


def _closed_configuration(site: Checked) -> None:
    site.conf.chmod(0o600)


def _closed_folder_of_configuration(site: Checked) -> None:
    site.conf.parent.chmod(0o700)


def _open_to_a_group(site: Checked) -> None:
    site.conf.chmod(0o664)


def _open_folder_on_the_way(site: Checked) -> None:
    site.folder.chmod(0o775)


def _remove(name: str) -> Plant:
    return lambda site: shutil.rmtree(site.folder / name)


def _file_for(name: str) -> Plant:
    def plant(site: Checked) -> None:
        shutil.rmtree(site.folder / name)
        (site.folder / name).touch()

    return plant


def _link_to_nothing(site: Checked) -> None:
    shutil.rmtree(site.recordings)
    site.recordings.symlink_to(site.folder / "elsewhere")


def _open(name: str) -> Plant:
    return lambda site: (site.folder / name).chmod(0o755)


def _folder_for(name: str) -> Plant:
    def plant(site: Checked) -> None:
        (site.folder / name).unlink(missing_ok=True)
        (site.folder / name).mkdir()
        site.give(site.folder / name)

    return plant


def _link_for(name: str) -> Plant:
    def plant(site: Checked) -> None:
        (site.folder / name).unlink(missing_ok=True)
        (site.folder / name).symlink_to(site.conf)

    return plant


def _closed_to_its_owner(name: str) -> Plant:
    return lambda site: (site.folder / name).chmod(0o440)


def _broken_database(site: Checked) -> None:
    for path in site.state.glob("noojee.db*"):
        path.unlink()
    site.database.write_bytes(b"this is no database at all, " * 200)
    site.give(site.state)


def _former_schema(site: Checked) -> None:
    for path in site.state.glob("noojee.db*"):
        path.unlink()
    store, alembic = Store(site.url), schema.alembic_settings()
    with store.transaction() as connection:
        alembic.attributes["connection"] = connection
        alembic_command.upgrade(alembic, "0002")
        settings.set_key_digest(connection, access.digest(KEY))
    site.give(site.state)


def _in_database(statement: str) -> Plant:
    def plant(site: Checked) -> None:
        with sqlite3.connect(site.database) as connection:
            connection.execute(statement)
        site.give(site.state)

    return plant


def _waiting(site: Checked, age: timedelta = timedelta(0)) -> Recorder:
    """A leg that has begun and ended, and waits for the database."""
    recorder = Recorder(Store(site.url), site.folder / f"recorder-{time.monotonic_ns()}")
    recorder.directory = site.recordings
    recorder.spool = str(site.recordings / ".spool")
    leg = recorder.leg(started_at=recording.now() - age, server=os.uname().nodename)
    recorder.put(leg, ended(leg))
    site.give(site.recordings)
    return recorder


def _stuck(site: Checked) -> None:
    _waiting(site, timedelta(hours=1))


def _failed_drain(site: Checked) -> None:
    _waiting(site)
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + 1))
    line = f"{moment},123 ERROR 77 2 events wait in the spool: pg://x cannot be used: too many clients\n"
    (site.state / "noojee-agi.log").write_text(line)
    site.give(site.state)


def _refused(site: Checked) -> None:
    recorder = _waiting(site)
    line = (site.recordings / ".spool/journal").read_bytes().splitlines()[-1]
    rejected.set_aside(recorder.spool, line, "no such account")
    site.give(site.recordings)


def _refused_of_root(site: Checked) -> None:
    (site.recordings / ".spool/rejected").mkdir(mode=0o750)


def _former(site: Checked) -> None:
    """Events of an hour ago wait where recordings were kept before."""
    _stuck(site)
    site.recordings.rename(site.folder / "before")
    site.recordings.mkdir(mode=0o750)
    known = history.path_in(str(site.state))
    Path(known).write_text(Path(known).read_text().replace(f"{site.recordings}\n", f"{site.folder}/before\n"))
    site.give(site.recordings)


def _moved_by_somebody(site: Checked) -> None:
    """What our log has is ours, wherever it is now."""
    _two_hosts(site)
    with Store(site.url).reading() as connection:
        (leg,) = queries.legs(connection, queries.Filter())
    (site.state / "noojee-agi.log").write_text(f"start_record 200 OK: leg {leg['id']}, uniqueid 1.2\n")
    site.give(site.state)


def _gone_server(site: Checked) -> None:
    recorder = Recorder(Store(site.url), site.folder / f"gone-{time.monotonic_ns()}")
    leg = recorder.leg(server="pbx old", started_at=recording.now() - timedelta(days=3))
    recorder.put(leg)
    drain.run(recorder.store, recorder.spool)
    site.give(site.state)


def _two_hosts(site: Checked) -> None:
    """Another host has recorded something under our name a minute ago."""
    recorder = Recorder(Store(site.url), site.folder / f"other-{time.monotonic_ns()}")
    began = recording.now() - timedelta(minutes=2)
    leg = recorder.leg(server=os.uname().nodename, started_at=began)
    recorder.put(leg, ended(leg))
    drain.run(recorder.store, recorder.spool)
    shutil.rmtree(recorder.directory)
    site.give(site.state)


def _copied_machine(site: Checked) -> None:
    Path(history.path_in(str(site.state))).write_text("machine another\nhost pbx1\nserver - pbx1\n")


def _renamed_machine(site: Checked) -> None:
    path = Path(history.path_in(str(site.state)))
    path.write_text(path.read_text().replace(f"host {os.uname().nodename}", "host pbx-before"))


FAULTS: dict[str, tuple[Plant, str, str]] = {
    "unknown option": (_line("[recordings2]\nx = 1"), "configuration", "no such section"),
    "unknown option in a section": (_line("threats = 3"), "configuration", "no such option"),
    "value that is none": (_line("threads = many"), "configuration", "must be a number"),
    "comment behind a value": (_line("threads = 4 ; more"), "configuration", "comments go on lines of their"),
    "option twice": (_line("threads = 4\nthreads = 5"), "configuration", "is there twice in its section"),
    "no option = value": (_line("threads"), "configuration", "is no option = value"),
    "password for all": (_password_for_all, "configuration", "holds a password and everybody can read it"),
    "configuration of root alone": (_closed_configuration, "configuration", "cannot be read by user nobody"),
    "folder of the configuration": (_closed_folder_of_configuration, "configuration", "cannot be entered"),
    "configuration of a group": (_open_to_a_group, "configuration", "others can write there"),
    "way of a group": (_open_folder_on_the_way, "configuration", "others can write there"),
    "no recordings": (_remove("recordings"), "recordings", "is not there"),
    "file for the recordings": (_file_for("recordings"), "recordings", "is no folder"),
    "dangling link for the recordings": (_link_to_nothing, "recordings", "is not there"),
    "recordings of root": (to_root("recordings"), "recordings", "cannot be written by user nobody"),
    "recordings for all": (_open("recordings"), "recordings", "is open to every user"),
    "year of root": (_root_day(0), "recordings", "so no call is recorded today"),
    "month of root": (_root_day(1), "recordings", "so no call is recorded today"),
    "day of root": (_root_day(2), "recordings", "so no call is recorded today"),
    "day of umask 0177": (_flat_day, "recordings", "so no call is recorded today"),
    "file for the day": (_file_for_day, "recordings", "is no folder, so no call is recorded today"),
    "no state": (_remove("state"), "state", "is not there"),
    "state for all": (_open("state"), "state", "is open to every user"),
    "log of root": (to_root("state/noojee-agi.log"), "state", "noojee-agi.log belongs to user root"),
    "log is a link": (_link_for("state/noojee-agi.log"), "state", "noojee-agi.log is a link"),
    "snapshot of root": (to_root("state/snapshot.json", 0o600), "state", "json belongs to user root"),
    "folder for the snapshot": (_folder_for("state/snapshot.json"), "state", "snapshot.json is a folder"),
    "history of root": (to_root("state/history", 0o600), "state", "history belongs to user root"),
    "lock of the history": (to_root("state/history.lock"), "state", "history.lock belongs to user root"),
    "lock of tending": (to_root("state/tending.lock"), "state", "tending.lock belongs to user root"),
    "database of root": (to_root("state/noojee.db"), "database", "noojee.db belongs to user root"),
    "database for reading": (_closed_to_its_owner("state/noojee.db"), "database", "cannot write it"),
    "wal of root": (to_root("state/noojee.db-wal"), "database", "noojee.db-wal belongs to user root"),
    "shm of root": (to_root("state/noojee.db-shm"), "database", "noojee.db-shm belongs to user root"),
    "folder for the database": (_folder_for("state/noojee.db"), "database", "noojee.db is a folder"),
    "no database": (_broken_database, "database", "file is not a database"),
    "former schema": (_former_schema, "database", "has schema 0002, this program needs schema"),
    "no key": (_in_database("DELETE FROM system_variable"), "apiKey", "none is set, so no call is recorded"),
    "spool of root": (to_root("recordings/.spool"), "spool", "cannot be written by user nobody"),
    "file for the spool": (_file_for("recordings/.spool"), "spool", "is no folder"),
    "journal of root": (to_root("recordings/.spool/journal"), "spool", "journal belongs to user root"),
    "journal is a link": (_link_for("recordings/.spool/journal"), "spool", "journal is a link"),
    "taken journal of root": (to_root("recordings/.spool/journal.1"), "spool", "1 belongs to user root"),
    "lock of root": (to_root("recordings/.spool/.lock"), "spool", ".lock belongs to user root"),
    "folder of the refused": (_refused_of_root, "spool", "rejected cannot be written by user nobody"),
    "events that wait": (_stuck, "spool", "2 events wait, the oldest for too long"),
    "drain that fails": (_failed_drain, "drains", "(pg://x cannot be used: too many clients)"),
    "refused events": (_refused, "rejected", "1 events were refused by the database"),
    "former spool": (_former, "former spools", "2 events wait in"),
    "server that is gone": (_gone_server, "open legs", "1 legs of server pbx old, which has begun nothing"),
    "two hosts of one name": (_two_hosts, "server name", "is another host's name, too"),
    "copied machine": (_copied_machine, "server name", "is another machine's too (pbx1)"),
    "renamed machine": (_renamed_machine, "server name", "say which it is with [server] name"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_its_cure_leads_to_green(site: Checked, fault: str) -> None:
    cured(site, *FAULTS[fault])


def test_a_healthy_installation_has_no_fault(site: Checked) -> None:
    stages = {stage.name: stage for stage in site.look(is_real=True)}

    assert site.failed() == {}
    assert "user nobody" in stages["recordings"].text


def test_a_configuration_that_is_named_and_not_there(site: Checked) -> None:
    """An empty one has the defaults, whose folders are the next to be named."""
    site.conf.unlink()

    said = site.failed()
    assert set(said) == {"configuration"}
    assert "cannot be read: No such file or directory" in said["configuration"].text
    site.cure(said["configuration"].cure)

    assert "configuration" not in site.failed()


def test_an_asterisk_of_root_whose_recordings_are_anothers(site: Checked) -> None:
    """Its socket says whose it is, although only root may ask there."""
    run = site.folder / "run"
    run.mkdir()
    site.asterisk_conf.write_text(f"[directories]\nastrundir => {run}\n")
    with socket.socket(socket.AF_UNIX) as asterisk:
        asterisk.bind(str(run / "asterisk.ctl"))
        try:
            failed = site.failed()
            assert set(failed) == {"asterisk"}
            assert (
                f"Asterisk runs as user root, and {site.recordings} is user nobody's"
                in failed["asterisk"].text
            )
            site.cure(failed["asterisk"].cure)
            assert site.failed() == {}
        finally:
            site.asterisk_conf.unlink()
            shutil.rmtree(run)


def test_what_was_moved_away_is_no_other_hosts(site: Checked) -> None:
    _moved_by_somebody(site)

    assert site.failed() == {}


def test_whoever_is_neither_root_nor_asterisks_user_is_told_to_be_root(site: Checked) -> None:
    """His faults are not Asterisk's."""
    account = pwd.getpwnam("daemon")

    done = subprocess.run(
        [PROGRAMS / "noojee-agi", "check"],
        env={"NOOJEE_AGI_CONF": str(site.conf)},
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (1, "")
    said = f"{site.recordings} is user nobody's, and user daemon does not see what that user sees"
    assert done.stdout == f"FAIL  configuration  {said}: sudo {PROGRAMS}/noojee-agi check\n"


def test_a_database_that_another_process_keeps_locked(site: Checked) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, site.database], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"locked\n"

        def impatient() -> None:
            store._LOCK_SECONDS = 0

        failed = site.failed(patched=impatient)

        assert set(failed) == {"database"}
        assert "database is locked" in failed["database"].text
        assert failed["database"].cure == f"kill {holder.pid}"
        site.cure(failed["database"].cure)
        holder.wait(10)
    assert site.failed() == {}


_HOLDS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


# --- disks ---


def test_a_disk_that_is_mounted_read_only(site: Checked) -> None:
    for folder in (site.recordings, site.state):
        with small_disk(1_000_000) as disk:
            shutil.copytree(folder, disk / folder.name, symlinks=True)
            shutil.rmtree(folder)
            folder.symlink_to(disk / folder.name)
            site.give(disk / folder.name)
            site.cure(f"mount -o remount,ro {disk}")
            name = "recordings" if folder == site.recordings else "state"

            failed = site.failed()

            assert name in failed
            assert f"the disk of {folder} is mounted read-only" in failed[name].text
            site.cure(failed[name].cure)
            assert site.failed() == {}
        site.make_anew()


@pytest.mark.parametrize("name", ["recordings", "state"])
def test_a_full_disk(site: Checked, name: str) -> None:
    folder = site.folder / name
    with small_disk(4_000_000) as disk:
        shutil.copytree(folder, disk / name, symlinks=True)
        shutil.rmtree(folder)
        folder.symlink_to(disk / name)
        site.give(disk / name)
        fill(disk / "ballast")

        failed = site.failed()

        assert f"the disk of {folder} is full" in failed["free space"].text
        assert failed["free space"].cure == f"free some space on {disk}"
        (disk / "ballast").unlink()
        assert site.failed() == {}
    folder.unlink()


def test_a_disk_with_little_space_left(site: Checked) -> None:
    site.conf.write_text(site.conf.read_text().replace("min_free_percent = 0", "min_free_percent = 100"))

    failed = site.failed()

    assert "below 100 % no call is recorded" in failed["free space"].text
    assert failed["free space"].cure.startswith("free some space on /")


def test_a_disk_that_takes_no_more_files(site: Checked) -> None:
    with small_disk(4_000_000) as disk:
        shutil.copytree(site.recordings, disk / "recordings")
        site.cure(f"mount -o remount,nr_inodes=20 {disk}")
        shutil.rmtree(site.recordings)
        site.recordings.symlink_to(disk / "recordings")
        site.give(disk / "recordings")
        for number in range(20):
            try:
                (disk / f"file-{number}").touch()
            except OSError:
                break

        failed = site.failed()

        assert "takes no more files (inodes)" in failed["free space"].text
        assert failed["free space"].cure == f"remove files from {disk}"
        for path in disk.glob("file-*"):
            path.unlink()
        assert site.failed() == {}
    site.recordings.unlink()


def test_a_disk_that_hangs_keeps_nobody_waiting(site: Checked) -> None:
    """As with a server of NFS that is away: its stage fails, and what lies there is not seen."""
    with hung_disk() as there:
        shutil.copytree(site.recordings, there.path / "recordings")
        shutil.rmtree(site.recordings)
        site.configure()
        site.conf.write_text(site.conf.read_text().replace(str(site.recordings), f"{there.path}/recordings"))
        history.remember(str(site.state), os.uname().nodename, f"{there.path}/recordings")
        site.give(site.state)
        site.give(there.path / "recordings")
        assert site.failed() == {}
        there.hang()
        begun = time.monotonic()

        stages = {stage.name: stage for stage in site.look(patched=_as_nobody)}

        took = time.monotonic() - begun
        there.answer()
        assert {name for name, stage in stages.items() if stage.state == FAILED} == {"recordings"}
        assert stages["recordings"].text.startswith(
            f"the recordings' disk, mounted at {there.path}, does not"
        )
        assert stages["recordings"].cure == f"umount -fl {there.path}; mount {there.path}"
        assert stages["spool"].state == NOT_SEEN
        assert took < 15
        assert site.failed() == {}


def _as_nobody() -> None:
    """As whom check acts, where it knows that by Asterisk's socket."""
    account = pwd.getpwnam(USER)
    os.setgroups([])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    user._require_own = lambda directory: None


def test_the_configuration_is_as_it_was(site: Checked) -> None:
    """What the cures above have changed has an effect."""
    assert Config.load(str(site.conf)).recordings_directory == str(site.recordings)
