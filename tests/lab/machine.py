"""A machine of a clean Debian: its own systemd in its own namespaces, gone with all it has when it ends.

What it changes lies in memory; the root folder that it runs from stays as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from lab import processes
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until

START_SECONDS = 60.0
_READY = b"ready\n"
_CLONE_NEWNET = 0x40000000  # sched.h
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}

# Systemd takes the cgroup that it finds for its own, so each machine has one, with its process's number; what
# ended machines have left is removed. Words: a folder of ours, the root, then what is mounted where.
_BEGIN = """\
set -e
top=$1 root=$2; shift 2
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir "$top/cgroup" "$top/changes" "$top/work" "$top/root"
mount -t cgroup2 cgroup2 "$top/cgroup"
for group in "$top"/cgroup/noojee-lab-*; do
  [ -d "/proc/${group##*-}" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
done
mkdir "$top/cgroup/noojee-lab-$$"
echo $$ > "$top/cgroup/noojee-lab-$$/cgroup.procs"
mount -t overlay -o "lowerdir=$root,upperdir=$top/changes,workdir=$top/work" overlay "$top/root"
while [ "$#" -gt 0 ]; do
  mkdir -p "$top/root$2"
  mount --bind "$1" "$top/root$2"
  mount -o remount,bind,ro "$top/root$2"
  shift 2
done
ip link set lo up
cd "$top/root"
exec unshare --cgroup --pid --uts --ipc --fork --kill-child sh -c "$INNER"
"""
_INNER = """\
set -e
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
  touch "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm old
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
echo pbx > /proc/sys/kernel/hostname
pivot_root . old
umount -l old
rmdir old
echo ready
exec env -i container=lab PATH="$PATH" /sbin/init >/dev/null 2>&1
"""


class Failed(AssertionError):
    """A command on the machine did not do what it should."""


class Machine:
    """Runs while the block runs. folders: what of this machine is seen there, and where, read only.

    environment: of every command. Raises LabUnavailable where root may make no namespaces.
    """

    def __init__(
        self,
        root: Path,
        folders: Mapping[Path, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._root = root
        self._folders = dict(folders or {})
        self._environment = {**_ENVIRONMENT, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0  # of its systemd

    def __enter__(self) -> Machine:
        missing = [name for name in ("ip", "unshare", "nsenter", "pivot_root") if shutil.which(name) is None]
        if os.geteuid() != 0 or missing:
            raise LabUnavailable(
                f"a machine of its own needs root and {', '.join(missing or ['namespaces'])}"
            )
        self._folder = Path(tempfile.mkdtemp(prefix="lab-machine-"))
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def path(self, name: str) -> Path:
        """Where we see what is `name` there."""
        return Path(f"/proc/{self.pid}/root{name}")

    def run(self, script: str, seconds: float = 600.0) -> str:
        """What these lines of root's bash print, on both streams. Raises Failed when one of them fails."""
        done = self._run(script, seconds)
        if done.returncode != 0:
            raise Failed(f"{script.strip()}: exit code {done.returncode}: {done.stdout[-4000:]}")
        return done.stdout

    def fails(self, script: str) -> bool:
        return self._run(script, 60).returncode != 0

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """This thread, and what it starts, is in the machine's network."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter_network(there)
            try:
                yield
            finally:
                _enter_network(here)
        finally:
            os.close(here)
            os.close(there)

    def _run(self, script: str, seconds: float) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        environment = [f"{name}={value}" for name, value in self._environment.items()]
        try:
            return subprocess.run(
                [*enter, "--root", "--wd", "env", "-i", *environment, "bash", "-ec", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as expired:
            raise Failed(
                f"{script.strip()}: not done in {seconds:g} seconds: {expired.stdout!r}"
            ) from expired

    def _start(self) -> None:
        folders = [word for pair in self._folders.items() for word in map(str, pair)]
        self._process = subprocess.Popen(
            [
                *processes.dies_with_us(),
                *("unshare", "--net", "--mount", "sh", "-c", _BEGIN, "sh"),
                *(str(self._folder), str(self._root), *folders),
            ],
            env={**os.environ, "INNER": _INNER},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if self._process.stdout.readline() != _READY:
            reason = self._process.stderr.read().decode(errors="replace").strip()
            raise LabUnavailable(f"this machine lets root run no other one: {reason}")
        (self.pid,) = processes.children(self._process.pid)
        wait_until(self._is_up, START_SECONDS, "systemd to be up", lambda: self._run("systemctl", 10).stdout)

    def _is_up(self) -> bool:
        """`degraded`: in namespaces some units cannot be started, such as mounts of the kernel's own."""
        return self._run("systemctl is-system-running || true", 30).stdout.strip() in ("running", "degraded")

    def _end(self) -> None:
        """Its systemd ends with the process that has made it, and all else with its systemd."""
        process, self._process = self._process, None
        if process is not None:
            init = processes.children(process.pid)
            processes.send(signal.SIGKILL, [process.pid])
            process.wait()
            wait_until(lambda: not any(map(_is_there, init)), START_SECONDS, "the machine's end")
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()
        with contextlib.suppress(FileNotFoundError):  # empty for everybody else, so others may tidy it up
            self._folder.rmdir()


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _enter_network(namespace: int) -> None:
    """setns(2); os.setns is there since Python 3.12."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
