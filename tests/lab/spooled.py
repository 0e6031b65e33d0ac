"""What waits in a spool for the database."""

from __future__ import annotations

from pathlib import Path

from noojee_agi.recordings import recording, rejected, spool
from noojee_agi.recordings.recording import Event


def events(recordings_directory: Path) -> list[Event]:
    """In the order in which they came."""
    lines = spool.waiting(spool.directory_in(str(recordings_directory)))
    return [recording.from_json(line.decode()) for line in lines]


def is_empty(recordings_directory: Path) -> bool:
    """Whether nothing waits there, not even a part of an event."""
    return not spool.count(spool.directory_in(str(recordings_directory)))


def set_aside(recordings_directory: Path) -> list[str]:
    """The files of the events that were refused."""
    return rejected.paths(spool.directory_in(str(recordings_directory)))
