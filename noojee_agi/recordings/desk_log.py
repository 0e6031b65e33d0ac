"""Attachments that have come into the database since the copy of the settings was written, a line for each.

The copy has all that ever were: to write it whenever somebody sits down would cost seconds after some years.
"""

import contextlib
import os
from collections.abc import Iterable

from noojee_agi.recordings import files, journal, recording
from noojee_agi.recordings.recording import Attachment

_NAME, _FORMER = ".attachments", ".attachments.former"
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def add(recordings_directory: str, attachments: Iterable[Attachment]) -> None:
    """Of a transaction that is committed. A line begins with a line's end, too: see spool. Raises OSError."""
    content = b"".join(b"\n%b\n" % recording.to_json(each).encode("utf-8", "replace") for each in attachments)
    descriptor = os.open(os.path.join(recordings_directory, _NAME), _APPEND, 0o640)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(recordings_directory: str) -> list[Attachment]:
    """All that are there; a line that was never written to its end is passed over. Raises OSError."""
    found = []
    for name in (_FORMER, _NAME):
        path = os.path.join(recordings_directory, name)
        with contextlib.suppress(FileNotFoundError), files.opened(path) as file:
            for line in journal.lines(file):
                with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                    event = recording.from_json(line.decode())
                    if isinstance(event, Attachment):
                        found.append(event)
    return found


def set_apart(recordings_directory: str) -> None:
    """What is there by now, before the settings are read: their copy will have it. Raises OSError."""
    path, former = (os.path.join(recordings_directory, name) for name in (_NAME, _FORMER))
    if not os.path.exists(former):  # else a copy was not written to its end: that one is done with first
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, former)


def forget(recordings_directory: str) -> None:
    """What was set apart is in the copy. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(recordings_directory, _FORMER))
