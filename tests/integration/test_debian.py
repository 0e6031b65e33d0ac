"""Where the lab gets its packages: Debian's suites on a Debian, elsewhere those of its own apt."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import asterisk, debian
from lab.debian import Apt
from lab.unavailable import LabUnavailable


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "noojee-agi"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This machine says that it is an Ubuntu; its sources are what they are. Its suite."""
    release = platform.freedesktop_os_release()
    with monkeypatch.context() as patched:
        other = {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_CODENAME": "noble"}
        patched.setattr(platform, "freedesktop_os_release", lambda: {**release, **other})
        patched.setattr(debian, "KEYRING", Path("/nonexistent"))
        yield "noble"


def test_another_distribution_gives_its_own_package(elsewhere: str, tmp_path: Path) -> None:
    apt = Apt(elsewhere, tmp_path / "apt")
    apt.download(["logrotate"])

    assert {archive.name.split("_")[0] for archive in apt.archives()} >= {"libc6", "logrotate"}


def test_another_distribution_gives_no_suite_of_debian(elsewhere: str, cache: Path) -> None:
    with pytest.raises(LabUnavailable, match="no apt-get or no Debian keyring"):
        debian.unpack("logrotate", "forky")


def test_the_asterisk_there_is_its_own(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unpack(package: str, suite: str) -> Path:
        asked.append((package, suite))
        raise LabUnavailable("asked for it")

    monkeypatch.setattr(debian, "unpack", unpack)
    monkeypatch.setattr(shutil, "which", {"apt-get": "/usr/bin/apt-get"}.get)

    for version in (None, 22):
        with pytest.raises(LabUnavailable):
            asterisk.find(version)

    assert asked == [("asterisk", elsewhere), ("asterisk", "forky"), ("asterisk", "sid")]


def test_a_machine_without_apt_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with pytest.raises(LabUnavailable, match="install the server itself"):
        debian.own_suite()
