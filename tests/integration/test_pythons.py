"""The unit tests on the oldest and the newest Python that can be had: both, and all between, are promised."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import pythons

SECONDS = 900  # on a busy machine; a first run installs what they need, too


@pytest.mark.timeout(SECONDS + pythons.INSTALL_SECONDS)
@pytest.mark.parametrize("version", [pythons.OLDEST, pythons.NEWEST])
def test_the_unit_tests_pass(version: str, tmp_path: Path, tell: Callable[[str], None]) -> None:
    python = pythons.with_product(version, tmp_path / "venv")
    options = [
        "--quiet",
        "-c",
        str(pythons.TOP / "setup.cfg"),
        "--rootdir",
        str(pythons.TOP),
        "-p",
        "no:cacheprovider",
        "--assert=plain",  # what it says of a failure is better read on our own Python
        *("-p", "lab.few_parameters"),
        "--hypothesis-profile=few",  # what is found among many does not depend on the Python
        f"--ignore={pythons.TOP}/tests/unit/test_limits.py",  # of the tests themselves
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment["PYTHONPATH"] = str(pythons.TOP / "tests")

    # Its tests configure Unix sockets there, and those have at most 107 characters (unix(7)).
    with tempfile.TemporaryDirectory(prefix="lab-unit-", dir="/tmp") as short:
        done = subprocess.run(
            [python, "-m", "pytest", *options, f"--basetemp={short}/t", str(pythons.TOP / "tests/unit")],
            cwd=tmp_path,  # where no package of ours lies: -m puts it before the installed one
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    tell(f"unit tests on Python {version}: {done.stdout.splitlines()[-1]}")
