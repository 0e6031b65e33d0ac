"""`noojee-agi install-agi`: links where Asterisk looks, by the way that an upgrade changes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from lab.loaded_command import loaded
from lab.site import PROGRAMS

from noojee_agi.cli.install import AGI_PROGRAMS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "agi-bin"
    made.mkdir()
    return made


@pytest.fixture
def swapped(tmp_path: Path) -> Path:
    """What an upgrade replaces: a link to the environment, as /opt/noojee-agi is one."""
    link = tmp_path / "noojee-agi"
    link.symlink_to(PROGRAMS.parent)
    return link


def install(
    *words: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return loaded(PROGRAMS / "noojee-agi").run(["install-agi", *map(str, words)], "", environment or {})


def install_by(
    program: Path | str, folder: Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> int:
    """By the way that its caller has found it: this is a program of its own."""
    command = [program, "install-agi", folder]
    return subprocess.run(command, env=environment or {}, cwd=cwd, check=False, timeout=60).returncode


def targets(folder: Path) -> list[str]:
    """Where the links lead; all of them must be there."""
    assert sorted(os.listdir(folder)) == sorted(AGI_PROGRAMS)
    return [os.path.dirname(os.readlink(folder / name)) for name in AGI_PROGRAMS]


def assert_one_line_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_the_programs_are_linked_where_asterisk_looks_and_again_without_harm(folder: Path) -> None:
    for _ in range(2):
        said = install(folder).stdout.splitlines()

        assert said == [f"{folder}/{name} -> {PROGRAMS}/{name}" for name in AGI_PROGRAMS]
        assert targets(folder) == [str(PROGRAMS)] * len(AGI_PROGRAMS)


def test_the_links_go_by_the_way_that_an_upgrade_changes(folder: Path, swapped: Path, tmp_path: Path) -> None:
    """/usr/local/bin/noojee-agi is a link into /opt/noojee-agi, which is one to /opt/noojee-agi-1."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/noojee-agi").symlink_to("../local")  # from link to link, also by relative ones
    (tmp_path / "local").symlink_to(swapped / "bin/noojee-agi")

    for program in (tmp_path / "bin/noojee-agi", swapped / "bin/noojee-agi"):
        assert install_by(program, folder) == 0

        assert targets(folder) == [f"{swapped}/bin"] * len(AGI_PROGRAMS)


def test_a_shell_that_stands_in_the_link_is_on_that_way_too(folder: Path, swapped: Path) -> None:
    shell = {"PWD": str(swapped)}

    assert install_by("bin/noojee-agi", folder, shell, cwd=swapped) == 0

    assert targets(folder) == [f"{swapped}/bin"] * len(AGI_PROGRAMS)


@pytest.mark.parametrize("told", ["", "/", ".", "/nonexistent"])
def test_a_shell_that_tells_something_else_is_not_believed(folder: Path, swapped: Path, told: str) -> None:
    assert install_by("bin/noojee-agi", folder, {"PWD": told}, cwd=swapped) == 0

    assert targets(folder) == [str(PROGRAMS)] * len(AGI_PROGRAMS)


def test_an_older_link_is_replaced(folder: Path) -> None:
    (folder / "start_record.py").symlink_to("/nonexistent/start_record.py")

    install(folder)

    assert targets(folder) == [str(PROGRAMS)] * len(AGI_PROGRAMS)


def test_what_a_killed_install_left_behind_is_no_obstacle(folder: Path) -> None:
    (folder / "start_record.py.new").symlink_to("/nonexistent/start_record.py")

    assert "Traceback" not in install(folder).stderr

    assert (folder / "start_record.py").exists()


def test_somebody_elses_program_is_not_replaced(folder: Path) -> None:
    (folder / "start_record.py").write_text("theirs")

    done = install(folder)

    assert_one_line_error(done, "start_record.py is a file of somebody else", "move it away")
    assert (folder / "start_record.py").read_text() == "theirs"


def test_an_unknown_folder_for_the_programs_is_an_error(tmp_path: Path) -> None:
    assert_one_line_error(install(tmp_path / "none"), str(tmp_path / "none"))


@pytest.fixture
def named(tmp_path: Path, folder: Path) -> dict[str, str]:
    """An Asterisk whose configuration names the folder."""
    (tmp_path / "asterisk.conf").write_text(f"[directories]\nastagidir => {folder} ; here\n")
    return {"AST_CONFIG_DIR": str(tmp_path)}


def test_the_folder_of_the_programs_is_read_from_asterisk_conf(folder: Path, named: dict[str, str]) -> None:
    assert install(environment=named).returncode == 0
    assert targets(folder) == [str(PROGRAMS)] * len(AGI_PROGRAMS)

    assert install("--remove", environment=named).returncode == 0
    assert os.listdir(folder) == []


# --- and away again ---


def test_our_links_are_removed_by_whichever_way_they_lead_to_us(folder: Path, swapped: Path) -> None:
    install_by(swapped / "bin/noojee-agi", folder)

    done = install("--remove", folder)

    assert (done.returncode, os.listdir(folder)) == (0, [])
    assert done.stdout.splitlines() == [f"{folder}/{name} is removed" for name in AGI_PROGRAMS]


def test_there_may_be_nothing_to_remove(folder: Path) -> None:
    done = install("--remove", folder)

    assert (done.returncode, done.stdout) == (0, f"there are no programs in {folder}\n")


def test_what_is_not_ours_is_left_alone_and_named(folder: Path, tmp_path: Path) -> None:
    first, second, *_ = AGI_PROGRAMS
    (folder / first).write_text("theirs")
    (folder / second).symlink_to(tmp_path / second)

    done = install("--remove", folder)

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"{folder}/{name} is left alone: it is not this installation's" for name in (first, second)
    ]
    assert (folder / first).read_text() == "theirs"
    assert os.readlink(folder / second) == str(tmp_path / second)
