"""The spool: a file is there whole or not at all, in order, for one drain at a time."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from noojee_agi.recordings import recording, spool
from noojee_agi.recordings.recording import Ending
from unit.fakes import leg


@pytest.fixture
def spool_directory(tmp_path: Path) -> str:
    return str(tmp_path / ".spool")


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Asterisk's umask is its own affair: even 0 must not open what we write."""
    before = os.umask(0)
    yield
    os.umask(before)


@contextlib.contextmanager
def _files_no_larger_than(limit: int) -> Iterator[None]:
    """A disk that fills up in the middle of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _id(number: int) -> str:
    return f"{number:08x}-6a57-4a6e-8f5e-0123456789ab"


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _open_descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


def test_what_was_put_is_read(spool_directory: str) -> None:
    started, finished = leg(tag="M\u00fcller \U0001f600"), Ending(leg().id, "empty", recording.now(), 44, 0.0)

    paths = [spool.put(spool_directory, started), spool.put(spool_directory, finished)]

    assert spool.waiting(spool_directory) == paths
    assert [spool.read(path) for path in paths] == [started, finished]


def test_events_wait_in_the_order_in_which_they_came(spool_directory: str) -> None:
    put = [spool.put(spool_directory, leg(id=f"{number % 7}-{number}")) for number in range(50)]

    assert spool.waiting(spool_directory) == put


def test_the_name_says_which_event_of_which_leg(spool_directory: str) -> None:
    started = spool.put(spool_directory, leg(id="abc"))
    finished = spool.put(spool_directory, Ending("abc", "failed", recording.now()))

    assert started.endswith("-started-abc.json")
    assert finished.endswith("-finished-abc.json")


def test_nothing_but_the_event_is_left_behind(spool_directory: str) -> None:
    before = _open_descriptors()
    path = spool.put(spool_directory, leg())

    assert os.listdir(spool_directory) == [os.path.basename(path)]
    assert _open_descriptors() == before


@pytest.mark.usefixtures("open_umask")
def test_files_are_for_owner_and_group_whatever_the_umask(spool_directory: str) -> None:
    path = spool.put(spool_directory, leg())
    with spool.lock(spool_directory):
        pass
    spool.reject(path, "because")

    assert _mode(spool_directory) == 0o750
    assert _mode(os.path.join(spool_directory, ".lock")) == 0o640
    assert _mode(os.path.join(spool_directory, "rejected")) == 0o750
    assert [_mode(file) for file in spool.rejected(spool_directory)] == [0o640]


def test_no_folder_is_made_where_the_recordings_folder_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spool.put(str(tmp_path / "unmounted" / ".spool"), leg())

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("limit", [0, 1, 100])
def test_a_disk_that_fills_up_leaves_nothing_behind(spool_directory: str, limit: int) -> None:
    before = _open_descriptors()
    with _files_no_larger_than(limit), pytest.raises(OSError, match="File too large"):
        spool.put(spool_directory, leg())

    assert os.listdir(spool_directory) == []
    assert _open_descriptors() == before


def test_a_disk_that_fills_up_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    spool.write(str(path), "old")

    with _files_no_larger_than(5), pytest.raises(OSError, match="File too large"):
        spool.write(str(path), "new and longer")

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["snapshot.json"]


def test_a_name_that_is_taken_by_a_folder_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    with pytest.raises(IsADirectoryError):
        spool.write(str(tmp_path / "taken"), "text")

    assert os.listdir(tmp_path) == ["taken"]


def test_a_half_written_file_is_never_seen(spool_directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lists the spool at the moment of the rename finds the whole event or none."""
    seen: list[list[str]] = []
    rename = os.rename

    def looking_rename(source: str, target: str) -> None:
        if target.endswith(".json"):
            seen.append(spool.waiting(spool_directory))
            assert recording.from_json(Path(source).read_text()) == event
        rename(source, target)

    monkeypatch.setattr(os, "rename", looking_rename)
    event = leg()
    spool.put(spool_directory, event)

    assert seen == [[]]


def _inode(path: str) -> int:
    return os.stat(path).st_ino


def test_a_forgotten_events_file_is_used_for_a_later_one(spool_directory: str) -> None:
    long = spool.put(spool_directory, leg(tag="x" * 255))
    inode = _inode(long)
    spool.forget([long])
    assert spool.waiting(spool_directory) == []

    short = spool.put(spool_directory, Ending(_id(2), "failed", recording.now()))

    assert _inode(short) == inode
    assert recording.leg_id(spool.read(short)) == _id(2)
    assert os.listdir(os.path.join(spool_directory, "spare")) == []


def test_only_some_files_are_kept_and_the_rest_removed(
    spool_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_SPARES", (3,))

    for _ in range(2):
        spool.forget([spool.put(spool_directory, leg(id=str(number))) for number in range(5)])

    assert sorted(os.listdir(os.path.join(spool_directory, "spare"))) == ["0", "1", "2"]
    assert spool.waiting(spool_directory) == []


def test_a_spare_file_that_cannot_be_opened_is_no_obstacle(
    spool_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.forget([spool.put(spool_directory, leg(id="first"))])
    os_open, refused = os.open, []

    def refusing_open(path: str, flags: int, mode: int = 0o777) -> int:
        if os.path.exists(path) and flags & os.O_TRUNC:
            refused.append(path)
            raise PermissionError(13, "Permission denied")
        return os_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refusing_open)
    path = spool.put(spool_directory, leg(id="second"))

    assert len(refused) == 1
    assert spool.waiting(spool_directory) == [path]


def test_many_who_look_for_a_spare_file_at_once_lose_no_event(spool_directory: str) -> None:
    def puts(first: int) -> None:
        for number in range(first, first + 100):
            spool.put(spool_directory, leg(id=_id(number)))

    spool.forget([spool.put(spool_directory, leg(id=f"old {number}")) for number in range(200)])
    threads = [threading.Thread(target=puts, args=(100 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    ids = sorted(recording.leg_id(spool.read(path)) for path in spool.waiting(spool_directory))
    assert ids == sorted(map(_id, range(800)))


@pytest.mark.parametrize("place", ["event", "spare"])
def test_nothing_is_written_through_a_link_that_somebody_has_put_there(
    spool_directory: str, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write in the spool's folder lays links at every name that can be foreseen."""
    victim = tmp_path / "authorized_keys"
    victim.write_text("root's")
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    monkeypatch.setattr(spool, "_SPARES", (1,))
    spool.make_folder(spool_directory)
    path = f"{spool_directory}/{1:020d}-started-{leg().id}.json"
    laid = {
        "event": [path, *(f"{path}.{number}.tmp" for number in (os.getpid(), 0, 1))],
        "spare": [f"{spool_directory}/spare/0"],
    }[place]
    for link in laid:
        spool.make_folder(os.path.dirname(link))
        os.symlink(victim, link)

    spool.put(spool_directory, leg())

    assert victim.read_text() == "root's"
    assert not os.path.islink(path)
    assert spool.waiting(spool_directory) == [path]


def test_the_lock_is_no_way_to_make_a_file_elsewhere(spool_directory: str, tmp_path: Path) -> None:
    spool.make_folder(spool_directory)
    os.symlink(tmp_path / "elsewhere", f"{spool_directory}/.lock")

    with pytest.raises(OSError, match="symbolic links"), spool.lock(spool_directory):
        pass

    assert not os.path.exists(tmp_path / "elsewhere")


def test_a_temporary_name_cannot_be_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    rename = os.rename

    def noting_rename(source: str, target: str) -> None:
        names.append(os.path.basename(source))
        rename(source, target)

    monkeypatch.setattr(os, "rename", noting_rename)
    for _ in range(20):
        spool.write(str(tmp_path / "x"), "text")

    assert len(set(names)) == 20
    assert all(re.fullmatch(r"x\.[0-9a-f]{16}\.tmp", name) for name in names)


def test_a_reason_is_one_line_that_acts_on_no_terminal(spool_directory: str) -> None:
    path = spool.put(spool_directory, leg())

    spool.reject(path, "no leg\nssh-ed25519 AAAA \x1b[2J\u202e")

    [aside] = spool.rejected(spool_directory)
    assert Path(f"{aside}.reason").read_text() == "no leg?ssh-ed25519 AAAA ?[2J?\n"


def test_a_text_that_is_no_utf_8_is_written_all_the_same(tmp_path: Path) -> None:
    spool.write(str(tmp_path / "x"), "a\udc80b")

    assert (tmp_path / "x").read_text() == "a?b"


def test_only_events_are_waiting(spool_directory: str) -> None:
    path = spool.put(spool_directory, leg())
    Path(spool_directory, "x.json.123.tmp").touch()
    Path(spool_directory, "notes.txt").touch()
    with spool.lock(spool_directory):
        assert spool.waiting(spool_directory) == [path]


def test_nothing_waits_in_a_spool_that_was_never_made(spool_directory: str) -> None:
    assert spool.waiting(spool_directory) == []
    assert spool.rejected(spool_directory) == []


def test_a_rejected_event_waits_no_longer_and_lies_beside_its_reason(spool_directory: str) -> None:
    bad, good = spool.put(spool_directory, leg(id=_id(1))), spool.put(spool_directory, leg(id=_id(2)))

    spool.reject(bad, "the database said no")

    assert spool.waiting(spool_directory) == [good]
    [aside] = spool.rejected(spool_directory)
    assert spool.read(aside) == leg(id=_id(1), started_at=spool.read(aside).started_at)  # type: ignore[union-attr]
    assert Path(f"{aside}.reason").read_text() == "the database said no\n"


def test_one_drain_excludes_another(spool_directory: str, tmp_path: Path) -> None:
    with spool.lock(spool_directory) as ours, spool.lock(spool_directory) as theirs:
        assert (ours, theirs) == (True, False)
    with spool.lock(spool_directory) as ours_again:
        assert ours_again


def test_a_lock_that_was_not_had_is_not_given_back(spool_directory: str) -> None:
    with spool.lock(spool_directory) as first:
        for _ in range(2):
            with spool.lock(spool_directory) as second:
                assert (first, second) == (True, False)


def test_the_lock_is_given_back_after_a_failure(spool_directory: str) -> None:
    before = _open_descriptors()
    with pytest.raises(ZeroDivisionError), spool.lock(spool_directory):
        raise ZeroDivisionError
    with spool.lock(spool_directory) as ours:
        assert ours
    assert _open_descriptors() == before


def _hold_the_lock(spool_directory: str, told: int) -> None:
    with spool.lock(spool_directory) as ours:
        os.write(told, b"%d" % ours)
        signal.pause()


def test_the_lock_dies_with_a_killed_holder(spool_directory: str) -> None:
    hears, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            _hold_the_lock(spool_directory, told)
        finally:
            os._exit(1)
    try:
        os.close(told)
        assert os.read(hears, 1) == b"1"
        with spool.lock(spool_directory) as ours:
            assert not ours
    finally:
        os.close(hears)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with spool.lock(spool_directory) as ours:
        assert ours


def test_a_settled_event_and_its_folder_are_on_the_disk(
    spool_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spool.put(spool_directory, leg())
    on_disk: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: on_disk.append(os.readlink(f"/proc/self/fd/{file}")))

    spool.settle(path)

    assert on_disk == [path, spool_directory]


def test_an_event_that_a_drain_has_taken_need_not_be_settled(spool_directory: str) -> None:
    path = spool.put(spool_directory, leg())
    os.unlink(path)
    before = _open_descriptors()

    spool.settle(path)

    assert _open_descriptors() == before


def test_a_damaged_event_is_an_error_of_value(spool_directory: str) -> None:
    path = spool.put(spool_directory, leg())
    Path(path).write_bytes(b"\xff\x00" + Path(path).read_bytes()[:50])

    with pytest.raises(ValueError, match="codec can't decode"):
        spool.read(path)


def test_events_of_one_moment_in_a_clock_that_stands_still_are_all_kept(
    spool_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1)

    for number in range(5):
        spool.put(spool_directory, leg(id=str(number)))
        spool.put(spool_directory, Ending(str(number), "failed", recording.now()))

    assert len(spool.waiting(spool_directory)) == 10
