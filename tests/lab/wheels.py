"""Wheels of all that the product needs, for any Python: so it can be installed without a network."""

from __future__ import annotations

import configparser
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab import debian
from lab.unavailable import LabUnavailable

TOP = Path(__file__).parents[2]
DOWNLOAD_SECONDS = 300
_WITHOUT_WHEEL = ("pyst2",)  # pure Python, and published as its source


def for_python(version: str) -> Path:
    """Return a folder of wheels, for such as `3.14`. The first call downloads them. Raises LabUnavailable."""
    needed = _needed()
    key = hashlib.sha256("\n".join(needed).encode()).hexdigest()[:12]
    store = debian.cache() / "wheels"
    folder = store / f"{version}-{key}"
    store.mkdir(parents=True, exist_ok=True)
    with debian.locked(store / f"{version}.lock"):
        if not folder.is_dir():
            _download(version, needed, folder)
    return folder


def _needed() -> list[str]:
    """What setup.cfg and pyproject.toml say."""
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    lines = setup["options"]["install_requires"].split("\n")
    build = re.search(r"^requires = \[(.*)\]", (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    assert build is not None
    lines += re.findall(r'"([^"]+)"', build[1])
    return sorted(line for line in lines if line and not line.startswith("#"))


def _download(version: str, needed: Sequence[str], folder: Path) -> None:
    print(f"lab: downloading what the product needs on Python {version}", file=sys.stderr, flush=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed; the lock is ours now
    sources = [line for line in needed if line.startswith(_WITHOUT_WHEEL)]
    binaries = [line for line in needed if line not in sources]
    kind = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", version]
    try:
        unfinished.mkdir()
        unfinished.chmod(0o755)
        _pip("download", *kind, "--dest", str(unfinished), *binaries)
        _pip("wheel", "--wheel-dir", str(unfinished), *sources)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired as expired:
        raise LabUnavailable(f"pip {words[0]}: not done in {DOWNLOAD_SECONDS} seconds") from expired
    if done.returncode != 0:
        raise LabUnavailable(f"pip {words[0]} {words[-1]}: {done.stderr.strip()[-300:]}")
