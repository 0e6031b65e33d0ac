"""The product as it was, installed beside what it is now: an upgrade has both at work for a while."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from lab import installation
from lab.unavailable import LabUnavailable

# The last one before links led through /opt/noojee-agi. After a release: that release.
COMMIT = "965834f6f4b6dcfd311e124a84f8783c1a909702"
_TOP = Path(__file__).parents[2]


def install(folder: Path) -> Path:
    """Make a virtual environment with the former version and return its programs. Raises LabUnavailable."""
    programs = installation.copy_to(folder)
    (product,) = folder.glob("lib/python*/site-packages/noojee_agi")
    shutil.rmtree(product)
    sources = folder / "sources"
    _unpack(sources)
    (sources / "noojee_agi").rename(product)
    for program in (sources / "agi").glob("*.py"):
        installed = programs / program.name
        installed.write_text(f"#!{programs}/python\n{program.read_text().partition(chr(10))[2]}")
        installed.chmod(0o755)
    return programs


def _unpack(folder: Path) -> None:
    """Raises LabUnavailable where the history is not at hand."""
    command = ["git", "-C", str(_TOP), "archive", COMMIT, "noojee_agi", "agi"]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as exc:
        raise LabUnavailable("the former version is in the project's history: install git") from exc
    if done.returncode != 0:
        raise LabUnavailable(f"the former version is not to be had: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder)  # our own history
