"""The kernel tells which files have been closed, and whatever it cannot tell is said to be missing."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.unavailable import LabUnavailable

from noojee_agi.sync.file_watch import Closed, FileWatch

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
QUEUE_LIMIT = 100_000  # events of a queue that a test fills
NOTHING = Closed(frozenset(), True)


@pytest.fixture
def watch() -> Iterator[FileWatch]:
    with contextlib.closing(FileWatch()) as made:
        yield made


@pytest.fixture
def day(tmp_path: Path, watch: FileWatch) -> Path:
    """A folder that is watched."""
    folder = tmp_path / "2026/11/30"
    folder.mkdir(parents=True)
    watch.add(str(folder))
    return folder


def closed(*files: Path) -> Closed:
    return Closed(frozenset(map(str, files)), True)


def written(folder: Path, name: str = "a.wav") -> Path:
    file = folder / name
    file.write_bytes(b"audio")
    return file


@contextlib.contextmanager
def mounted_over(folder: Path) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "lab-disk", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        raise LabUnavailable("a disk must be mounted, and only root may do that: run this test as root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def is_readable(watch: FileWatch) -> bool:
    return bool(select.select([watch], [], [], 0)[0])


def test_a_file_is_told_when_its_writer_closes_it_and_once(watch: FileWatch, day: Path) -> None:
    file = day / "a.wav"
    with file.open("wb") as audio:
        audio.write(b"audio")
        audio.flush()
        assert (is_readable(watch), watch.read()) == (False, NOTHING)

    assert is_readable(watch)
    assert watch.read() == closed(file)
    assert (is_readable(watch), watch.read()) == (False, NOTHING)


def test_who_reads_makes_and_removes_files_and_folders_closes_nothing(watch: FileWatch, day: Path) -> None:
    file = written(day)
    watch.read()

    file.read_bytes()
    file.rename(day / "b.wav")
    (day / "folder").mkdir()
    (day / "b.wav").unlink()

    assert watch.read() == NOTHING


def test_of_many_files_in_several_folders_none_is_missed(watch: FileWatch, day: Path) -> None:
    other = day.parent / "29"
    other.mkdir()
    watch.add(str(other))

    files = [written(folder, f"{number}-\u00e4.wav") for number in range(200) for folder in (day, other)]

    assert watch.read() == closed(*files)


def test_a_folder_that_is_added_twice_is_watched_once(watch: FileWatch, day: Path) -> None:
    watch.add(str(day))
    written(day)
    watch.add(str(day))

    assert watch.read() == closed(day / "a.wav")


def test_a_folder_that_has_two_names_is_told_by_both(watch: FileWatch, day: Path) -> None:
    link = day.parent / "link"
    link.symlink_to(day)
    watch.add(str(link))
    written(day)
    assert watch.read() == closed(day / "a.wav", link / "a.wav")

    watch.keep([str(link)])
    written(day)
    assert watch.read() == closed(link / "a.wav")


def test_a_folder_that_is_not_kept_is_not_watched_and_nothing_seems_missed(
    watch: FileWatch, day: Path
) -> None:
    other = day.parent / "29"
    other.mkdir()
    watch.add(str(other))
    written(other)

    watch.keep([str(day)])
    files = written(day), written(other)

    assert watch.read() == closed(files[0])
    assert watch.refresh() == []


def test_a_folder_that_is_made_later_is_watched_when_it_is_found(watch: FileWatch, tmp_path: Path) -> None:
    folder = tmp_path / "later"
    watch.add(str(folder))
    assert watch.refresh() == []
    folder.mkdir()

    assert watch.refresh() == [str(folder)]
    assert watch.refresh() == []
    written(folder)
    assert watch.read() == closed(folder / "a.wav")


def test_what_is_no_folder_is_not_watched(watch: FileWatch, tmp_path: Path) -> None:
    file = written(tmp_path)
    watch.add(str(file))

    written(tmp_path)

    assert watch.read() == NOTHING


def test_a_folder_in_whose_place_another_has_come_is_watched_anew(watch: FileWatch, day: Path) -> None:
    former = day.rename(day.parent / "former")
    day.mkdir()
    written(day, "missed.wav")

    assert watch.refresh() == [str(day)]
    assert watch.refresh() == []
    files = written(day), written(former)
    assert watch.read() == closed(files[0])


def test_a_folder_that_is_gone_is_told_once_and_watched_again_when_it_is_back(
    watch: FileWatch, day: Path
) -> None:
    away = day.rename(day.parent / "away")
    assert (watch.refresh(), watch.refresh()) == ([str(day)], [])

    away.rename(day)
    assert (watch.refresh(), watch.refresh()) == ([str(day)], [])
    written(day)
    assert watch.read() == closed(day / "a.wav")


@pytest.mark.parametrize("is_read_first", [True, False])
def test_a_folder_that_is_removed_and_made_again_is_watched_though_it_looks_the_same(
    watch: FileWatch, day: Path, is_read_first: bool
) -> None:
    """A file system may give the number of the inode again."""
    day.rmdir()
    day.mkdir()

    seen = [] if is_read_first else watch.refresh()
    told = watch.read()
    seen += watch.refresh()

    assert seen == [str(day)]
    assert not (is_read_first and told.is_all)
    written(day)
    assert watch.read() == closed(day / "a.wav")


def test_a_disk_that_is_mounted_over_a_folder_and_away_again_is_seen(
    watch: FileWatch, tmp_path: Path
) -> None:
    folder = tmp_path / "day"
    folder.mkdir()
    watch.add(str(folder))
    with mounted_over(folder):
        assert watch.refresh() == [str(folder)]
        written(folder)
        assert watch.read() == closed(folder / "a.wav")

    assert not watch.read().is_all
    assert watch.refresh() == [str(folder)]
    written(folder, "b.wav")
    assert watch.read() == closed(folder / "b.wav")


def test_a_queue_that_was_too_short_is_told(watch: FileWatch, day: Path) -> None:
    size = int(QUEUE.read_text())
    if size > QUEUE_LIMIT:
        raise LabUnavailable(f"fs.inotify.max_queued_events is {size}: too many for a test")
    files = [written(day, name) for name in "ab"]
    for number in range(size + 10):  # the same twice, one behind the other, would be one event
        os.close(os.open(files[number % 2], os.O_WRONLY))

    assert watch.read() == Closed(frozenset(map(str, files)), False)
    assert watch.read() == NOTHING


def test_without_room_in_the_kernel_it_is_an_error() -> None:
    """As where all fs.inotify.max_user_instances are taken (inotify_init(2), EMFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # nor in the place of what is closed just then
    try:
        with pytest.raises(OSError, match="Too many open files"):
            FileWatch()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
