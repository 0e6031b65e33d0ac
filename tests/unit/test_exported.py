"""A folder of copies: whole files under their names, nothing replaced, nothing followed."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from noojee_agi.recordings import exported

AUDIO = os.urandom(3_000_000)


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "17-0e5f6b1c.wav"
    path.write_bytes(AUDIO)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[exported.Folder]:
    folder = exported.Folder(str(tmp_path / "to"))
    yield folder
    folder.close()


@pytest.fixture(params=["links", "FAT"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has several names for a file, and one that has not."""
    if request.param == "FAT":

        def link(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("disk")
def test_a_copy_is_whole_and_for_owner_and_group(
    tmp_path: Path, folder: exported.Folder, source: str
) -> None:
    folder.copy(source, "a.wav")
    folder.write("a.csv", "é\n")

    assert (tmp_path / "to/a.wav").read_bytes() == AUDIO
    assert (tmp_path / "to/a.csv").read_text(encoding="utf-8") == "é\n"
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "to").iterdir()} == {
        "a.wav": 0o640,
        "a.csv": 0o640,
    }
    assert stat.S_IMODE((tmp_path / "to").stat().st_mode) == 0o750


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("there", ["file", "link", "dangling link", "folder"])
def test_what_is_there_stays_as_it_is(
    tmp_path: Path, folder: exported.Folder, source: str, there: str
) -> None:
    outside, name = tmp_path / "outside", tmp_path / "to/a.wav"
    outside.mkdir()
    (outside / "file").write_text("theirs")
    if there == "file":
        name.write_text("theirs")
    elif there == "folder":
        name.mkdir()
    else:
        name.symlink_to(outside / ("file" if there == "link" else "new"))
    before = name.lstat()

    with pytest.raises(FileExistsError):
        folder.copy(source, "a.wav")

    assert (name.lstat().st_ino, name.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "theirs"
    assert os.listdir(tmp_path / "to") == ["a.wav"]


@pytest.mark.parametrize("name", ["../a.wav", "/a.wav", "b/a.wav", ".a.wav", "..", "."])
def test_a_copy_lies_in_the_folder_itself(
    tmp_path: Path, folder: exported.Folder, source: str, name: str
) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        folder.copy(source, name)

    assert os.listdir(tmp_path / "to") == []


def test_it_stays_the_same_folder_when_its_name_leads_elsewhere(
    tmp_path: Path, folder: exported.Folder, source: str
) -> None:
    (tmp_path / "to").rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "to").symlink_to(tmp_path / "elsewhere")

    folder.copy(source, "a.wav")

    assert os.listdir(tmp_path / "elsewhere") == []
    assert os.listdir(tmp_path / "moved") == ["a.wav"]


@pytest.mark.usefixtures("disk")
def test_nothing_is_left_of_a_copy_that_the_disk_had_no_room_for(
    tmp_path: Path, folder: exported.Folder, source: str
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            folder.copy(source, "a.wav")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert os.listdir(tmp_path / "to") == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing"])
def test_only_a_file_is_copied(tmp_path: Path, folder: exported.Folder, source: str, kind: str) -> None:
    path = tmp_path / "other.wav"
    if kind == "link":
        path.symlink_to(source)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()

    with pytest.raises(OSError, match=r".") as caught:
        folder.copy(str(path), "a.wav")

    assert isinstance(caught.value, FileNotFoundError) == (kind == "nothing")
    assert os.listdir(tmp_path / "to") == []


def test_a_folders_parent_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        exported.Folder(str(tmp_path / "missing/to"))
