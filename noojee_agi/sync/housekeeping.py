"""What no event of the spool tells of: former spools, and legs that ended without a word."""

import logging
import os
import time
from dataclasses import dataclass, field
from datetime import timedelta

from noojee_agi.config import Config
from noojee_agi.database import health, queries
from noojee_agi.database.store import Store
from noojee_agi.errors import BadArgument
from noojee_agi.recordings import history, recording, rejected, spool
from noojee_agi.recordings.history import History
from noojee_agi.recordings.recording import Ending, OpenLeg
from noojee_agi.sync import closing, desks, drain

logger = logging.getLogger(__name__)

# How old failed legs may be that are looked at again: their disk may be back. An index has them by start.
NONE, LATELY, ALL = timedelta(0), timedelta(days=7), timedelta(days=36500)
# A former spool in which nothing has moved for so long has no call left, and a former name no leg.
_QUIET_SECONDS = 3600.0
_NAME_IS_KEPT = timedelta(days=30)
GONE_AFTER = timedelta(days=1)  # a server that has begun nothing for so long, with legs that are older


@dataclass
class Result:
    """What was done. stored: events of former spools. problems: what could not be seen, for a person.

    busy: another one is at it, or hangs there.
    """

    stored: int = 0
    closed: int = 0
    busy: bool = False
    problems: list[str] = field(default_factory=list)


def run(store: Store, config: Config, is_patient: bool = True, failed_since: timedelta = NONE) -> Result:
    """Do what no event of the spool tells of: former spools, and legs that ended without a word.

    is_patient: see run(). failed_since: legs that have failed and are no older are looked at again, too.
    A former disk may hang, so one at a time does it, and the others go on without.
    Raises StoreUnavailable and OSError.
    """
    with history.tending(config.state_directory) as ours:
        return _run(store, config, is_patient, failed_since) if ours else Result(busy=True)


def _run(store: Store, config: Config, is_patient: bool, failed_since: timedelta) -> Result:
    known, done = _remembered(config), Result()
    former = known.former(config.recordings_directory)
    for directory in [config.recordings_directory, *former]:
        if problem := obstacle(config, known, directory):
            done.problems.append(problem)
        elif directory in former:
            _follow(store, config, spool.directory_in(directory), is_patient, done)
    legs = open_legs(store, known)
    if not known.is_away(config.recordings_directory):
        failed = _failed_legs(store, known, failed_since) if failed_since else []
        done.closed = _close(store, config, [*legs, *failed], is_patient)
    done.problems += left_open(legs)
    _forget(config, known, former, legs)
    return done


def spools(config: Config) -> list[str]:
    """Where events may lie: here, and where recordings were kept before."""
    here, known = config.recordings_directory, history.load(config.state_directory)
    return [spool.directory_in(directory) for directory in (here, *known.former(here))]


def open_legs(store: Store, known: History) -> list[OpenLeg]:
    """The legs of this machine that are thought to be recording, under whatever name it had."""
    with store.reading() as connection:
        return [
            leg
            for server in known.servers
            for leg in queries.open_legs(connection, server)
            if known.is_ours(server, leg.started_at)
        ]


def obstacle(config: Config, known: History, directory: str) -> str:
    """Why the events of these recordings cannot be taken in, and what to do, for a person; else empty."""
    spool_directory = spool.directory_in(directory)
    if known.is_away(directory):
        return (
            f"{directory} is not what it was: its spool is missing, closed to us, or another. Mount its"
            f" disk; if it is gone for good, take its line out of {history.path_in(config.state_directory)}"
        )
    if directory not in known.former(config.recordings_directory):
        return ""  # whose files a server of NFS says that they are, does not matter while they can be used
    if os.lstat(spool_directory).st_uid != os.geteuid():
        return f"{spool_directory} belongs to another user: run noojee-agi sync as that user"
    return ""


def close_gone(store: Store, config: Config, server: str) -> int:
    """End the open legs of another server, which is gone; returns how many.

    A leg whose file is not here has failed: should its server come back, it looks at that leg again.
    Raises BadArgument when the server is not gone, StoreUnavailable and OSError.
    """
    now = recording.now()
    with store.reading() as connection:
        gone = dict(health.others_with_open_legs(connection, now - GONE_AFTER))
        legs = queries.open_legs(connection, server)
    if history.load(config.state_directory).with_server(config.server_name).is_ours(server, now):
        raise BadArgument(f"{server} is this server: noojee-agi sync closes its legs")
    if legs and server not in gone:
        raise BadArgument(f"{server} has begun a recording not a day ago, so it is not gone")
    endings = list(closing.endings(legs, now))
    ended = {ending.leg_id for ending in endings}
    endings += [
        Ending(leg.id, "failed", now) for leg in legs if leg.id not in ended and not os.path.exists(leg.file)
    ]
    for ending in endings:
        spool.put(config.spool_directory, ending)
    drain.run(store, config.spool_directory, _noting_desks(store, config))
    return len(endings)


def left_open(legs: list[OpenLeg]) -> list[str]:
    """The legs that nobody can close, and what to do, for a person."""
    left = closing.without_folder(legs, recording.now())
    if not left:
        return []
    return [
        f"{len(left)} legs stay open, since folders such as {os.path.dirname(left[0].file)} are not there:"
        " mount the disk; if the recordings were moved, make a link to where they are; if they are gone for"
        " good, make the folder; then run noojee-agi sync"
    ]


def _remembered(config: Config) -> History:
    """What this machine's state directory knows; what is in use now always is."""
    directory = config.recordings_directory
    before = history.load(config.state_directory).directories.get(directory)
    try:
        known = history.remember(config.state_directory, config.server_name, directory)
        if before and known.directories[directory] != before:
            logger.warning(
                "%s is another disk than the one that was known, and is used from now on", directory
            )
        return known
    except OSError as exc:
        path = history.path_in(config.state_directory)
        logger.error("%s cannot be renewed, so a change of directory or name is not followed: %s", path, exc)
    return history.load(config.state_directory).with_server(config.server_name)


def _follow(store: Store, config: Config, spool_directory: str, is_patient: bool, done: Result) -> None:
    """A disk that fails there keeps back nothing of here."""
    try:
        noting = _noting_desks(store, config)
        done.stored += drain.run(store, spool_directory, noting, is_patient).stored
    except OSError as exc:
        done.problems.append(f"{spool_directory}, where events may wait, cannot be used: {exc.strerror}")


def _noting_desks(store: Store, config: Config) -> drain.Stored:
    return desks.renewing(store, config, lambda events: None)


def _close(store: Store, config: Config, legs: list[OpenLeg], is_patient: bool) -> int:
    endings = list(closing.endings(legs, recording.now()))
    for ending in endings:
        spool.put(config.spool_directory, ending)
    if endings:
        drain.run(store, config.spool_directory, _noting_desks(store, config), is_patient)
    return len(endings)


def _failed_legs(store: Store, known: History, since: timedelta) -> list[OpenLeg]:
    """Legs that have failed although their file is there now."""
    wanted = queries.Filter(status="failed", started_from=recording.now() - since)
    with store.reading() as connection:
        rows = queries.legs(connection, wanted)
        legs = [
            OpenLeg(row["id"], row["file"], row["started_at"])
            for row in rows
            if known.is_ours(row["server"], row["started_at"])
        ]
    return closing.with_file(legs)


def _forget(config: Config, known: History, former: list[str], legs: list[OpenLeg]) -> None:
    """Former spools that are empty, and former names, that no open leg is left of."""
    spools = [path for path in former if not known.is_away(path) and _is_over(path, legs)]
    oldest = recording.now() - _NAME_IS_KEPT
    names = [] if legs else [name for name, until in known.servers.items() if until and until < oldest]
    try:
        history.forget(config.state_directory, names, spools)
    except OSError as exc:
        logger.error("%s cannot be renewed: %s", history.path_in(config.state_directory), exc)


def _is_over(directory: str, legs: list[OpenLeg]) -> bool:
    """Whether no call that began there can bring another event."""
    spool_directory = spool.directory_in(directory)
    if any(leg.file.startswith(f"{directory}/") for leg in legs):
        return False
    try:
        is_quiet = time.time() - os.stat(spool_directory).st_mtime > _QUIET_SECONDS
        return is_quiet and not spool.count(spool_directory) and not rejected.paths(spool_directory)
    except OSError:
        return False
