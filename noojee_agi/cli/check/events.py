"""The stages that are about what waits for the database, drains that fail, and what was refused."""

import os
import re
import time

from noojee_agi.cli.check import cures, disks, folders, logged, stage
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import history, journal, rejected, spool
from noojee_agi.sync import housekeeping

_STUCK_SECONDS = 600
_MOMENT = "%Y-%m-%d %H:%M:%S"
_FAILED = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ ERROR \d+"
    r" (?:\d+ events wait in the spool|the spool cannot be read)(?:, tried again each 5 s)?: (.*)$",
    re.MULTILINE,
)


def waiting(config: Config, owner: str, programs: str) -> str:
    """Whether calls can write there, and drains can read. Raises NoojeeError."""
    directory = config.spool_directory
    if os.path.lexists(directory):
        _require_folder(directory, owner, config)
        names = sorted(name for name in os.listdir(directory) if _is_ours(name))
        folders.require_files((os.path.join(directory, name) for name in names), owner)
    try:
        spool.probe(directory)
    except OSError as exc:
        path = os.path.join(directory, journal.NAME)
        raise NoojeeError(
            f"{path} cannot be written ({exc.strerror}), so no call is recorded",
            stage.quoted("mv", path, f"{path}.old"),
        ) from exc
    count, oldest = spool.count(directory), spool.oldest(directory)
    if oldest and time.time() - oldest > _STUCK_SECONDS:
        raise NoojeeError(f"{count} events wait, the oldest for too long", cures.ours(programs, "sync"))
    return f"{count} events wait for the database"


def _is_ours(name: str) -> bool:
    first, _, number = name.partition(".")
    return name in (".lock", ".identity", journal.NAME) or (first == journal.NAME and number.isdecimal())


def _require_folder(directory: str, owner: str, config: Config) -> None:
    """Raises NoojeeError."""
    for folder in (directory, os.path.join(directory, "rejected")):
        if not os.path.lexists(folder):
            continue
        if not os.path.isdir(folder):
            moved = stage.quoted("mv", folder, f"{folder}.old")
            forgotten = f" && {disks.forgotten(config)}" if folder == directory else ""
            raise NoojeeError(f"{folder} is no folder", f"{moved}{forgotten}")
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise NoojeeError(
                f"{folder} cannot be written by user {stage.user()}, so no call is recorded",
                cures.give(folder, owner, "0750", is_whole=True),
            )


def drains(config: Config, programs: str) -> str:
    """Whether the last drain has failed, and why, by its line in the log. Raises NoojeeError."""
    try:
        oldest = spool.oldest(config.spool_directory)
    except OSError as exc:
        raise stage.NotSeen("the spool cannot be read") from exc
    if not oldest:
        return "nothing waits for one"
    failures = _FAILED.findall(logged.end_of(config.log_file))
    if failures:
        moment, reason = failures[-1]
        if time.mktime(time.strptime(moment, _MOMENT)) >= int(oldest):
            raise NoojeeError(f"the last one failed at {moment} ({reason})", cures.ours(programs, "sync"))
    return "one will bring in what waits"


def refused(config: Config, programs: str) -> str:
    try:
        aside = [path for directory in housekeeping.spools(config) for path in rejected.paths(directory)]
    except OSError as exc:
        raise stage.NotSeen(f"{exc.filename}: {exc.strerror}") from exc
    if aside:
        raise NoojeeError(
            f"{len(aside)} events were refused by the database: read {aside[0]}.reason, mend the cause, then",
            cures.ours(programs, "sync", "--retry-rejected"),
        )
    return "none"


def former_spools(config: Config, programs: str) -> str:
    """What waits where recordings were kept before: each drain takes it in."""
    known, texts = history.load(config.state_directory), []
    for directory in known.former(config.recordings_directory):
        if problem := housekeeping.obstacle(config, known, directory):
            raise NoojeeError(problem)
        place = spool.directory_in(directory)
        count, oldest = spool.count(place), spool.oldest(place)
        if oldest and time.time() - oldest > _STUCK_SECONDS:
            raise NoojeeError(
                f"{count} events wait in {place}, the oldest for too long", cures.ours(programs, "sync")
            )
        texts.append(f"{directory}: {count} events wait")
    return ", ".join(texts) or "none"
