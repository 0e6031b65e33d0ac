"""An installation whose database can be lost, and everything that can stand in one."""

from __future__ import annotations

import os
import subprocess
import wave
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from lab.site import PROGRAMS
from lab.umask import kept_umask
from sqlalchemy import insert, select

from integration.recorder import Recorder, after, ended, exit_code, forked
from noojee_agi import cli
from noojee_agi.actions import access
from noojee_agi.config import Config
from noojee_agi.database import schema, settings, tables
from noojee_agi.database.store import Store
from noojee_agi.recordings import recording, sidecar
from noojee_agi.recordings.recording import Access, Attachment, Leg, Note
from noojee_agi.sync import __main__ as background_drain
from noojee_agi.sync import opening, renew_snapshot

KEY = "a key of some length"
Dump = dict[str, list[dict[str, Any]]]


def dump(store: Store) -> Dump:
    """Every row of every table."""
    with store.reading() as connection:
        return {
            table.name: [
                dict(row._mapping)
                for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in tables.metadata.sorted_tables
        }


class LosableSite:
    """Its own folders, configuration and database; remove is what loses the latter."""

    def __init__(self, folder: Path, url: str, remove: Callable[[], None]) -> None:
        self.url = url
        self.recorder = Recorder(schema.open_store(url), folder / "recordings")
        self.recordings = folder / "recordings"
        self.state = folder / "state"
        self.state.mkdir()
        self.conf = folder / "noojee_agi.conf"
        self.remove = remove
        self.configure()

    @property
    def store(self) -> Store:
        return self.recorder.store

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "NOOJEE_AGI_CONF": str(self.conf)}

    @property
    def settings_copy(self) -> Path:
        return self.recordings / ".settings.json"

    @property
    def snapshot(self) -> Path:
        return self.state / "snapshot.json"

    def configure(self, server: str = "pbx1") -> None:
        self.conf.write_text(
            f"[database]\nurl = {self.url}\n[recordings]\ndirectory = {self.recordings}\n"
            f"min_free_percent = 0\n[state]\ndirectory = {self.state}\n[server]\nname = {server}\n"
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`noojee-agi WORDS` in this process, which is quicker."""
        with kept_umask():
            done = CliRunner(env=self.environment).invoke(cli.cli, words)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """`noojee-agi WORDS` as a process of its own."""
        command: list[str | Path] = [PROGRAMS / "noojee-agi", *words]
        return subprocess.Popen(command, env=self.environment, **options)

    def sync(self) -> str:
        """What a plain sync prints."""
        return _successful(self.run("sync"))

    def rebuild(self) -> str:
        """What `noojee-agi sync --rebuild` prints; it must succeed."""
        return _successful(self.run("sync", "--rebuild"))

    def rebuild_in_a_fork(self) -> None:
        """The same, in a process that ends with it; see recorder.forked."""
        os.environ["NOOJEE_AGI_CONF"] = str(self.conf)
        cli.cli(["sync", "--rebuild"], standalone_mode=False)

    def drain_in_a_fork(self) -> None:
        """What each call starts, in a process that ends with it."""
        background_drain.main(str(self.conf))

    def empty(self) -> None:
        """No table has a row any more."""
        with self.store.transaction() as connection:
            for table in reversed(tables.metadata.sorted_tables):
                connection.execute(table.delete())

    def lose(self) -> None:
        """The database is gone, and there is a new one: what `noojee-agi db upgrade` does when it is made."""
        self.empty()
        opening.restore_settings(self.store, Config.load(str(self.conf)))
        renew_snapshot.run(self.store, str(self.snapshot))

    def background_drain(self) -> None:
        """The drain that each call starts, in a process of its own."""
        assert exit_code(forked(self.drain_in_a_fork)) == 0

    def log(self) -> str:
        return (self.state / "noojee-agi.log").read_text()

    def dump(self) -> Dump:
        return dump(self.store)

    def insert(self, table: str, *rows: dict[str, Any]) -> None:
        with self.store.transaction() as connection:
            connection.execute(insert(tables.metadata.tables[table]), list(rows))

    def files(self) -> dict[str, tuple[int, bytes]]:
        """What lies in the recordings folder: path -> when it was changed, and its content."""
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes())
            for path in self.recordings.rglob("*")
            if path.is_file()
        }

    def side_car(self, leg: Leg) -> Path:
        return Path(sidecar.path_for(leg.file))

    # --- what there is to lose ---

    def set_up(self) -> None:
        """The key, four people in two groups and a team, and three telephones that went round."""
        team = recording.new_id()
        with self.store.transaction() as connection:
            settings.set_key_digest(connection, access.digest(KEY))
            settings.add_account(connection, "ann", "Ann O'Neill ☎", ("Agent",))
            settings.add_account(connection, "fred", "Fred", ("Agent", "Recording Manager"))
            settings.add_account(connection, "lena", "lena", ())
            settings.add_account(connection, "gone", "Who left", ())
            is_gone = tables.account.c.login == "gone"
            connection.execute(tables.account.update().where(is_gone).values(enabled=False))
            attachments = [
                _attachment("410", "lena", after(-9000), after(-3600)),
                _attachment("410", "ann", after(-3600), None),
                _attachment("411", "gone", after(-9000), after(3600)),
                _attachment("411", "fred", after(3600), None),
                _attachment("412", "lena", after(-9000), after(-8000)),
            ]
            connection.execute(insert(tables.extension_attachment), attachments)
            connection.execute(insert(tables.team), {"id": team, "name": "Sales ☎"})
            members = [
                _member(team, "ann", after(-9000), after(-5000), True),
                _member(team, "ann", after(-4000), None, False),
                _member(team, "lena", after(-9000), None, True),
            ]
            connection.execute(insert(tables.team_member), members)
        self.recorder.store_all(
            Attachment("413", after(-100), "ann"),
            Attachment("413", after(-50), ""),
            Attachment("413", after(-75), "lena"),  # it comes late
        )
        self.sync()

    def record_everything(self) -> list[Leg]:
        """Calls with one leg and with several, on two servers, each kind of owner and each kind of end."""
        with self.recorder.together():
            legs = [
                self.completed(tag="INV-1", agent_login_name="fred", agent_known=True),
                self.completed(tag="☎ 'INV' \"22\" " + "x" * 200, started_at=after(70), extensions=("410",)),
                self.ending_as("empty", self.leg(started_at=after(140), extensions=("777",))),
                self.ending_as("failed", self.leg(server="pbx2", started_at=after(5), extensions=("411",))),
                self.completed(
                    server="pbx2", started_at=after(4000), extensions=("411",), peer_channel="SIP/9-1"
                ),
                self.interrupted(call_uniqueid="1700000001.1", tag="INV-3", started_at=after(90_000)),
                self.gsm(call_uniqueid="1700000002.1", agent_login_name="ghost", agent_known=False),
                self.running(call_uniqueid="1700000003.1", tag="INV-5", peer_uniqueid="pbx-1700000003.2"),
                self.completed(call_uniqueid="1700000003.1", started_at=after(1), source="", did=""),
                self.completed(call_uniqueid="1700000004.1", extension="411", extensions=("411", "410")),
            ]
        self.do_everything_with(legs)
        assert self.recorder.waiting() == []
        return legs

    def do_everything_with(self, legs: list[Leg]) -> None:
        """What can be noted of legs: holds, accesses, a purge."""
        held, released, purged = legs[0].id, legs[1].id, legs[9]
        os.unlink(purged.file)
        self.recorder.store_all(
            Note(held, after(10), "paused"),
            Note(held, after(20), "resumed", "fred"),
            Note(held, after(30), "stopped", "fred"),
            Note(held, after(5000), "held", "lena", "INV-1 ☎ goes to court\nin 2027"),
            Note(released, after(5000), "held"),
            Note(released, after(5001), "released", None, "a mistake"),
            Note(purged.id, after(6000), "purged", None, "older than 90 days"),
            Access(recording.new_id(), held, after(5100), "ann", "played", False, "192.0.2.7"),
            Access(recording.new_id(), held, after(5101), "fred", "downloaded", True, "2001:db8::7"),
            Access(recording.new_id(), purged.id, after(5102), "fred", "exported", True, ""),
        )

    def leg(self, **changes: Any) -> Leg:
        return self.recorder.leg(**changes)

    def completed(self, seconds: float = 1.0, **changes: Any) -> Leg:
        leg = self.leg(**changes)
        write_wav(leg.file, seconds)
        return self.ending_as("completed", leg)

    def ending_as(self, status: str, leg: Leg) -> Leg:
        """Store the leg, and that it has ended as its file says."""
        if status == "empty":
            write_wav(leg.file, 0)
        ending = recording.ending(leg.id, leg.file, leg.started_at)
        assert ending.status == status
        self.recorder.store_all(leg, ended(leg, **_how(ending)))
        return leg

    def interrupted(self, **changes: Any) -> Leg:
        leg = self.leg(**changes)
        write_wav(leg.file, 2)
        _forget_length(leg.file)
        self.recorder.store_all(leg, ended(leg, status="interrupted", bytes=32_044, duration_seconds=2.0))
        return leg

    def gsm(self, **changes: Any) -> Leg:
        leg = self.leg(**changes)
        leg = self.leg(**{**changes, "id": leg.id, "file": f"{os.path.splitext(leg.file)[0]}.gsm"})
        Path(leg.file).write_bytes(b"\xd2" * 3300)
        return self.ending_as("completed", leg)

    def running(self, **changes: Any) -> Leg:
        """A leg that is being recorded."""
        leg = self.leg(**changes)
        write_wav(leg.file, 1)
        _forget_length(leg.file)
        keep_growing(leg.file)
        self.recorder.store_all(leg)
        return leg

    def left_alone(self, seconds: float = 1.0, **changes: Any) -> Leg:
        """A leg whose end nobody tells: Asterisk died."""
        leg = self.leg(**changes)
        write_wav(leg.file, seconds)
        _forget_length(leg.file)
        set_age(leg.file, 3600)
        self.recorder.store_all(leg)
        return leg


def _successful(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def _attachment(extension: str, login: str, since: datetime, until: datetime | None) -> dict[str, Any]:
    return {
        "extension": extension,
        "account_id": settings.account_id(login),
        "attached_at": since,
        "detached_at": until,
    }


def _member(
    team: str, login: str, since: datetime, until: datetime | None, is_leader: bool
) -> dict[str, Any]:
    return {
        "team_id": team,
        "account_id": settings.account_id(login),
        "joined_at": since,
        "left_at": until,
        "is_leader": is_leader,
    }


def _how(ending: recording.Ending) -> dict[str, Any]:
    return {
        "status": ending.status,
        "bytes": ending.bytes,
        "duration_seconds": ending.duration_seconds,
    }


def write_wav(path: str, seconds: float) -> None:
    """As MixMonitor leaves it: 8 kHz, 16 bit, mono."""
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\1\2" * int(8000 * seconds))


def _forget_length(path: str) -> None:
    """What a crash of Asterisk leaves behind."""
    with Path(path).open("r+b") as file:
        for at in (4, 40):
            file.seek(at)
            file.write(bytes(4))


def set_age(path: str | Path, seconds: float) -> None:
    """The file was changed so long ago."""
    then = recording.now().timestamp() - seconds
    os.utime(path, (then, then))


def keep_growing(path: str) -> None:
    """The file is never old enough to be taken for one that nobody writes any more."""
    set_age(path, -86_400)
