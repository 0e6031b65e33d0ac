"""Another host: a network of its own and its own view of some folders, gone when the test ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lab import processes
from lab.asterisk import Installation
from lab.unavailable import LabUnavailable

READY = b"ready\n"
_NEEDED = ("ip", "unshare", "nsenter", "mount")
# Mounts stay in the namespace; they end with it, and it with the process that holds it.
_HOLD = """\
set -e
mount --make-rprivate /
while [ "$#" -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done
ip link set lo up
echo ready
exec sleep infinity
"""


@dataclass(frozen=True)
class Host:
    """A host. pid: the process that holds its namespaces; address: where the other one reaches it."""

    pid: int
    address: str

    @property
    def enter(self) -> tuple[str, ...]:
        """The words before a command that runs it there."""
        return ("nsenter", f"--target={self.pid}", "--net", "--mount")

    def installed(self, installation: Installation) -> Installation:
        """The same program, run there."""
        return replace(installation, command=(*self.enter, *installation.command))


@contextmanager
def host(folders: Mapping[Path, Path] | None = None) -> Iterator[Host]:
    """Give a host without a network. `folders`: what lies there in place of a file or folder of ours.

    Raises LabUnavailable for everybody but root, and where namespaces are forbidden.
    """
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        raise LabUnavailable(f"another host needs root and {', '.join(missing or _NEEDED)}")
    binds = [str(path) for place, real in (folders or {}).items() for path in (real, place)]
    holder = subprocess.Popen(
        [*processes.dies_with_us(), "unshare", "--net", "--mount", "sh", "-c", _HOLD, "sh", *binds],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert holder.stdout is not None
    assert holder.stderr is not None
    try:
        if holder.stdout.readline() != READY:
            reason = holder.stderr.read().decode(errors="replace").strip()
            raise LabUnavailable(f"this machine gives root no namespaces: {reason}")
        yield Host(holder.pid, "")
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        holder.stderr.close()


def join(one: Host, other: Host, network: str) -> tuple[Host, Host]:
    """The two with a cable between them: `network` is such as 10.203.7, they are its .1 and .2.

    Raises LabUnavailable.
    """
    ends = [replace(end, address=f"{network}.{number}") for number, end in enumerate((one, other), 1)]
    _ip(one, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(other.pid))
    for end in ends:
        _ip(end, "address", "add", f"{end.address}/24", "dev", "eth0")
        _ip(end, "link", "set", "eth0", "up")
    return ends[0], ends[1]


def _ip(place: Host, *words: str) -> None:
    done = subprocess.run([*place.enter, "ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabUnavailable(f"this machine has no virtual network: ip {' '.join(words)}: {done.stderr}")
