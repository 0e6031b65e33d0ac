"""Unpacks Debian packages into a cache and runs them from there: nothing is installed, no root is needed."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.unavailable import LabUnavailable

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Nothing counts as installed, nothing of the machine's own apt is written, no other source is asked.
APT_CONF = """\
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Default-Release "";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
"""


def unpack(package: str, suite: str) -> Path:
    """Return a root folder that holds `package` of Debian's `suite` and all it depends on.

    The first call downloads; later ones, also of other processes, find it in the cache, until somebody
    deletes it there. Raises LabUnavailable.
    """
    store = cache() / "debian" / suite
    root = store / package
    if root.is_dir():
        return root
    store.mkdir(parents=True, exist_ok=True)
    with _locked(store / f"{package}.lock"):
        if not root.is_dir():
            _make(package, suite, root)
    return root


def loader_command(root: Path) -> list[str]:
    """Return the words that run a program of `root` with root's own C library.

    It goes by arguments, not by the environment, so programs that the program starts see the host's library.
    """
    for base in ("usr/lib", "lib"):
        for loader in root.glob(f"{base}/*-linux-gnu*/ld-*.so*"):
            if not loader.is_symlink():
                return [str(loader), "--library-path", library_path(root)]
    raise LabUnavailable(f"no loader (ld-*.so) in {root}: delete that folder, it is made again")


def library_path(root: Path) -> str:
    """Return the folders of root's shared libraries, joined by colons."""
    triplets = [*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")]
    return ":".join(str(folder) for folder in [*triplets, root / "usr/lib"])


def own_suite() -> str:
    """Return the name of the Debian suite that this machine runs. Raises LabUnavailable elsewhere."""
    release = platform.freedesktop_os_release()
    if release["ID"] != "debian" or "VERSION_CODENAME" not in release:
        raise LabUnavailable(f"this machine is no Debian but {release['ID']}: install the server itself")
    return release["VERSION_CODENAME"]


def cache() -> Path:
    """Where all lies that may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "noojee-agi"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(package: str, suite: str, root: Path) -> None:
    work = root.with_name(f"{package}.unfinished")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed; the lock is ours now
    try:
        (work / "root").mkdir(parents=True)
        (work / "root").chmod(0o755)  # whatever our umask: copies for other users have its mode
        archives = _download(package, suite, work / "apt")
        for archive in archives:
            _run(["dpkg", "-x", str(archive), str(work / "root")])
        (work / "root").rename(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(package: str, suite: str, folder: Path) -> Sequence[Path]:
    mirror = _mirror()
    print(f"lab: downloading {package} and what it needs from Debian {suite}", file=sys.stderr, flush=True)
    archives = folder / "cache/archives"
    for path in (folder / "state/lists/partial", archives / "partial"):
        path.mkdir(parents=True)
    architecture = _run(["dpkg", "--print-architecture"]).strip()
    # An old suite is signed as before, only its date has passed.
    options = f"arch={architecture} signed-by={KEYRING} check-valid-until=no"
    (folder / "sources.list").write_text(f"deb [{options}] {mirror} {suite} main\n")
    (folder / "status").touch()
    (folder / "apt.conf").write_text(APT_CONF.format(folder=folder))
    apt_get = ["apt-get", "-c", str(folder / "apt.conf"), "-q"]
    moved = f"{mirror} has no suite {suite}; it may have moved to Debian's archive"
    _run([*apt_get, "update"], missing=moved)
    _run([*apt_get, "--download-only", "--yes", "install", package])
    return sorted(archives.glob("*.deb"))


def _mirror() -> str:
    """Return the address from which this machine's own apt takes Debian."""
    if not KEYRING.is_file() or shutil.which("apt-get") is None:
        raise LabUnavailable("no apt-get or no Debian keyring on this machine: install the server itself")
    targets = ["apt-get", "indextargets", "--format"]
    packages = "Created-By: Packages"
    known = _run([*targets, "$(REPO_URI)", packages, "Origin: Debian", "Label: Debian"]).split()
    # Before the first `apt-get update` nobody's origin is known; the signature is checked all the same.
    unknown = _run([*targets, "$(REPO_URI)", "--no-release-info", packages]).split()
    for address in [*known, *(address for address in unknown if address.rstrip("/").endswith("/debian"))]:
        return address
    raise LabUnavailable("this machine's apt has no Debian mirror: install the server itself")


def _run(command: Sequence[str], missing: str = "") -> str:
    """Run a command and return its output; `missing` is the message when apt finds no such suite."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    if missing and "does not have a Release file" in done.stderr:
        raise LabUnavailable(missing)
    errors = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
    raise LabUnavailable(f"{command[0]} failed: {' '.join(errors[:2]) or done.stderr.strip()[-300:]}")
