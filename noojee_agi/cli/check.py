"""`noojee-agi check`: every stage between the dialplan and the database, with ok or what to do."""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from noojee_agi.asterisk import manager, other_calls
from noojee_agi.cli import identity, install, server_status
from noojee_agi.config import SAFE_PATH, Config
from noojee_agi.database import settings
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import disk, history, journal, recording, rejected, spool
from noojee_agi.sync import housekeeping, opening

_STUCK_SECONDS = 600
_FULL_PERCENT = 0.1


class Stage(NamedTuple):
    name: str
    is_ok: bool
    text: str


def stages(config: Config, programs: str) -> Iterator[Stage]:
    """Run every stage, also after a failed one. programs: the folder of our own programs."""
    yield _stage("configuration", lambda: _configuration(config))
    yield _stage("recordings", lambda: _recordings(config))
    yield _stage("state", lambda: _writable(config.state_directory, "[state] directory"))
    yield _stage("free space", lambda: _free_space(config))
    yield _stage("programs", lambda: _programs(programs))
    yield _stage("database", lambda: opening.open_database(config).name)
    yield _stage("apiKey", lambda: _key(config))
    yield _stage("spool", lambda: _spool(config))
    yield _stage("rejected", lambda: _rejected(config))
    yield _stage("former spools", lambda: _former_spools(config))
    yield _stage("open legs", lambda: _open_legs(config))
    yield _stage("server name", lambda: _server_name(config))
    yield _stage("server", lambda: server_status.check(config))
    yield _stage("manager", lambda: _manager(config))


def _stage(name: str, work: Callable[[], str]) -> Stage:
    try:
        return Stage(name, True, work())
    except (NoojeeError, OSError) as exc:
        return Stage(name, False, str(exc))


def _configuration(config: Config) -> str:
    if not config.path:
        return "no file, every option has its default"
    if not os.access(config.path, os.R_OK):
        raise NoojeeError(f"{config.path} cannot be read by user {_user()}: chgrp it to Asterisk's group")
    holds_secret = config.manager_secret or Store(config.database_url).url.password
    if holds_secret and os.stat(config.path).st_mode & stat.S_IROTH:
        raise NoojeeError(
            f"{config.path} holds a password and everybody can read it: chmod o-r {config.path}"
        )
    return config.path


def _recordings(config: Config) -> str:
    said = _writable(config.recordings_directory, "[recordings] directory")
    known = history.load(config.state_directory)
    if problem := housekeeping.obstacle(config, known, config.recordings_directory):
        raise NoojeeError(problem)
    file = recording.file_path(config.recordings_directory, "", "", "wav", recording.now())
    day = os.path.dirname(file)
    month = os.path.dirname(day)
    for folder in (os.path.dirname(month), month, day):
        if os.path.lexists(folder) and not os.access(folder, os.W_OK | os.X_OK):
            raise NoojeeError(
                f"{folder} cannot be written by user {_user()}, so no call is recorded today:"
                f" chown asterisk: {folder}; chmod 0750 {folder}"
            )
    return said


def _writable(directory: str, option: str) -> str:
    if not os.path.isdir(directory):
        raise NoojeeError(
            f"{option} = {directory} is not there: install -d -o asterisk -g asterisk -m 0750 {directory}"
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise NoojeeError(f"{directory} cannot be written by user {_user()}: chown asterisk: {directory}")
    if os.stat(directory).st_mode & stat.S_IRWXO:
        raise NoojeeError(f"{directory} is open to every user of this machine: chmod 0750 {directory}")
    hint = " (only right if Asterisk runs as root)" if os.geteuid() == 0 else ""
    return f"{directory}, written as user {_user()}{hint}"


def _user() -> str:
    return identity.user_name(os.geteuid())


def _free_space(config: Config) -> str:
    percent = _free_percent(config.recordings_directory)
    if percent < config.recordings_min_free_percent:
        raise NoojeeError(
            f"{percent:.1f} % free, and below {config.recordings_min_free_percent:g} % no call is recorded"
        )
    if os.path.isdir(config.state_directory) and _free_percent(config.state_directory) < _FULL_PERCENT:
        raise NoojeeError(f"the disk of {config.state_directory} is full: free some space")
    return f"{percent:.1f} %"


def _free_percent(directory: str) -> float:
    try:
        return disk.free_percent(directory)
    except OSError as exc:
        raise NoojeeError(f"unknown, since {directory} cannot be used: {exc.strerror}") from exc


def _programs(programs: str) -> str:
    for name in (*install.AGI_PROGRAMS, "finish_record.py"):
        path = os.path.join(programs, name)
        if not SAFE_PATH.fullmatch(path) or not os.access(path, os.X_OK):
            raise NoojeeError(
                f"{path} cannot be run by user {_user()}:"
                " install into a folder that it can enter, with a path of letters, digits and . _ - only"
            )
    if strangers := install.strangers(os.environ):
        raise NoojeeError(f"{strangers[0]} is not a link to those in {programs}: noojee-agi install-agi")
    return programs


def _key(config: Config) -> str:
    with opening.open_database(config).reading() as connection:
        if not settings.key_digest(connection):
            raise NoojeeError("none is set, so no call is recorded: noojee-agi apikey new")
    if not os.path.exists(config.snapshot_file):
        return "set; Asterisk's first call writes the snapshot"
    return "set"


def _spool(config: Config) -> str:
    try:
        spool.probe(config.spool_directory)
    except OSError as exc:
        path = os.path.join(config.spool_directory, journal.NAME)
        raise NoojeeError(
            f"{path} cannot be written ({exc.strerror}), so no call is recorded: it must be a file of user"
            f" {_user()}, mode 0640"
        ) from exc
    waiting, oldest = spool.count(config.spool_directory), spool.oldest(config.spool_directory)
    if oldest and time.time() - oldest > _STUCK_SECONDS:
        raise NoojeeError(
            f"{waiting} events wait, the oldest for too long: run noojee-agi sync, see {config.log_file}"
        )
    return f"{waiting} events wait for the database"


def _rejected(config: Config) -> str:
    aside = [path for directory in housekeeping.spools(config) for path in rejected.paths(directory)]
    if aside:
        raise NoojeeError(
            f"{len(aside)} events were refused by the database: read {aside[0]}.reason, mend the cause,"
            " and run noojee-agi sync --retry-rejected"
        )
    return "none"


def _former_spools(config: Config) -> str:
    """What waits where recordings were kept before: each drain takes it in."""
    known, texts = history.load(config.state_directory), []
    for directory in known.former(config.recordings_directory):
        if problem := housekeeping.obstacle(config, known, directory):
            raise NoojeeError(problem)
        waiting = spool.count(spool.directory_in(directory))
        texts.append(f"{directory}: {waiting} events wait")
    return ", ".join(texts) or "none"


def _open_legs(config: Config) -> str:
    known = history.load(config.state_directory)
    legs = housekeeping.open_legs(opening.open_database(config), known.with_server(config.server_name))
    if problems := housekeeping.left_open(legs):
        raise NoojeeError(problems[0])
    return f"{len(legs)} legs are being recorded"


def _server_name(config: Config) -> str:
    host, known = os.uname().nodename, history.load(config.state_directory)
    if known.is_foreign():
        raise NoojeeError(
            f"{config.state_directory} is another machine's too ({', '.join(known.servers)}): give each its"
            " own, with its own [server] name; if this is a copy of that machine, run noojee-agi sync"
        )
    if config.server_name == known.host != host and not Config.load_file(config.path).server_name:
        raise NoojeeError(
            f"{known.host}, which was this host's name at first, not {host}; a copy of this machine may have"
            f" it, too: say which it is with [server] name, {known.host} on one machine alone"
        )
    return config.server_name


def _manager(config: Config) -> str:
    """Whether other calls than the asking one can be recorded. They need not be."""
    if not config.manager_username:
        return "not configured, only the call that asks can be recorded"
    with contextlib.closing(manager.Manager(config)) as asked:
        asked.require_rights()
        return f"{len(other_calls.channels(asked))} channels at {config.manager_host}:{config.manager_port}"
