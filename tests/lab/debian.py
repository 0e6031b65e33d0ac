"""Unpacks Debian packages into a cache and runs them from there: nothing is installed, no root is needed.

On a machine of another distribution that has apt, such as Ubuntu: those of its own release, by its sources.
"""

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

# No other source than Debian's is asked.
ONLY_DEBIAN = """\
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""
# Nothing counts as installed, nothing of the machine's own apt is written.
APT_CONF = """\
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
    with locked(store / f"{package}.lock"):
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
    """Return the name of the suite, of Debian or the like, that this machine runs. Raises LabUnavailable."""
    release = platform.freedesktop_os_release()
    if shutil.which("apt-get") is None or "VERSION_CODENAME" not in release:
        raise LabUnavailable(f"this machine has no apt-get but is {release['ID']}: install the server itself")
    return release["VERSION_CODENAME"]


def is_debian() -> bool:
    """Whether other suites can be had here than the machine's own."""
    return platform.freedesktop_os_release()["ID"] == "debian"


def cache() -> Path:
    """Where all lies that may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "noojee-agi"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else who asks for the same is in there, in no other process either."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(package: str, suite: str, root: Path) -> None:
    work = root.with_name(f"{package}.unfinished")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed; the lock is ours now
    try:
        (work / "root").mkdir(parents=True)
        (work / "root").chmod(0o755)  # whatever our umask: copies for other users have its mode
        apt = Apt(suite, work / "apt")
        apt.download([package])
        for archive in apt.archives():
            run(["dpkg", "-x", str(archive), str(work / "root")])
        (work / "root").rename(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)


class Apt:
    """An apt of our own, for one suite, in a new `folder`: nothing counts as installed.

    source: its line of sources.list, of a Debian. All of it may raise LabUnavailable.
    """

    def __init__(self, suite: str, folder: Path) -> None:
        is_own = not is_debian() and suite == own_suite()
        self.source = "" if is_own else _source(suite)
        self._suite = suite
        self._archives = folder / "cache/archives"
        self.lists = folder / "state/lists"
        for path in (self.lists / "partial", self._archives / "partial"):
            path.mkdir(parents=True)
        (folder / "sources.list").write_text(self.source)
        (folder / "status").touch()
        conf = APT_CONF if is_own else ONLY_DEBIAN + APT_CONF
        (folder / "apt.conf").write_text(conf.format(folder=folder))
        self._apt_get = ["apt-get", "-c", str(folder / "apt.conf"), "-q"]
        moved = f"the mirror has no suite {suite}; it may have moved to Debian's archive"
        run([*self._apt_get, "update"], missing=moved)

    def download(self, packages: Sequence[str]) -> None:
        """With all that they depend on."""
        names = ", ".join(packages)
        print(
            f"lab: downloading {names} and what it needs from {self._suite}",
            file=sys.stderr,
            flush=True,
        )
        run([*self._apt_get, "--download-only", "--yes", "install", *packages])

    def archives(self) -> Sequence[Path]:
        """All that was downloaded."""
        return sorted(self._archives.glob("*.deb"))


def _source(suite: str) -> str:
    mirror, architecture = _mirror(), run(["dpkg", "--print-architecture"]).strip()
    # An old suite is signed as before, only its date has passed.
    options = f"arch={architecture} signed-by={KEYRING} check-valid-until=no"
    return f"deb [{options}] {mirror} {suite} main\n"


def _mirror() -> str:
    """Return the address from which this machine's own apt takes Debian."""
    if not KEYRING.is_file() or shutil.which("apt-get") is None:
        raise LabUnavailable("no apt-get or no Debian keyring on this machine: install the server itself")
    targets = ["apt-get", "indextargets", "--format"]
    packages = "Created-By: Packages"
    known = run([*targets, "$(REPO_URI)", packages, "Origin: Debian", "Label: Debian"]).split()
    # Before the first `apt-get update` nobody's origin is known; the signature is checked all the same.
    unknown = run([*targets, "$(REPO_URI)", "--no-release-info", packages]).split()
    for address in [*known, *(address for address in unknown if address.rstrip("/").endswith("/debian"))]:
        return address
    raise LabUnavailable("this machine's apt has no Debian mirror: install the server itself")


def run(command: Sequence[str], missing: str = "") -> str:
    """Run a command of apt or dpkg and return its output. Raises LabUnavailable.

    missing: the message when apt finds no such suite.
    """
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    if missing and "does not have a Release file" in done.stderr:
        raise LabUnavailable(missing)
    errors = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
    raise LabUnavailable(f"{command[0]} failed: {' '.join(errors[:2]) or done.stderr.strip()[-300:]}")
