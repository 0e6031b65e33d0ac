"""A clean Debian in a folder of the cache, as its installation leaves it: with systemd, without Python.

`machine` runs one. What is downloaded but not installed lies in its apt's cache, so `apt-get install` needs
no network there. It asks nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab import debian, processes
from lab.debian import Apt
from lab.unavailable import LabUnavailable

MAKE_SECONDS = 900
_CORE = ("?essential", "apt")
_ALWAYS = ("ca-certificates", "logrotate", "mount", "procps", "systemd-sysv")
_MERGED = ("bin", "sbin", "lib", "lib64")  # links into usr, which base-files of older suites does not bring

APT_CONF = """\
APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
Acquire::Check-Valid-Until "false";
"""
# Services are not started while it is made; a database on a disk that is deleted soon needs no fsync.
_NO_SERVICES = "#!/bin/sh\nexit 101\n"
_UNSAFE = "force-unsafe-io\n"

# The folders, then the two steps of an installation: what the others need to be installed, and these.
_MAKE = """\
set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=755 tmpfs "$1/dev"
for device in null zero full random urandom tty; do
  touch "$1/dev/$device"
  mount --bind "/dev/$device" "$1/dev/$device"
done
chroot "$1" sh -ec 'cd /var/cache/apt/archives && dpkg --force-depends --install $(cat /core)'
rm "$1/core"
root=$1
shift
chroot "$root" apt-get install "$@"
"""


def make(suite: str, installed: Sequence[str], at_hand: Sequence[str]) -> Path:
    """Return the root folder of a Debian `suite` with these packages installed, and those downloaded.

    The first call makes it, in minutes; later ones find it in the cache. Nobody may write there. Raises
    LabUnavailable for everybody but root.
    """
    if os.geteuid() != 0 or not shutil.which("unshare"):
        raise LabUnavailable("a clean Debian is made by root, with unshare: run this test as root")
    key = hashlib.sha256(repr((installed, at_hand, _ALWAYS, APT_CONF)).encode()).hexdigest()[:12]
    store = debian.cache() / "roots"
    root = store / f"{suite}-{key}"
    store.mkdir(parents=True, exist_ok=True)
    with debian.locked(store / f"{suite}.lock"):
        if not root.is_dir():
            _make(suite, (*_ALWAYS, *installed), at_hand, root)
    return root


def _make(suite: str, installed: Sequence[str], at_hand: Sequence[str], root: Path) -> None:
    work = root.with_name(f"{root.name}.unfinished")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed; the lock is ours now
    try:
        (work / "root").mkdir(parents=True)
        (work / "root").chmod(0o755)
        apt = Apt(suite, work / "apt")
        apt.download(_CORE)
        core = apt.archives()
        apt.download((*_CORE, *installed, *at_hand))
        _unpack(core, work / "root")
        _prepare(apt, core, work / "root")
        _install(work / "root", installed)
        (work / "root").rename(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unpack(archives: Sequence[Path], root: Path) -> None:
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for archive in archives:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as content:
            words = ["tar", "--extract", "--preserve-permissions", "--keep-directory-symlink"]
            done = subprocess.run([*words, "--directory", root], stdin=content.stdout, check=False)
        if done.returncode or content.returncode:
            raise LabUnavailable(f"{archive.name} cannot be unpacked into {root}")


def _prepare(apt: Apt, core: Sequence[Path], root: Path) -> None:
    """Its apt knows what ours knows."""
    shutil.copytree(apt.lists, root / "var/lib/apt/lists", dirs_exist_ok=True)
    archives = root / "var/cache/apt/archives"
    for archive in apt.archives():
        shutil.copy(archive, archives)
    (root / "core").write_text(" ".join(archive.name for archive in core))
    (root / "etc/apt/sources.list").write_text(apt.source)
    (root / "etc/apt/apt.conf.d/99lab").write_text(APT_CONF)
    (root / "etc/dpkg/dpkg.cfg.d/lab").write_text(_UNSAFE)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    services = root / "usr/sbin/policy-rc.d"
    services.write_text(_NO_SERVICES)
    services.chmod(0o755)


def _install(root: Path, packages: Sequence[str]) -> None:
    """In namespaces of its own, where no service and no mount outlives it."""
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", _MAKE, "sh"]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C",
        "HOME": "/root",
    }
    try:
        done = subprocess.run(
            [*processes.dies_with_us(), *command, str(root), *packages],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=MAKE_SECONDS,
        )
    except subprocess.TimeoutExpired as expired:
        raise LabUnavailable(f"a clean Debian is not made in {MAKE_SECONDS} seconds") from expired
    if done.returncode != 0:
        raise LabUnavailable(f"a clean Debian cannot be made here: {done.stdout[-1000:]}")
    (root / "usr/sbin/policy-rc.d").unlink()
