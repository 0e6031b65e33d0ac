"""A leg that is about to begin: what is known of it, and its place on the disk, where it is written ahead."""

from __future__ import annotations

import contextlib
import errno
import os

from noojee_agi.actions.arguments import Request
from noojee_agi.asterisk import variables
from noojee_agi.asterisk.target import Target
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError, NotStarted, TooLittleSpace
from noojee_agi.recordings import disk, files, recording, spool
from noojee_agi.recordings.recording import Ending, Leg


def make(request: Request, target: Target, config: Config, agent_known: bool | None) -> Leg:
    channel, values = target.channel, target.values
    leg_id, started_at = recording.new_id(), recording.now()
    return Leg(
        id=leg_id,
        server=_server(channel.host, values[variables.SYSTEMNAME], config),
        call_uniqueid=values[variables.LINKEDID] or channel.uniqueid,
        uniqueid=channel.uniqueid,
        channel=channel.name,
        extension=target.extension,
        extensions=target.extensions,
        agent_login_name=request.agent_login_name,
        agent_known=agent_known,
        tag=request.tag,
        source=channel.caller,
        destination=channel.extension,
        did=channel.did,
        file=recording.file_path(
            config.recordings_directory, channel.uniqueid, leg_id, config.recordings_format, started_at
        ),
        started_at=started_at,
        peer_channel=target.peer.name,
        peer_uniqueid=target.peer.uniqueid,
    )


def _server(host: str, system_name: str, config: Config) -> str:
    """Whose call it is: an Asterisk elsewhere closes its legs itself, since only it sees its files."""
    return (system_name or host)[:255] if host else config.server_name


def note_failed(leg: Leg, config: Config) -> None:
    """Where that cannot be noted now, such as on a full disk, sync finds out."""
    with contextlib.suppress(NoojeeError):
        note(Ending(leg.id, "failed", recording.now()), config=config)


@disk.bounded(if_late=note_failed)
def write_ahead(leg: Leg, config: Config) -> None:
    """If there is space, make the leg's folder and spool its start: from here on it cannot be forgotten."""
    _check_free_space(config)
    try:
        if not _can_write_in(os.path.dirname(leg.file)):
            _make_folders(config.recordings_directory, leg.file)
    except OSError as exc:
        raise _unusable(os.path.dirname(exc.filename), exc) from exc
    note(leg, config=config)


def _check_free_space(config: Config) -> None:
    directory = config.recordings_directory
    try:
        percent = disk.free_percent(directory)
    except OSError as exc:
        raise _unusable(directory, exc) from exc
    if percent < config.recordings_min_free_percent:
        raise TooLittleSpace(
            f"the disk of {directory} has {percent:.1f} % free, below min_free_percent"
            f" = {config.recordings_min_free_percent:g}: free some space"
        )


def _make_folders(directory: str, file: str) -> None:
    """Make each folder between the two. Raises OSError when we, as Asterisk's user, cannot write there."""
    folder = os.path.dirname(file)
    for name in folder[len(directory) :].strip("/").split("/"):
        directory = os.path.join(directory, name)
        files.make_folder(directory)
    if not _can_write_in(folder):  # MixMonitor would say nothing, and its file never come
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)


def _can_write_in(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


@disk.bounded()
def note(*events: recording.Event, config: Config) -> None:
    """Spool them: they come into the database. Raises NoojeeError."""
    try:
        spool.put(config.spool_directory, *events)
    except OSError as exc:
        raise _unusable(config.spool_directory, exc) from exc


def _unusable(directory: str, exc: OSError) -> NoojeeError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return TooLittleSpace(f"the disk of {directory} is full: free some space")
    return NotStarted(
        f"nothing can be written in {directory} ({exc.strerror}):"
        " it must be there, belong to Asterisk's user and have mode 0750; run noojee-agi check"
    )
