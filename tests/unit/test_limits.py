"""No test runs for ever: what hangs is a failure, its fixtures are undone, and the next test runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab.waiting import wait_until

TESTS = Path(__file__).parents[1]
LIMIT = 1.0
pytestmark = pytest.mark.timeout(300)  # each begins a pytest, which takes a while on a busy machine
HANGING = """\
import subprocess, threading
import pytest

@pytest.fixture(scope="module")
def server():
    with subprocess.Popen(["sleep", "600"]) as process:
        print("server", process.pid)
        yield process
        process.kill()

@pytest.mark.timeout(60)
def test_before_it(server):
    pass

def test_that_hangs(server):
    threading.Event().wait()

@pytest.mark.timeout(60)
def test_after_it(server):
    assert server.poll() is None
"""
WAITING = """\
def test_that_waits_for_another():
    pass
"""

# pytest puts those together that have the same one.
SHARED = """

@pytest.fixture(scope="session", params=[22, 16])
def shared(request):
    return request.param
"""
ALONE_AND_NOT = """\
import pytest

@pytest.mark.alone
def test_alone(shared):
    pass

def test_with_others(shared):
    pass
"""
WITHOUT_IT = "def test_with_others():\n    pass\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tests with our conftest.py; the folder is also their lock."""
    shutil.copy(TESTS / "conftest.py", tmp_path)
    return tmp_path


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(TESTS.parent / "setup.cfg"),
        "-p",
        "no:hypothesispytest",
        "-p",
        "no:schemathesis",
    ]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.Popen(
        [*command, "-p", "no:cacheprovider", "--rootdir", str(folder), *options, str(folder)],
        env={**own, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_there(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_what_hangs_is_a_failure_and_leaves_nothing_behind(folder: Path) -> None:
    (folder / "test_hanging.py").write_text(HANGING)

    with start(folder, "-o", f"timeout={LIMIT}", "-s") as running:
        said = running.communicate()[0]

    server = next(line for line in said.splitlines() if "server " in line).split()[-1]
    assert "1 failed, 2 passed" in said
    assert f"Timeout (>{LIMIT}s) from pytest-timeout" in said
    assert not is_there(int(server))


@pytest.mark.parametrize(("options", "seconds"), [((), 300.0), (("--long",), 6000.0)])
def test_every_test_has_a_limit_and_the_long_run_a_longer_one(
    request: pytest.FixtureRequest, options: tuple[str, ...], seconds: float, folder: Path
) -> None:
    (folder / "test_limit.py").write_text(
        "def test_limit(request):\n    print('limit', request.node.get_closest_marker('timeout').args[0])\n"
    )

    with start(folder, "-s", *options) as running:
        said = running.communicate()[0]

    assert f"limit {seconds}" in said
    assert request.config.getini("timeout_method") == "signal"


def test_to_wait_for_a_test_that_is_alone_takes_nothing_of_the_limit(folder: Path) -> None:
    (folder / "test_waiting.py").write_text(WAITING)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with start(folder, "-o", f"timeout={LIMIT}") as running:
            wait_until(lambda: is_waiting(running.pid), 60, "the test to wait for the lock")
            longer = time.monotonic() + 1.5 * LIMIT
            wait_until(lambda: time.monotonic() > longer)
            fcntl.flock(lock, fcntl.LOCK_UN)
            said = running.communicate()[0]
    finally:
        os.close(lock)

    assert "1 passed" in said


def test_what_is_alone_is_one_piece_of_work_that_comes_last(folder: Path) -> None:
    """Else each process comes to one of its own in the middle, and waits until all others are done."""
    (folder / "conftest.py").write_text(f"{(folder / 'conftest.py').read_text()}{SHARED}")
    for name in ("one", "two"):
        (folder / f"test_{name}.py").write_text(ALONE_AND_NOT)
    (folder / "test_zero.py").write_text(WITHOUT_IT)

    with start(folder, "-v", "--numprocesses", "1", "--dist", "loadgroup") as running:
        said = running.communicate()[0]

    ran = [line.split("::")[1].split()[0] for line in said.splitlines() if "PASSED" in line]
    assert [name.partition("[")[0] for name in ran] == [*["test_with_others"] * 5, *["test_alone"] * 4]
    assert all(name.endswith("@alone") for name in ran[5:])


def is_waiting(process: int) -> bool:
    """Whether it waits for a lock of another (proc_locks(5): the lines with an arrow)."""
    waiting = (line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line)
    return str(process) in {words[5] for words in waiting}
