"""The events that the database will never take: each in a file that a person can read and mend."""

import contextlib
import hashlib
import os

from noojee_agi import text
from noojee_agi.recordings import files

_DIRECTORY = "rejected"
_SUFFIX = ".json"


def paths(spool_directory: str) -> list[str]:
    """What was set aside, starts before endings. Raises OSError."""
    folder = os.path.join(spool_directory, _DIRECTORY)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    names.sort(key=lambda name: ("started-" not in name, name))
    return [os.path.join(folder, name) for name in names if name.endswith(_SUFFIX)]


def set_aside(spool_directory: str, line: bytes, reason: str, name: str = "damaged") -> str:
    """Put the event's line in a file of its own, with the reason beside it; returns the file.

    The same line goes into the same file: a drain that is killed here does it again. Raises OSError.
    """
    folder = os.path.join(spool_directory, _DIRECTORY)
    files.make_folder(folder)
    path = os.path.join(folder, f"{name}-{hashlib.sha256(line).hexdigest()[:16]}{_SUFFIX}")
    files.write(f"{path}.reason", text.printable(reason) + "\n")
    files.write(path, line, is_settled=True)
    return path


def forget(path: str) -> None:
    """Remove the file and its reason. Raises OSError."""
    os.unlink(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.reason")
