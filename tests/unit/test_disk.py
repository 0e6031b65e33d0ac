"""A disk that hangs: whoever waits for it does so for a limited time, and the next ones not at all."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import pytest
from lab.waiting import wait_until

from noojee_agi.errors import DiskSilent, NotStarted
from noojee_agi.recordings import disk

LIMIT = 0.2


class SlowDisk:
    """Work on it hangs while it is not `answering`."""

    def __init__(self) -> None:
        self.answering = threading.Event()
        self.late: list[str] = []
        self.begun = 0
        self.look = disk.bounded(self.late.append)(self._look)

    def _look(self, path: str) -> str:
        self.begun += 1
        self.answering.wait()
        return f"seen {path}"

    def look_in_vain(self, path: str) -> None:
        """It hangs. The limit is short for this look alone: on a busy machine others may be slow."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(disk, "LIMIT_SECONDS", LIMIT)
            with pytest.raises(DiskSilent, match="does not answer"):
                self.look(path)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    monkeypatch.setattr(disk, "_hangs", disk._Hangs())
    monkeypatch.setattr(disk, "_own", threading.local())
    found = SlowDisk()
    yield found
    found.answering.set()


def test_what_the_work_returns_is_returned(slow: SlowDisk) -> None:
    slow.answering.set()

    assert [slow.look("a"), slow.look("b")] == ["seen a", "seen b"]
    assert (slow.late, disk.does_not_answer()) == ([], False)


@pytest.mark.parametrize("error", [OSError(28, "full"), NotStarted("no file"), RuntimeError("boom")])
def test_what_the_work_raises_is_raised_and_the_next_work_is_done(
    slow: SlowDisk, error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    slow.answering.set()

    @disk.bounded()
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        fail()
    assert raised.value is error
    assert slow.look("a") == "seen a"
    assert capfd.readouterr() == ("", "")


def test_work_within_work_is_one_piece_of_work(slow: SlowDisk) -> None:
    inner = disk.bounded()(threading.get_ident)

    idents = disk.bounded()(lambda: (threading.get_ident(), inner()))()

    assert idents[0] == idents[1] != threading.get_ident()


def test_a_caller_waits_for_its_limit_and_the_next_ones_not_at_all(slow: SlowDisk) -> None:
    begun = time.monotonic()
    slow.look_in_vain("a")
    assert time.monotonic() - begun >= LIMIT
    for _ in range(100):
        with pytest.raises(DiskSilent):
            slow.look("b")

    assert slow.begun == 1, "no more than one hangs"
    assert disk.does_not_answer()


def test_once_it_answers_again_work_is_done_again(slow: SlowDisk) -> None:
    slow.look_in_vain("a")
    slow.answering.set()

    wait_until(lambda: not disk.does_not_answer(), 20, "an answer")

    assert slow.look("b") == "seen b"
    wait_until(lambda: slow.late == ["a"], 20, "what is to be done about the work that came too late")


def test_once_in_a_while_one_tries_although_the_former_ones_hang(
    slow: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after umount --lazy and a new mount: who hangs in the old one never comes back."""
    slow.look_in_vain("a")
    other = disk.bounded()(lambda: "seen")
    with pytest.raises(DiskSilent):
        other()
    monkeypatch.setattr(disk._hangs, "_try_at", 0.0)

    assert other() == "seen"
    assert other() == "seen"


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /var/spool/asterisk rw,relatime shared:5 - nfs4 nas:/calls rw,hard
31 22 0:41 / /srv rw - xfs /dev/sdb rw
32 31 0:42 / /srv rw - fuse.sshfs elsewhere: rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/spool", "ext4"),
        ("/var/spool/asterisk", "nfs4"),
        ("/var/spool/asterisk/noojee", "nfs4"),
        ("/var/spool/asterisks", "ext4"),
        ("/srv/noojee", "fuse.sshfs"),
        ("/", "ext4"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_mount_it_lies_in(path: str, kind: str) -> None:
    assert disk.type_of(path, MOUNTS.splitlines(keepends=True)) == kind


def test_a_disk_that_is_not_known_is_not_trusted() -> None:
    assert disk.type_of("/x", []) not in disk._LOCAL_TYPES


def test_a_process_that_was_forked_has_a_thread_of_its_own_for_the_disk() -> None:
    assert disk.exists("/")

    child = os.fork()
    if not child:
        with contextlib.suppress(DiskSilent):
            os._exit(0 if disk.exists("/") else 2)
        os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
