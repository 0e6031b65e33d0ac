"""The programs that calls start: each fault of their installation, what check says, and its cure.

The installation is a copy, made for every user; the programs are run for real, as Asterisk's user runs them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import installation
from lab.checked import Checked

from noojee_agi.cli.check import programs
from noojee_agi.cli.check.stage import FAILED
from noojee_agi.cli.install import AGI_PROGRAMS
from noojee_agi.errors import NoojeeError

PROGRAMS = (*AGI_PROGRAMS, "finish_record.py", "noojee-agi")


class Installed(Checked):
    """With an installation of its own, of which everything is kept and put back."""

    kept: dict[Path, tuple[int, bytes]]

    @property
    def venv(self) -> Path:
        return self.programs.parent

    def keep(self) -> None:
        files = [self.programs / name for name in PROGRAMS]
        self.kept = {path: (path.stat().st_mode, path.read_bytes()) for path in files}

    def put_back(self) -> None:
        for path, (mode, content) in self.kept.items():
            path.write_bytes(content)
            path.chmod(mode)


@pytest.fixture(scope="module")
def installed(sqlite_template: Path) -> Iterator[Installed]:
    folder = Path(tempfile.mkdtemp(prefix="noojee-agi-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        found = Installed(folder, installation.copy_to(folder / "venv"), sqlite_template)
        found.keep()
        yield found
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def site(installed: Installed) -> Iterator[Installed]:
    yield installed
    installed.put_back()


def _interpreter(name: str, python: str) -> Callable[[Installed], None]:
    def plant(site: Installed) -> None:
        path = site.programs / name
        first, rest = path.read_text().split("\n", 1)
        assert first.startswith("#!")
        path.write_text(f"#!{python}\n{rest}")

    return plant


def _moved(site: Installed) -> None:
    """A virtual environment that was made elsewhere."""
    for name in PROGRAMS:
        _interpreter(name, "/opt/where-it-was/bin/python3")(site)


def _closed(name: str, mode: int) -> Callable[[Installed], None]:
    def plant(site: Installed) -> None:
        (path,) = site.venv.glob(name)
        path.chmod(mode)

    return plant


def _umask_077(site: Installed) -> None:
    for path in [*site.venv.glob("lib/python*/site-packages/noojee_agi/**/*")]:
        path.chmod(path.stat().st_mode & 0o700)


FAULTS: dict[str, tuple[Callable[[Installed], None], str]] = {
    "moved": (_moved, "its Python /opt/where-it-was/bin/python3 is not there"),
    "no right to run": (_closed("bin/stop_record.py", 0o640), "stop_record.py cannot be run by user nobody"),
    "closed folder": (_closed("bin", 0o700), "cannot be run by user nobody, who cannot enter"),
    "umask 077": (_umask_077, "who cannot read"),
    "a package of umask 077": (_closed("lib/python*/site-packages/sqlalchemy", 0o700), "who cannot read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_its_cure_leads_to_green(site: Installed, fault: str) -> None:
    plant, words = FAULTS[fault]
    plant(site)

    failed = site.failed(is_real=True)

    assert set(failed) == {"programs"}, failed
    said = failed["programs"]
    assert words in said.text
    assert said.text.endswith(said.cure)
    assert "\n" not in said.text
    site.cure(said.cure)
    assert site.failed(is_real=True) == {}


def test_a_python_below_roots_home_is_named_and_is_not_opened_to_all(site: Installed) -> None:
    """That is cured by an installation elsewhere, never by opening root's home."""
    python = Path(tempfile.mkdtemp(prefix="noojee-agi-", dir="/root")) / "python3"
    python.symlink_to("/usr/bin/python3")
    try:
        _interpreter("finish_record.py", str(python))(site)

        said = site.failed(is_real=True)["programs"]
    finally:
        shutil.rmtree(python.parent)

    assert f"its Python {python} lies below /root, which that user cannot enter" in said.text
    assert said.cure == "agi/install # in a checkout of noojee-agi"


@pytest.mark.parametrize("name", ["finish_record.py", "start_record.py"])
def test_a_program_that_is_not_there(site: Installed, name: str) -> None:
    (site.programs / name).unlink()

    said = site.failed(is_real=True)["programs"]

    assert said.text == f"{site.programs}/{name} is not there: {said.cure}"
    assert said.cure == f"{site.programs}/pip install --force-reinstall ."


def test_a_program_that_ends_in_an_error_of_its_own(site: Installed) -> None:
    """Such as a package that is missing: its last line is told."""
    path = site.programs / "stop_record.py"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(f"{first}\nimport a_package_that_is_missing\n{rest}")

    said = site.failed(is_real=True)["programs"]

    assert f"{path} cannot be run by user nobody (ModuleNotFoundError: No module named" in said.text
    assert said.cure == f"{site.programs}/pip install --force-reinstall ."


def test_a_program_whose_own_configuration_is_wrong(site: Installed) -> None:
    """Asterisk may name another file than the one that check has read."""
    broken = site.folder / "etc/broken.conf"
    broken.write_text("[recordings]\nformat = a/b\n")

    with pytest.raises(NoojeeError) as caught:
        programs.check(str(site.programs), {"NOOJEE_AGI_CONF": str(broken)})

    assert f"start_record.py says: {broken}: [recordings] format: must be a file format" in str(caught.value)


def test_a_path_that_a_shell_takes_apart(site: Installed) -> None:
    with_blank = site.folder / "with blank"
    with_blank.symlink_to(site.venv)
    site.programs = with_blank / "bin"
    try:
        said = site.failed(is_real=True)["programs"]
    finally:
        site.programs = site.venv.resolve() / "bin"

    assert "is no path of letters, digits and . _ - only, which a shell gets" in said.text


def test_a_program_leaves_nothing_behind(site: Installed) -> None:
    """Each is ended when it asks for the key: no line in the log, no event, no process."""
    log, journal = site.state / "noojee-agi.log", site.recordings / ".spool/journal"
    before = log.read_bytes(), journal.read_bytes(), sorted(os.listdir(site.state))

    stages = site.look(is_real=True)

    assert [stage for stage in stages if stage.state == FAILED] == []
    assert (log.read_bytes(), journal.read_bytes(), sorted(os.listdir(site.state))) == before
