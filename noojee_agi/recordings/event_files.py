"""What versions before the journal have spooled: a file for each event, which is taken into a journal."""

import contextlib
import logging
import os
import shutil

from noojee_agi.recordings import files, journal, rejected

logger = logging.getLogger(__name__)

_BATCH = 1000


def take_in(directory: str) -> None:
    """Make journals of these files, starts before endings, and remove them. Raises OSError.

    A drain that is killed between the two does it again: twice is harmless.
    """
    paths = sorted(journal.event_files(directory), key=lambda path: "-started-" not in path)
    for at in range(0, len(paths), _BATCH):
        _take_in(directory, paths[at : at + _BATCH])
    spare = os.path.join(directory, "spare")
    if os.path.isdir(spare):
        with contextlib.suppress(OSError):  # it holds nothing, and is in nobody's way
            shutil.rmtree(spare)


def _take_in(directory: str, paths: list[str]) -> None:
    found = {path: line for path in paths if (line := _line(path)) is not None}
    whole = [line for line in found.values() if journal.is_whole(line)]
    if whole:
        path = journal.next_path(directory)
        files.write(path, b"".join(line + b"\n" for line in whole), is_settled=True)
        files.force(directory)
    for path, line in found.items():
        if not journal.is_whole(line):  # these files were never there by half: somebody has touched it
            aside = rejected.set_aside(directory, line, "not an event of this program")
            logger.error("%s is damaged: set aside as %s", path, aside)
        os.unlink(path)


def _line(path: str) -> bytes | None:
    try:
        return journal.line_in(path)
    except OSError as exc:
        logger.error("%s cannot be read, tried again later: %s", path, exc.strerror)
        return None
