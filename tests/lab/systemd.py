"""systemd-analyze: of this machine, else from Debian; it needs no running systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lab import debian
from lab.unavailable import LabUnavailable


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `systemd-analyze WORDS`. Raises LabUnavailable."""
    command, environment = _program()
    return subprocess.run(
        [*command, *words],
        env={**os.environ, **environment, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _program() -> tuple[list[str], dict[str, str]]:
    """The words that run it, and what its environment must say."""
    own = shutil.which("systemd-analyze")
    if own:
        return [own], {}
    root = debian.unpack("systemd", debian.own_suite())
    program, units = root / "usr/bin/systemd-analyze", _units(root)
    private = ":".join(str(path.parent) for path in root.glob("**/systemd/libsystemd-shared-*.so"))
    if not program.is_file() or not private or not units:
        raise LabUnavailable(f"no systemd in {root}: delete that folder, it is made again")
    loader, option, libraries = debian.loader_command(root)
    return [loader, option, f"{libraries}:{private}", str(program)], {"SYSTEMD_UNIT_PATH": f"{units}:"}


def _units(root: Path) -> Path | None:
    """The folder of network-online.target and its like, which moved to /usr with Debian 13."""
    folders = (root / base / "systemd/system" for base in ("lib", "usr/lib"))
    return next((folder for folder in folders if folder.is_dir()), None)
