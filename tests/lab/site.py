"""One installation of noojee-agi: its folders, its configuration, its key, and its command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lab import processes
from lab.loaded_command import loaded
from lab.waiting import wait_until
from noojee_agi.actions import access
from noojee_agi.config import Config
from noojee_agi.database import queries
from noojee_agi.database.store import Store
from noojee_agi.errors import StoreUnavailable
from noojee_agi.sync import opening

PROGRAMS = Path(sys.executable).parent

# Options of `noojee-agi recordings` that have another name in queries.Filter.
FILTERS = {"--as": "heard_by", "--id": "leg_id"}


class Site:
    """Lives in `folder`; `database_url` is SQLite in the state folder unless given.

    `programs`: where our commands are installed. has_loaded_drains: its drains and its server need not begin
    with half a second of imports; where they are measured or killed at any moment, they do.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str = "",
        programs: Path = PROGRAMS,
        has_loaded_drains: bool = True,
    ) -> None:
        self.has_loaded_drains = has_loaded_drains
        self._stores: dict[str, Store] = {}
        self.folder = folder
        self.programs = programs
        self.recordings_directory = folder / "recordings"
        self.state_directory = folder / "state"
        self.agi_directory = folder / "agi-bin"
        self.conf = folder / "etc/noojee_agi.conf"
        self.database_url = database_url or f"sqlite:///{self.state_directory}/noojee.db"
        self.key = str(uuid.uuid4())
        for directory in (self.recordings_directory, self.state_directory, self.agi_directory):
            directory.mkdir(parents=True, mode=0o750)
        self.conf.parent.mkdir()
        self.configure()
        if programs in _installed and not database_url:
            _installed[programs].copy_to(self)
            return
        if database_url:
            self.cli("db", "upgrade")
        self.cli("apikey", "set", text=self.key + "\n")
        self.cli("install-agi", str(self.agi_directory))
        if not database_url:
            _installed[programs] = _Installed(self)

    @property
    def snapshot(self) -> Path:
        return self.state_directory / "snapshot.json"

    @property
    def environment(self) -> dict[str, str]:
        of_drains = loaded(self.programs / "noojee-agi").of_drains if self.has_loaded_drains else {}
        return {"NOOJEE_AGI_CONF": str(self.conf), **of_drains}

    def configure(self, options: Mapping[str, str] | None = None) -> None:
        """Write noojee_agi.conf: our folders, and `{"recordings.format": "gsm"}` on top of that.

        A program that reads it meanwhile has the old one or the new one, never half of it.
        """
        values = {
            "database.url": self.database_url,
            "recordings.directory": str(self.recordings_directory),
            "recordings.min_free_percent": "0",
            "server.listen": "127.0.0.1:0",  # check looks whether it is free, and others may have 4573
            "state.directory": str(self.state_directory),
            "log.level": "debug",
            **(options or {}),
        }
        sections: dict[str, list[str]] = {}
        for name, value in values.items():
            section, option = name.split(".")
            sections.setdefault(section, [f"[{section}]"]).append(f"{option} = {value}")
        text = "\n".join(line for lines in sections.values() for line in lines) + "\n"
        new = self.conf.with_suffix(".new")
        new.write_text(text)
        if self.conf.exists():
            shutil.copystat(self.conf, new)
            owner = self.conf.stat()
            os.chown(new, owner.st_uid, owner.st_gid)
        new.replace(self.conf)

    def cli(self, *words: str, text: str = "", may_fail: bool = False) -> str:
        """What `noojee-agi WORDS` prints; with may_fail, also what it says on standard error."""
        done = self.run_cli(*words, text=text)
        if may_fail:
            return done.stdout + done.stderr
        assert done.returncode == 0, f"noojee-agi {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def record(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`noojee-agi record WORDS`, with the key in the environment."""
        return self.run_cli("record", *words, environment={"NOOJEE_AGI_KEY": self.key})

    def run_cli(
        self, *words: str, text: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        asked = {**self.environment, **(environment or {})}
        return loaded(self.programs / "noojee-agi").run(words, text, asked)

    def legs(self, *words: str) -> list[dict[str, Any]]:
        """As `noojee-agi recordings --json` with these filters, in this process: tests ask often."""
        known = Config.load(str(self.conf))
        names = (FILTERS.get(word, word.removeprefix("--")) for word in words[::2])
        wanted = queries.Filter(**dict(zip(names, words[1::2], strict=True)))  # type: ignore[arg-type]
        if store := self._stores.get(known.database_url):  # it has its queries compiled
            with contextlib.suppress(StoreUnavailable), store.reading() as connection:
                return [_plain(leg) for leg in queries.legs(connection, wanted)]
        store = self._stores.setdefault(known.database_url, opening.open_database(known))
        with store.reading() as connection:
            return [_plain(leg) for leg in queries.legs(connection, wanted)]

    def wait_for_legs(self, *words: str, count: int = 1, status: str | None = None) -> list[dict[str, Any]]:
        """These legs, once there are `count` of them, all of that status."""

        def all_there() -> list[dict[str, Any]] | None:
            legs = self.legs(*words)
            is_right = len(legs) == count and all(status in (None, leg["status"]) for leg in legs)
            return legs if is_right else None

        what = f"{count} legs {' '.join(words)} of status {status}"
        return wait_until(all_there, 60.0, what, lambda: self.legs(*words))

    def audio_files(self) -> list[Path]:
        return [path for path in self.recordings_directory.rglob("*.wav") if path.is_file()]

    def log(self) -> str:
        path = self.state_directory / "noojee-agi.log"
        return path.read_text() if path.exists() else ""

    def processes(self) -> list[int]:
        """Our programs that run for this site now, drains in the background included."""
        marks = (str(self.conf).encode(), str(self.agi_directory).encode())
        return [pid for pid, words in processes.told("cmdline") if any(mark in words for mark in marks)]

    def drains(self) -> list[int]:
        """Those of them that are drains in the background, at work or only loading."""
        marks = (str(self.conf).encode(), b"noojee_agi.sync")
        return [pid for pid, words in processes.told("cmdline") if all(mark in words for mark in marks)]


class _Installed:
    """What the commands have made of a new site, for all further ones: they take 160 ms, a copy takes one."""

    def __init__(self, site: Site) -> None:
        self._files = {
            path.relative_to(site.folder): path.read_bytes()
            for folder in (site.state_directory, site.recordings_directory)
            for path in folder.iterdir()
        }
        self._links = {path.name: path.readlink() for path in site.agi_directory.iterdir()}
        known = json.loads(site.snapshot.read_text())
        self._digest, self._read_at = known["key_digest"], known["read_at"]

    def copy_to(self, site: Site) -> None:
        """With the site's own key, whose digest is as long as the former one's, and a snapshot of now."""
        digest, now = access.digest(site.key), datetime.now(timezone.utc).isoformat(timespec="microseconds")
        for path, content in self._files.items():
            content = content.replace(self._digest.encode(), digest.encode())
            (site.folder / path).write_bytes(content.replace(self._read_at.encode(), now.encode()))
            (site.folder / path).chmod(0o640)
        for name, program in self._links.items():
            (site.agi_directory / name).symlink_to(program)


_installed: dict[Path, _Installed] = {}


def _plain(leg: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: times as text, and without what only side-cars show."""
    shown = {name: value for name, value in leg.items() if name not in ("server", "call_started_at")}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in shown.items()
    }
