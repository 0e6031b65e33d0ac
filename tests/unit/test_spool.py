"""The spool: a line for each event, in order, none lost between its writer and the drain."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from noojee_agi.recordings import files, journal, recording, rejected, spool
from noojee_agi.recordings.recording import Ending, Event
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


def _waiting(spool_directory: str) -> list[Event]:
    return [recording.from_json(line.decode()) for line in spool.waiting(spool_directory)]


def _journal(spool_directory: str) -> str:
    return os.path.join(spool_directory, "journal")


def test_what_was_put_is_read_in_the_order_in_which_it_came(spool_directory: str) -> None:
    events: list[Event] = [
        leg(tag="M\u00fcller \U0001f600\n\u2028x"),
        Ending(leg().id, "empty", recording.now(), 44, 0.0),
    ]
    events += [leg(id=_id(number % 7)) for number in range(50)]

    for event in events:
        spool.put(spool_directory, event)

    assert _waiting(spool_directory) == events
    assert spool.count(spool_directory) == len(events)


def test_an_event_is_one_line_that_stands_apart_from_what_is_before_it(spool_directory: str) -> None:
    before = _open_descriptors()
    event = leg()
    spool.put(spool_directory, event)

    assert os.listdir(spool_directory) == ["journal"]
    assert Path(_journal(spool_directory)).read_text() == f"\n{recording.to_json(event)}\n"
    assert _open_descriptors() == before


@pytest.mark.usefixtures("open_umask")
def test_files_are_for_owner_and_group_whatever_the_umask(spool_directory: str) -> None:
    spool.put(spool_directory, leg())
    with spool.lock(spool_directory):
        taken = journal.take(spool_directory)
    aside = rejected.set_aside(spool_directory, b"{}", "because")

    assert _mode(spool_directory) == 0o750
    assert _mode(os.path.join(spool_directory, ".lock")) == 0o640
    assert _mode(os.path.join(spool_directory, "rejected")) == 0o750
    made = [_journal(spool_directory), taken, aside, f"{aside}.reason"]
    assert [_mode(file) for file in made] == [0o640] * 4


def test_no_folder_is_made_where_the_recordings_folder_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spool.put(str(tmp_path / "unmounted" / ".spool"), leg())

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("limit", [0, 1, 100])
def test_a_disk_that_fills_up_in_a_line_is_told_and_the_next_line_is_whole(
    spool_directory: str, limit: int
) -> None:
    before = _open_descriptors()
    first, behind = leg(id=_id(1)), leg(id=_id(2))
    spool.put(spool_directory, first)
    size = os.path.getsize(_journal(spool_directory))
    with _files_no_larger_than(size + limit), pytest.raises(OSError, match="File too large"):
        spool.put(spool_directory, leg())
    assert os.path.getsize(_journal(spool_directory)) == size + limit

    spool.put(spool_directory, behind)

    lines = list(spool.waiting(spool_directory))
    assert [lines[0], lines[-1]] == [recording.to_json(event).encode() for event in (first, behind)]
    assert [journal.is_whole(line) for line in lines[1:-1]] == [False] * (limit > 1)
    assert _open_descriptors() == before


def test_a_line_that_was_cut_short_is_written_again_whole_and_not_continued(
    spool_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's may stand between."""
    write, cut = os.write, [40]
    monkeypatch.setattr(
        os, "write", lambda file, content: write(file, content[: cut.pop()] if cut else content)
    )
    event = leg()

    spool.put(spool_directory, event)

    part, whole = spool.waiting(spool_directory)
    assert whole == recording.to_json(event).encode()
    assert part == whole[:39]


def test_a_disk_on_which_no_line_is_ever_whole_is_full(
    spool_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the caller gets its 507."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:10]))

    with pytest.raises(OSError, match="No space left on device") as caught:
        spool.put(spool_directory, leg())

    assert caught.value.errno == errno.ENOSPC


def test_a_writer_whose_journal_was_taken_meanwhile_writes_into_the_present_one(
    spool_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain may have read the old one to its end, and removed it."""
    spool.put(spool_directory, leg(id=_id(1)))
    write, takes = os.write, [_remove, _remove, _remove_and_lay_none]

    def late_write(file: int, content: bytes) -> int:
        if takes:
            takes.pop()(spool_directory)
        return write(file, content)

    monkeypatch.setattr(os, "write", late_write)
    spool.put(spool_directory, leg(id=_id(2)))

    assert takes == []
    assert [recording.leg_id(event) for event in _waiting(spool_directory)] == [_id(2)]


def _remove(spool_directory: str) -> None:
    if journal.is_empty(spool_directory):
        spool.put(spool_directory, leg(id=_id(9)))
    journal.keep_only(journal.take(spool_directory), [])


def _remove_and_lay_none(spool_directory: str) -> None:
    """As a drain that is killed between the two."""
    _remove(spool_directory)
    os.unlink(_journal(spool_directory))


def test_a_journal_that_is_always_taken_is_an_error_in_the_end(
    spool_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_is_at", lambda path, file: False)

    with pytest.raises(BlockingIOError, match="again and again"):
        spool.put(spool_directory, leg())


def test_a_journal_is_taken_under_the_next_number_and_a_fresh_one_lies_there(spool_directory: str) -> None:
    taken = []
    for number in range(12):
        spool.put(spool_directory, leg(id=_id(number)))
        taken.append(os.path.basename(journal.take(spool_directory)))
        assert os.path.getsize(_journal(spool_directory)) == 0
        assert journal.take(spool_directory) == "", "an empty one is not taken"

    assert taken == [f"journal.{number}" for number in range(1, 13)]
    assert [os.path.basename(path) for path in journal.taken(spool_directory)] == taken
    assert [recording.leg_id(event) for event in _waiting(spool_directory)] == list(map(_id, range(12)))
    assert sorted(os.listdir(spool_directory)) == sorted([*taken, "journal"])


@pytest.mark.parametrize("missing", ["create", "link"])
def test_a_fresh_journal_that_cannot_be_laid_is_made_by_the_next_caller(
    spool_directory: str, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """A full disk; a file system without links."""

    def fail(*names: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*{"create": (files, "create"), "link": (os, "link")}[missing], fail)
    spool.put(spool_directory, leg(id=_id(1)))

    assert journal.take(spool_directory)
    assert os.listdir(spool_directory) == ["journal.1"]
    spool.put(spool_directory, leg(id=_id(2)))

    assert [recording.leg_id(event) for event in _waiting(spool_directory)] == [_id(1), _id(2)]


def test_a_caller_s_journal_is_not_laid_over(spool_directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """He comes between the drain's two steps."""
    link = os.link

    def late_link(source: str, target: str) -> None:
        spool.put(spool_directory, leg(id=_id(2)))
        link(source, target)

    monkeypatch.setattr(os, "link", late_link)
    spool.put(spool_directory, leg(id=_id(1)))
    journal.take(spool_directory)

    assert [recording.leg_id(event) for event in _waiting(spool_directory)] == [_id(1), _id(2)]
    assert sorted(os.listdir(spool_directory)) == ["journal", "journal.1"]


def test_a_long_journal_is_read_in_batches(spool_directory: str) -> None:
    for number in range(25):
        spool.put(spool_directory, leg(id=_id(number)))

    found = list(journal.batches(journal.take(spool_directory), 10))

    assert [len(batch) for batch in found] == [10, 10, 5]
    assert [json.loads(line)["id"] for batch in found for line in batch] == list(map(_id, range(25)))


def test_what_is_left_of_a_journal_replaces_it(spool_directory: str) -> None:
    spool.put(spool_directory, leg())
    path = journal.take(spool_directory)

    journal.keep_only(path, [b"one", b"two"])
    assert list(journal.batches(path, 10)) == [[b"one", b"two"]]

    journal.keep_only(path, [])
    assert journal.taken(spool_directory) == []


def test_the_oldest_event_is_the_first_that_can_be_read(spool_directory: str) -> None:
    assert spool.oldest(spool_directory) is None
    spool.append(spool_directory, b'{"ev')
    assert spool.oldest(spool_directory) is None

    first = leg()
    spool.put(spool_directory, first)
    journal.take(spool_directory)
    spool.put(spool_directory, Ending(_id(2), "failed", recording.now()))

    assert spool.oldest(spool_directory) == first.started_at.timestamp()


def test_a_disk_that_fills_up_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    files.write(str(path), "old")

    with _files_no_larger_than(5), pytest.raises(OSError, match="File too large"):
        files.write(str(path), "new and longer")

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["snapshot.json"]


def test_a_name_that_is_taken_by_a_folder_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    with pytest.raises(IsADirectoryError):
        files.write(str(tmp_path / "taken"), "text")

    assert os.listdir(tmp_path) == ["taken"]


def test_no_link_that_somebody_has_put_there_is_followed(spool_directory: str, tmp_path: Path) -> None:
    """Neither to write, nor to read: what is read may end in a file for all to see."""
    victim = tmp_path / "authorized_keys"
    victim.write_text("root's")
    files.make_folder(spool_directory)
    os.symlink(victim, _journal(spool_directory))

    with pytest.raises(OSError, match="symbolic links"):
        spool.put(spool_directory, leg())
    with pytest.raises(OSError, match="symbolic links"):
        files.opened(_journal(spool_directory))

    assert victim.read_text() == "root's"


def test_nobody_s_pipe_is_waited_for(spool_directory: str) -> None:
    files.make_folder(spool_directory)
    os.mkfifo(_journal(spool_directory))

    with pytest.raises(OSError, match="No such device"):
        spool.put(spool_directory, leg())


def test_the_lock_is_no_way_to_make_a_file_elsewhere(spool_directory: str, tmp_path: Path) -> None:
    files.make_folder(spool_directory)
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
        files.write(str(tmp_path / "x"), "text")

    assert len(set(names)) == 20
    assert all(re.fullmatch(r"x\.[0-9a-f]{16}\.tmp", name) for name in names)


def test_a_reason_is_one_line_that_acts_on_no_terminal(spool_directory: str) -> None:
    files.make_folder(spool_directory)

    aside = rejected.set_aside(spool_directory, b"{}", "no leg\nssh-ed25519 AAAA \x1b[2J\u202e")

    assert Path(f"{aside}.reason").read_text() == "no leg?ssh-ed25519 AAAA ?[2J?\n"


def test_a_text_that_is_no_utf_8_is_written_all_the_same(tmp_path: Path) -> None:
    files.write(str(tmp_path / "x"), "a\udc80b")

    assert (tmp_path / "x").read_text() == "a?b"


def test_only_events_are_waiting(spool_directory: str) -> None:
    spool.put(spool_directory, leg())
    for name in (
        "journal.tmp",
        "journal.01",
        "journal.1.0123.tmp",
        "x.json.123.tmp",
        "notes.txt",
        ".identity",
    ):
        Path(spool_directory, name).write_text("{}")

    with spool.lock(spool_directory):
        assert spool.count(spool_directory) == 1


def test_nothing_waits_in_a_spool_that_was_never_made(spool_directory: str) -> None:
    assert spool.count(spool_directory) == 0
    assert rejected.paths(spool_directory) == []
    assert spool.settle(spool_directory) == frozenset()


def test_the_same_line_is_set_aside_once_as_it_is_and_another_beside_it(spool_directory: str) -> None:
    """The drain that did it may have been killed, and the next one does it again."""
    files.make_folder(spool_directory)
    line = b'{"tag": "\xff"}'
    for content in (line, line, b"{}"):
        rejected.set_aside(spool_directory, content, "the database said no")

    found = rejected.paths(spool_directory)
    assert sorted(Path(path).read_bytes() for path in found) == sorted([line, b"{}"])
    assert {Path(f"{path}.reason").read_text() for path in found} == {"the database said no\n"}


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


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been forced to the disk."""
    found: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: found.append(os.readlink(f"/proc/self/fd/{file}")))
    return found


def test_settled_journals_and_their_folder_are_on_the_disk(spool_directory: str, on_disk: list[str]) -> None:
    spool.put(spool_directory, leg())
    taken = journal.take(spool_directory)
    spool.put(spool_directory, leg())

    spool.settle(spool_directory)

    assert on_disk == [taken, _journal(spool_directory), spool_directory]


def test_what_has_not_changed_is_not_settled_again(spool_directory: str, on_disk: list[str]) -> None:
    spool.put(spool_directory, leg())
    taken = journal.take(spool_directory)
    spool.put(spool_directory, leg())
    settled = spool.settle(spool_directory)
    on_disk.clear()

    assert spool.settle(spool_directory, settled) == settled
    assert on_disk == []

    spool.put(spool_directory, leg())
    spool.settle(spool_directory, settled)
    assert on_disk == [_journal(spool_directory), spool_directory]
    assert taken not in on_disk
