"""The product installed once more, where every user can run it: the checkout may lie in root's own folder."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lab.unavailable import LabUnavailable

DISTRIBUTION = "noojee-agi"


def copy_to(folder: Path) -> Path:
    """Make a virtual environment with what is installed here and all that it needs; return its programs.

    Raises LabUnavailable when another user cannot run even the Python that it is made with.
    """
    base = Path(sys.base_prefix)
    for place in [base, *base.parents]:
        if not place.stat().st_mode & 0o005 == 0o005:
            raise LabUnavailable(f"no other user than root can run the Python below {place}: install python3")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    programs = folder / "bin"
    (packages,) = folder.glob("lib/python*/site-packages")
    for distribution in _needed(DISTRIBUTION, set()):
        for file in distribution.files or ():
            source, target = (Path(os.path.normpath(each)) for each in (file.locate(), packages / file))
            if source.is_file() and target.is_relative_to(folder):
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(source, target, programs)
    return programs


def _needed(name: str, seen: set[str]) -> Iterator[importlib.metadata.Distribution]:
    """This distribution and those that it requires here."""
    if name in seen:
        return
    seen.add(name)
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # of another platform, or an extra
    yield distribution
    for requirement in distribution.requires or ():
        if "extra ==" not in requirement:
            yield from _needed(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0], seen)


def _copy(source: Path, target: Path, programs: Path) -> None:
    """A program gets the interpreter that lies beside it."""
    if target.parent != programs:
        shutil.copy2(source, target)  # with its time, by which its bytecode is known to be valid
        return
    first, rest = source.read_text().split("\n", 1)
    assert first.startswith(f"#!{source.parent}/"), f"{source}: {first}"
    target.write_text(f"#!{programs}/{first.rpartition('/')[2]}\n{rest}")
    target.chmod(0o755)
