"""What the state directory remembers: by what name a server is known, and which disk is which."""

from __future__ import annotations

import fcntl
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from noojee_agi import config
from noojee_agi.config import Config
from noojee_agi.recordings import files, history, recording, spool


@pytest.fixture
def state(tmp_path: Path) -> str:
    (tmp_path / "state").mkdir()
    return str(tmp_path / "state")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    (tmp_path / "recordings").mkdir()
    return tmp_path / "recordings"


class Host:
    """This machine under another name, or another one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._machine_id = folder / "machine-id"
        self.become("pbx1", "machine-1")

    def become(self, name: str, machine_id: str) -> None:
        self._machine_id.write_text(f"{machine_id}\n")
        self._monkeypatch.setattr(history, "_MACHINE_ID", str(self._machine_id))
        here = os.uname_result(("Linux", name, "6.1", "#1", "x86_64"))
        self._monkeypatch.setattr(os, "uname", lambda: here)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return Host(monkeypatch, tmp_path)


def configured(state: str, recordings: Path, name: str = "") -> config.Config:
    """As it is read from a file."""
    path = Path(state).parent / "noojee_agi.conf"
    server = f"[server]\nname = {name}\n" if name else ""
    path.write_text(f"[recordings]\ndirectory = {recordings}\n[state]\ndirectory = {state}\n{server}")
    return Config.load(str(path))


def remember(state: str, recordings: Path, name: str = "") -> history.History:
    """As a drain does."""
    known = configured(state, recordings, name)
    return history.remember(state, known.server_name, known.recordings_directory)


def test_a_host_that_is_renamed_stays_the_same_server(state: str, recordings: Path, host: Host) -> None:
    remember(state, recordings)

    for name in ("pbx2", "pbx1", "pbx3"):
        host.become(name, "machine-1")
        assert configured(state, recordings).server_name == "pbx1"
        assert list(remember(state, recordings).servers) == ["pbx1"]


def test_before_the_first_drain_the_name_is_the_host_s(state: str, recordings: Path, host: Host) -> None:
    assert configured(state, recordings).server_name == "pbx1"
    assert configured("/nonexistent", recordings).server_name == "pbx1"


def test_a_name_that_is_configured_counts_and_the_host_s_comes_back_after_it(
    state: str, recordings: Path, host: Host
) -> None:
    remember(state, recordings)
    host.become("pbx2", "machine-1")

    assert configured(state, recordings, "sales").server_name == "sales"
    known = remember(state, recordings, "sales")

    assert known.servers["sales"] is None
    assert known.servers["pbx1"] is not None
    assert configured(state, recordings).server_name == "pbx1"


def test_a_copied_machine_is_another_server(state: str, recordings: Path, host: Host) -> None:
    """Two of one name in one database would close each other's legs."""
    remember(state, recordings)

    host.become("pbx2", "machine-2")

    assert configured(state, recordings).server_name == "pbx2"
    assert list(remember(state, recordings).servers) == ["pbx2"]


def test_a_former_name_is_ours_until_it_was_given_up(state: str, recordings: Path, host: Host) -> None:
    """It may be another host's since."""
    before = recording.now()
    remember(state, recordings, "sales")
    known = remember(state, recordings, "service")
    later = recording.now() + timedelta(seconds=1)

    ours = {(name, at) for name in ("sales", "service", "other") for at in (before, later)}

    assert {(name, at) for name, at in ours if known.is_ours(name, at)} == {
        ("sales", before),
        ("service", before),
        ("service", later),
    }


def test_names_that_change_to_and_fro_are_all_kept(state: str, recordings: Path, host: Host) -> None:
    for name in ("sales", "a name with blanks", "sales", "-", "☎"):
        known = remember(state, recordings, name)

    assert set(known.servers) == {"sales", "a name with blanks", "-", "☎"}
    assert [name for name, until in known.servers.items() if until is None] == ["☎"]
    assert history.load(state) == known


def test_a_folder_that_is_not_there_is_not_noted_and_not_made(state: str, tmp_path: Path) -> None:
    known = history.remember(state, "pbx1", str(tmp_path / "none"))

    assert known.directories == {}
    assert not (tmp_path / "none").exists()


def test_another_disk_is_known_by_its_spool(state: str, recordings: Path) -> None:
    known = remember(state, recordings)
    assert not known.is_away(str(recordings))
    recordings.rename(recordings.with_name("disk"))
    assert known.is_away(str(recordings))

    recordings.mkdir()
    files.make_folder(spool.directory_in(str(recordings)))

    assert known.is_away(str(recordings))
    assert remember(state, recordings).is_away(str(recordings)), "until somebody says that this is the disk"


def test_recordings_that_were_moved_whole_leave_nothing_to_follow(state: str, recordings: Path) -> None:
    remember(state, recordings)
    moved = recordings.with_name("moved")
    recordings.rename(moved)

    known = remember(state, moved)

    assert list(known.directories) == [str(moved)]
    assert not known.is_away(str(moved))


def test_recordings_that_were_copied_may_still_get_events(state: str, recordings: Path) -> None:
    remember(state, recordings)
    copy = recordings.with_name("copy")
    (copy / ".spool").mkdir(parents=True)
    (copy / ".spool/.identity").write_bytes((recordings / ".spool/.identity").read_bytes())

    assert remember(state, copy).former(str(copy)) == [str(recordings)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "server",
        "server - \nserver yesterday x\nserver 2026-01-01T00:00:00 x\nrecordings x relative\nmachine",
        "\0\n\xff\n" * 100,
        f"host {'x' * 256}\n",
    ],
)
def test_a_damaged_file_is_as_good_as_none(state: str, recordings: Path, host: Host, text: str) -> None:
    Path(history.path_in(state)).write_text(text)

    assert configured(state, recordings).server_name == "pbx1"
    assert remember(state, recordings).servers["pbx1"] is None
    assert str(recordings) in history.load(state).directories


def test_what_lies_in_its_place_is_not_waited_for(state: str, recordings: Path, host: Host) -> None:
    """A call reads it."""
    os.mkfifo(history.path_in(state))

    assert configured(state, recordings).server_name == "pbx1"


def test_it_waits_for_no_reader_of_the_database(state: str, recordings: Path) -> None:
    """That one holds the folder itself, for up to 10 s. And NFS locks no folder."""
    folder = os.open(state, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        remembering = threading.Thread(target=remember, args=(state, recordings), daemon=True)
        remembering.start()
        remembering.join(10)
        assert not remembering.is_alive()
    finally:
        os.close(folder)
    assert os.stat(os.path.join(state, "history.lock")).st_mode & 0o777 == 0o640


def test_nothing_is_written_again_that_is_known(state: str, recordings: Path) -> None:
    remember(state, recordings)
    before = os.stat(history.path_in(state))

    remember(state, recordings)

    assert os.stat(history.path_in(state)).st_ino == before.st_ino
    assert before.st_mode & 0o007 == 0
