"""A call's folders and files: of the right mode whatever the umask, and seen at once when not ours."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.site import Site
from lab.waiting import wait_until
from unit import fakes
from unit.fakes import PROGRAMS, FakeAsterisk

from integration.piped import Piped
from integration.recorder import exit_code, forked
from noojee_agi.cli import check
from noojee_agi.recordings import recording

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def machine() -> Iterator[fakes.Site]:
    """A machine of Asterisk's user, who is no root: root could write anywhere."""
    top = Path(tempfile.mkdtemp(prefix="noojee-agi-", dir="/tmp"))
    top.chmod(0o755)
    site = fakes.Site(top / "machine")
    site.configure(recordings_min_free_percent=0.0)
    yield site
    shutil.rmtree(top)


def day_of(site: fakes.Site) -> Path:
    """The folder of today's recordings, made with those above it."""
    day = site.recordings / recording.now().strftime("%Y/%m/%d")
    day.mkdir(parents=True)
    return day


def as_asterisks_user(site: fakes.Site, spoilt: Path, mode: int, work: Callable[[], object]) -> None:
    """Do work as the user to whom all belongs but the spoilt folder, which is root's if we are root."""
    is_root = os.geteuid() == 0
    top = site.recordings.parent

    def act() -> None:
        if is_root:
            os.setgroups([])
            os.setresgid(NOBODY.pw_gid, NOBODY.pw_gid, NOBODY.pw_gid)
            os.setresuid(NOBODY.pw_uid, NOBODY.pw_uid, NOBODY.pw_uid)
        work()

    for path in [top, *top.rglob("*")]:
        path.chmod(0o750 if path.is_dir() else 0o640)
        os.chown(path, NOBODY.pw_uid if is_root else -1, NOBODY.pw_gid if is_root else -1)
    if is_root:
        os.chown(spoilt, 0, 0)
    spoilt.chmod(mode)
    child = forked(act)
    try:
        assert exit_code(child) == 0
    finally:
        spoilt.chmod(0o755)


@pytest.mark.parametrize("above", [0, 1, 2], ids=["day", "month", "year"])
@pytest.mark.parametrize("mode", [0o555, 0o600])
def test_a_folder_that_asterisk_cannot_write_in_is_seen_before_anything_begins(
    machine: fakes.Site, above: int, mode: int
) -> None:
    """Else MixMonitor is asked, says nothing, and its file is waited for."""
    day = day_of(machine)
    spoilt = [day, *day.parents][above]
    if above and mode & stat.S_IXUSR:
        day.rmdir()
    if above == 2 and mode & stat.S_IXUSR:
        day.parent.rmdir()

    def call() -> None:
        asterisk = FakeAsterisk()
        asterisk.creates_files = False
        machine.run(asterisk)
        answers = asterisk.answers()
        assert (answers["RECORDING_STATUS"], answers["RECORDING_FILE"]) == ("503", "")
        assert answers["RECORDING_MESSAGE"] == (
            f"nothing can be written in {spoilt} (Permission denied): it must be there, belong to Asterisk's"
            " user and have mode 0750; run noojee-agi check"
        )
        assert (asterisk.mixmonitors, machine.events()) == ([], [])
        [stage] = [each for each in check.stages(machine.config, PROGRAMS) if each.name == "recordings"]
        assert stage.has_failed
        assert f"{spoilt} cannot be written by user" in stage.text

    as_asterisks_user(machine, spoilt, mode, call)


def test_a_year_of_roots_does_not_matter_while_the_day_is_asterisks(machine: fakes.Site) -> None:
    day = day_of(machine)

    def call() -> None:
        asterisk = FakeAsterisk()
        machine.run(asterisk)
        assert asterisk.answers()["RECORDING_STATUS"] == "200"

    as_asterisks_user(machine, day.parent.parent, 0o755, call)


def modes(site: Site) -> dict[int, set[str]]:
    """Mode -> what has it, of all that our programs have made."""
    found: dict[int, set[str]] = {}
    for top in (site.recordings_directory, site.state_directory):
        for path in top.rglob("*"):
            if path.suffix != ".wav":
                name = re.sub(r"[0-9a-f-]{8,}|\d+", "N", str(path.relative_to(top)))
                found.setdefault(stat.S_IMODE(path.lstat().st_mode), set()).add(name)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("folders") / "site")


@pytest.mark.parametrize("umask", ["000", "177", "777"])
def test_what_a_call_leaves_behind_has_its_mode_whatever_asterisks_umask(site: Site, umask: str) -> None:
    """All of it is made anew: folders, events, the side-car, the snapshot, the database and the log."""
    for path in [*site.recordings_directory.iterdir(), *site.state_directory.glob("noojee*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    asterisk = FakeAsterisk(apiKey=site.key)
    words = ["sh", "-c", f'umask {umask}; exec "$0" "$@"']

    with Piped(asterisk, [*words, str(site.agi_directory / "start_record.py")], site.environment) as program:
        program.run()

    assert asterisk.answers()["RECORDING_STATUS"] == "200", asterisk.answers()
    wait_until(lambda: list(site.recordings_directory.rglob("17*.json")), 20, "the side-car")
    wait_until(lambda: not site.processes(), 20, "the drain's end")
    found = modes(site)
    assert found.keys() == {0o750, 0o640}, found
    assert {"N", "N/N", "N/N/N", ".spool"} <= found[0o750]
    assert {"noojee.db", "noojee-agi.log", "snapshot.json", ".spool/.lock", ".spool/journal"} <= found[0o640]
