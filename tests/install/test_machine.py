"""The lab's machines are gone when they end, however they end, and do not see each other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import clean_root, processes
from lab.clean_pbx import AT_HAND, BOOKWORM
from lab.machine import Failed, Machine
from lab.waiting import wait_until

pytestmark = pytest.mark.timeout(1500)  # a first run makes the Debian


@pytest.fixture(scope="module")
def root() -> Path:
    return clean_root.make(BOOKWORM.suite, BOOKWORM.packages, AT_HAND)


@pytest.fixture
def machine(root: Path) -> Iterator[Machine]:
    with Machine(root) as running:
        yield running


def lists(machine: Machine) -> str:
    return machine.run("systemctl list-units --type=service --state=running --no-legend --plain")


def test_what_one_does_the_other_does_not_see(root: Path, machine: Machine) -> None:
    with Machine(root) as other:
        machine.run("systemd-run --unit=ours sleep infinity\ntouch /ours")

        assert "ours.service" in lists(machine)
        assert "ours.service" not in lists(other)
        assert other.run("ls /ours /proc/1/comm 2>&1 || true").count("No such file") == 1
    assert "ours.service" in lists(machine)
    assert not (root / "ours").exists()


def test_a_command_that_fails_is_told_with_all_that_it_said(machine: Machine) -> None:
    with pytest.raises(Failed, match="cannot access '/nowhere'"):
        machine.run("ls /nowhere\ntrue")


def test_in_its_network_are_this_thread_and_what_it_starts(machine: Machine) -> None:
    def links() -> str:
        return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout

    with machine.network():
        inside = links()

    assert (inside.count("\n"), "lo:" in inside) == (1, True)
    assert os.readlink("/proc/thread-self/ns/net") == os.readlink("/proc/self/ns/net")


def test_it_ends_with_all_its_processes_also_when_who_holds_it_is_killed(root: Path) -> None:
    with Machine(root) as machine:
        init = machine.pid
        machine.run("systemd-run sleep 4321")
        holder = int(Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1])
        processes.send(signal.SIGKILL, [holder])
        wait_until(lambda: not Path(f"/proc/{init}").exists(), 20, "the machine's end")

    sleeping = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"sleep\x004321" in _read(path)]
    assert sleeping == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
