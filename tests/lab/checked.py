"""An installation of which `noojee-agi check` says that all is well, until a fault is planted.

Its folders belong to another user than root, as Asterisk's do, so only root can plant what there is to find.
"""

from __future__ import annotations

import functools
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lab import check_server, loaded_client
from lab.check_server import Look
from lab.loaded_command import loaded
from lab.site import PROGRAMS
from lab.unavailable import LabUnavailable
from noojee_agi.actions import access
from noojee_agi.cli.check.stage import FAILED, Stage
from noojee_agi.cli.settings import save_settings
from noojee_agi.config import Config
from noojee_agi.database import settings
from noojee_agi.database.store import Store
from noojee_agi.recordings import history, spool
from noojee_agi.sync import renew_snapshot

USER = "nobody"
KEY = "a key of some length"
_CURE_SECONDS = 60
_WORDS = "[recordings]\ndirectory = {0}/recordings\nmin_free_percent = 0\n[state]\ndirectory = {0}/state\n"


class Checked:
    """Lives in `folder`, which everybody can enter. programs: where our commands are installed.

    template: a SQLite database with the tables; url: of another database.
    """

    def __init__(self, folder: Path, programs: Path, template: Path, url: str = "") -> None:
        if os.geteuid() != 0:
            raise LabUnavailable("only root can plant what is root's: run this test as root")
        self.folder = folder
        self.programs = programs
        self.conf = folder / "etc/noojee_agi.conf"
        self.recordings = folder / "recordings"
        self.state = folder / "state"
        self.database = self.state / "noojee.db"
        self.url = url or f"sqlite:///{self.database}"
        self.tools = folder / "tools"
        self.asterisk_conf = folder / "etc/asterisk.conf"
        self.environment: dict[str, str] = {}
        self._template = template
        for path in (self.conf.parent, self.tools):
            path.mkdir(parents=True, exist_ok=True)
        self.make_anew()

    def make_anew(self) -> None:
        """As it should be, whatever it was."""
        for path in (self.folder, self.conf.parent):
            path.chmod(0o755)
        for path in (self.recordings, self.state):
            if path.is_symlink() or path.is_file():
                path.unlink()
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o750)
        self.configure()
        if self.url.startswith("sqlite"):
            shutil.copy(self._template, self.database)
        store = Store(self.url)
        with store.transaction() as connection:
            settings.set_key_digest(connection, access.digest(KEY))
        renew_snapshot.run(store, str(self.state / "snapshot.json"))
        save_settings(store, Config.load(str(self.conf)))
        history.remember(str(self.state), os.uname().nodename, str(self.recordings))
        (self.state / "noojee-agi.log").touch(0o640)
        spool.append(str(self.recordings / ".spool"), b"")
        self.give(self.recordings)
        self.give(self.state)

    def configure(self, more: str = "") -> None:
        """Write noojee_agi.conf; more: lines behind what is always there."""
        database = f"[database]\nurl = {self.url}\n"
        self.conf.unlink(missing_ok=True)
        self.conf.write_text(f"{_WORDS.format(self.folder)}{database}{more or _listen()}")
        self.conf.chmod(0o644)

    def give(self, path: Path, user: str = USER) -> Path:
        """To that user, with all that is below it."""
        account = pwd.getpwnam(user)
        for each in [path, *path.rglob("*")]:
            os.lchown(each, account.pw_uid, account.pw_gid)
        return path

    def look(self, is_real: bool = False, patched: Callable[[], None] | None = None) -> list[Stage]:
        """What check says, run by root, in a process of its own, that becomes whom it becomes.

        is_real: the programs are run, too. patched: called there before.
        """
        environment = {"NOOJEE_AGI_CONF": str(self.conf), **self.environment}
        look = Look(environment, str(self.programs), str(self.asterisk_conf), is_real)
        said = _forked(look, patched) if patched else _asked(look)
        assert said.strip(), "check has not come to its end"
        return [Stage(*each) for each in json.loads(said)]

    def failed(self, is_real: bool = False, patched: Callable[[], None] | None = None) -> dict[str, Stage]:
        """The stages that fail."""
        return {each.name: each for each in self.look(is_real, patched) if each.state == FAILED}

    def cure(self, words: str) -> None:
        """Run what is printed in a shell, as root; tools of ours stand for what is not here.

        Our command is run by lab.loaded_command.
        """
        ours = self.programs / "noojee-agi"
        if self.programs == PROGRAMS:
            socket = loaded(ours).of_drains["LAB_LOADED_DRAIN"]
            self.tool("noojee-agi", f'exec {sys.executable} -I -S {loaded_client.__file__} {socket} "$@"')
            words = words.replace(str(ours), str(self.tools / "noojee-agi"))
        done = subprocess.run(
            ["bash", "-c", words],
            cwd=self.folder,
            env={
                "PATH": f"{self.tools}:{os.environ['PATH']}",
                "NOOJEE_AGI_CONF": str(self.conf),
                "HOME": "/root",
                **self.environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=_CURE_SECONDS,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"

    def tool(self, name: str, script: str) -> None:
        """A command that this machine has not, or that must not be the real one."""
        path = self.tools / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The one of this test process, which ends with it."""
    return subprocess.Popen(
        [sys.executable, "-I", check_server.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def _asked(look: Look) -> str:
    server = _server()
    assert server.stdin
    assert server.stdout
    print(json.dumps(look), file=server.stdin, flush=True)
    return server.stdout.readline()


def _forked(look: Look, patched: Callable[[], None]) -> str:
    hears, tells = os.pipe()
    child = os.fork()
    if not child:
        os.close(hears)
        check_server.end_with(tells, look, patched)
    os.close(tells)
    with open(hears, encoding="utf-8") as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


def _listen() -> str:
    return "[server]\nlisten =\n"
