"""The Asterisk that runs here, as its own command line tells of it."""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from noojee_agi import paths
from noojee_agi.asterisk import console
from noojee_agi.asterisk.console import Console
from noojee_agi.cli import identity
from noojee_agi.cli.check import cures, stage
from noojee_agi.config import Config
from noojee_agi.errors import ConsoleUnavailable, NoojeeError

_SETTING = re.compile(r"^\s*([A-Z][^:\n]*):+[ \t]+(\S.*?)[ \t]*$", re.MULTILINE)


class Line(NamedTuple):
    """A line of the dialplan that is loaded. where: file and number, as file:number, or who made it."""

    context: str
    extension: str
    application: str
    data: str
    where: str


class Running:
    """What is asked once, for all stages. conf: its asterisk.conf. Methods raise NotSeen."""

    def __init__(self, conf: str) -> None:
        self.conf = conf
        self._why = ""
        self._console: Console | None = None
        try:
            self._console = console.at(conf)
        except OSError as exc:
            self._why = f"{conf}: {exc.strerror}"

    @property
    def console(self) -> Console:
        if not self._console:
            raise stage.NotSeen(*self._elsewhere(self._why))
        return self._console

    def ask(self, command: str) -> str:
        try:
            return self.console.ask(command)
        except ConsoleUnavailable as exc:
            raise stage.NotSeen(*self._elsewhere(str(exc))) from exc

    @property
    def socket(self) -> str:
        """Its path; empty: not known."""
        return self._console.path if self._console else ""

    @cached_property
    def owner(self) -> int | None:
        """The number of the user as whom it runs; None: not seen."""
        try:
            return self.console.owner()
        except (stage.NotSeen, ConsoleUnavailable):
            return None

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """`core show settings`."""
        return dict(_SETTING.findall(self.ask("core show settings")))

    def setting(self, name: str) -> str:
        try:
            return self.settings[name]
        except KeyError as exc:
            raise stage.NotSeen(f"this Asterisk does not tell its {name}") from exc

    @cached_property
    def environment(self) -> dict[str, str]:
        """What its programs get of it, as far as we ask for it (res_agi.c launch_script)."""
        said = self.ask("dialplan eval function ENV(NOOJEE_AGI_CONF)")
        found = re.search(r"Success \(0\)\s*^Result: ?(.*)$", said, re.MULTILINE)
        # Without func_env it does not tell: then it is taken to be as ours, and the modules' stage fails.
        named = found[1].strip() if found else os.environ.get("NOOJEE_AGI_CONF", "")
        variables = {"NOOJEE_AGI_CONF": named} if named else {}
        return {"AST_CONFIG_DIR": self.setting("Configuration directory"), **variables}

    @cached_property
    def dialplan(self) -> list[Line]:
        return list(_lines(self.ask("dialplan show")))

    def _elsewhere(self, why: str) -> tuple[str, str]:
        """Why nothing is seen, and what another Asterisk was started with, if one runs here."""
        if self._others:
            return f"{why}; an Asterisk runs here with another", cures.check_with(self._others[0])
        return f"{why}; on the machine where Asterisk runs, start it first", ""

    @cached_property
    def _others(self) -> list[str]:
        return sorted({other for other in console.running() if other != self.conf})

    def cure(self, command: str) -> str:
        """A command of its command line, as a shell takes it."""
        return cures.rx(self.conf, command)


def of(named: str, environment: Mapping[str, str]) -> Running:
    """The Asterisk whose asterisk.conf is named, else that of $AST_CONFIG_DIR, else the usual one."""
    folder = environment.get("AST_CONFIG_DIR")
    return Running(named or (os.path.join(folder, "asterisk.conf") if folder else console.DEFAULT_CONF))


def check(running: Running, config: Config) -> str:
    """Who it is. Raises NoojeeError when it is not whom the recordings belong to."""
    owner = running.owner
    if owner not in (None, os.geteuid()) and os.path.isdir(config.recordings_directory):
        _require_same_user(owner or 0, config)
    version = running.setting("Version")
    programs = paths.configuration(running.environment)
    if programs != config.path:
        named, read = programs or "no file", config.path or "no file"
        setting = f"NOOJEE_AGI_CONF={stage.quoted(programs)}" if programs else "env -u NOOJEE_AGI_CONF"
        raise NoojeeError(
            f"Asterisk's programs read {named}, and this check has read {read}",
            f"{setting} {cures.check_with(running.conf)}",
        )
    return f"{version} as user {identity.user_name(owner or 0)}, by {running.conf}"


def _require_same_user(owner: int, config: Config) -> None:
    """Raises NoojeeError when the recordings are another's, and NotSeen when only we are another."""
    holder = os.stat(config.recordings_directory).st_uid
    if owner != holder:
        user = identity.user_name(owner)
        folders = stage.quoted(config.recordings_directory, config.state_directory)
        raise NoojeeError(
            f"Asterisk runs as user {user}, and {config.recordings_directory} is user"
            f" {identity.user_name(holder)}'s",
            f"chown -R {user}: {folders}",
        )
    asterisks = identity.user_name(owner)
    raise stage.NotSeen(
        f"user {stage.user()} cannot ask Asterisk, which is user {asterisks}'s",
        f"sudo {cures.check_with(console.DEFAULT_CONF)}",
    )


_DIALPLAN = re.compile(
    r"^\[ Context '(?P<context>.*)' created by"
    r"|^\s+(?:'(?P<extension>[^']*)'(?: \(CID match '[^']*'\))? =>\s+)?"
    r"(?:\[[^]]*\]\s*)?(?:\d+|hint|n)\. (?P<application>\w+)\((?P<data>.*)\)\s+\[(?P<where>[^]]*)\]$"
)


def _lines(text: str) -> list[Line]:
    found, context, extension = [], "", ""
    for line in text.splitlines():
        part = _DIALPLAN.match(line)
        if part and part["context"] is not None:
            context = part["context"]
        elif part:
            extension = part["extension"] or extension
            found.append(Line(context, extension, part["application"], part["data"], part["where"]))
    return found
