"""`noojee-agi sync --rebuild`: what the database has lost is made again from what lies with the recordings.

From the side-cars: call records, legs and their owners. From the settings' copy: the apiKey's digest,
accounts, groups, teams and attachments.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from noojee_agi.database import queries, restore
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError, StoreRejected
from noojee_agi.recordings import desk_log, files, sidecar, spool

logger = logging.getLogger(__name__)

_COPY = ".settings.json"
_BATCH = 200
# A file of which nothing is known yet may belong to a call that has just begun.
_SETTLED_SECONDS = 60
_ID_IN_NAME = re.compile(r"-([0-9a-f]{8})\.[^.]+$")

Settings = dict[str, list[dict[str, Any]]]


@dataclass
class Result:
    """settings and legs: how many rows were made again. refused: side-car or folder -> why it is no use."""

    settings: int = 0
    side_cars: int = 0
    legs: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def copy_path(recordings_directory: str) -> str:
    """The settings' copy."""
    return os.path.join(recordings_directory, _COPY)


def save_settings(store: Store, recordings_directory: str) -> bool:
    """Copy the settings to the recordings; False when the copy knows rows that the database has lost.

    A damaged copy is put aside. Raises OSError and StoreUnavailable.
    """
    desk_log.set_apart(recordings_directory)
    with store.reading() as connection:
        rows = restore.settings_rows(connection)
    path = copy_path(recordings_directory)
    text = json.dumps(rows, indent=1, ensure_ascii=False, default=datetime.isoformat) + "\n"
    new, old = json.loads(text), None
    try:
        old = _read_settings(path)
        if old and restore.lost(old, new):
            return False
    except (NoojeeError, KeyError, TypeError, AttributeError) as exc:
        os.replace(path, f"{path}.damaged")
        logger.error("%s.damaged was the copy of the settings, which is written anew: %s", path, exc)
    if new != old:
        files.write(path, text)
        files.settle(path)
    desk_log.forget(recordings_directory)
    return True


def count_side_cars(recordings_directory: str) -> int:
    """How many side-cars run() is going to read."""
    return sum(path.endswith(sidecar.SUFFIX) for path in every_file(recordings_directory, {}))


def run(store: Store, recordings_directory: str, progress: Callable[[int], None]) -> Result:
    """Make every missing row again; progress is told how many side-cars each batch has read.

    Between the batches drains may work; an ending that they set aside, since its leg is not back yet, is to
    be tried again afterwards. Raises StoreUnavailable (what was committed stays), OSError, and NoojeeError
    when the settings' copy is damaged.
    """
    result = Result(settings=restore_settings(store, recordings_directory))
    files = every_file(recordings_directory, result.refused)
    paths = (path for path in files if path.endswith(sidecar.SUFFIX))
    while batch := list(islice(paths, _BATCH)):
        # A drain must not write a side-car between our look at its leg and our writing it.
        with spool.lock(spool.directory_in(recordings_directory), wait=True):
            _restore(store, list(_readable(recordings_directory, batch, result)), result)
        result.side_cars += len(batch)
        progress(len(batch))
    for path in list(result.refused):
        with spool.lock(spool.directory_in(recordings_directory), wait=True):
            if _write_side_car_again(store, path):
                del result.refused[path]
    return result


def files_without_side_car(store: Store, recordings_directory: str) -> Iterator[str]:
    """The files of which nothing is known. A leg that has only lost its side-car gets it again.

    Raises StoreUnavailable and OSError.
    """
    for path in every_file(recordings_directory, {}):
        if is_settled_audio(path) and not os.path.exists(sidecar.path_for(path)):
            with spool.lock(spool.directory_in(recordings_directory), wait=True):
                is_known = _write_side_car_again(store, sidecar.path_for(path))
            if not is_known:
                yield path


def restore_settings(store: Store, recordings_directory: str) -> int:
    """What the settings' copy knows and the database has lost; returns how many rows.

    Raises StoreUnavailable, OSError, and NoojeeError when the copy is damaged.
    """
    path = copy_path(recordings_directory)
    rows, attached = _read_settings(path), desk_log.read(recordings_directory)
    if rows is None:
        return 0
    try:
        return store.in_turn(lambda connection: restore.restore_settings(connection, rows, attached))
    except (StoreRejected, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise _damaged(path, exc) from exc


def _read_settings(path: str) -> Settings | None:
    try:
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as exc:
        raise _damaged(path, exc) from exc


def _damaged(path: str, exc: Exception) -> NoojeeError:
    return NoojeeError(
        f"{path}, the copy of the settings, cannot be used ({exc!r}): mend it, or keep it elsewhere;"
        " without it sync --rebuild makes the owners of recordings again, not enabled"
    )


def _readable(
    recordings_directory: str, paths: list[str], result: Result
) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in paths:
        try:
            leg = sidecar.read(path)
            file = leg["file"] or leg["purged_file"]
            if sidecar.path_for(_beside(path, file)) != path:
                raise ValueError(f"file = {file!r} is another's")
            if _is_copy(recordings_directory, path, leg):
                raise ValueError(f"a copy of that of {file!r}")
            yield path, leg
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
            result.refused[path] = f"not a side-car of this program: {exc!r}"


def _is_copy(recordings_directory: str, path: str, leg: dict[str, Any]) -> bool:
    """Whether the leg's own side-car lies with these recordings too: somebody has collected some."""
    own = sidecar.path_of(leg)
    return own != path and own.startswith(f"{recordings_directory}/") and os.path.exists(own)


def _beside(path: str, file: str) -> str:
    """Where the side-car's file lies now, when the recordings have been moved too."""
    return os.path.join(os.path.dirname(path), os.path.basename(file)) if file else ""


def _restore(store: Store, legs: list[tuple[str, dict[str, Any]]], result: Result) -> None:
    """In one transaction; when that is refused, one by one."""
    rows = [
        {**leg, **{name: _beside(path, leg[name]) for name in ("file", "purged_file")}} for path, leg in legs
    ]
    try:
        restored, others = store.in_turn(lambda connection: restore.restore_legs(connection, rows))
    except StoreRejected as exc:
        if len(legs) == 1:
            result.refused[legs[0][0]] = str(exc)
            return
        for leg in legs:
            _restore(store, [leg], result)
        return
    known = {leg["id"]: (path, leg) for path, leg in legs}
    for row in queries.each_leg(store, known.keys() | others):
        if _is_out_of_date(*known[row["id"]], row) if row["id"] in known else sidecar.is_here(row):
            sidecar.write(row)
    result.legs += len(restored)


def _is_out_of_date(path: str, leg: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether this side-car differs from the row: something has changed, or we were killed before writing."""
    return sidecar.path_of(row) == path and any(row[name] != leg[name] for name in leg)


def every_file(directory: str, unreadable: dict[str, str]) -> Iterator[str]:
    """Every file below, in the order of the days; nothing hidden, such as the spool.

    Links to elsewhere are followed: a year may lie on another disk. unreadable: folder -> why.
    """

    def note(error: OSError) -> None:
        unreadable[error.filename] = error.strerror or str(error)

    tops = {os.path.realpath(directory)}
    for folder, folders, names in os.walk(directory, followlinks=True, onerror=note):
        folders[:] = sorted(name for name in folders if is_followed(os.path.join(folder, name), tops))
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(folder, name)


def is_followed(folder: str, tops: set[str]) -> bool:
    """Not hidden, and no link to where we come anyway; the target of any other link joins the tops."""
    name = os.path.basename(folder)
    if name.startswith(".") or name == "lost+found":
        return False
    if os.path.islink(folder):
        place = os.path.realpath(folder)
        if any(os.path.commonpath([place, top]) in (place, top) for top in tops):
            return False
        tops.add(place)
    return True


def is_settled_audio(path: str) -> bool:
    if path.endswith((sidecar.SUFFIX, files.HALF_WRITTEN, files.BEING_PURGED)):
        return False
    try:
        return time.time() - os.stat(path).st_mtime > _SETTLED_SECONDS
    except OSError:  # gone, or a link that leads nowhere
        return False


def _write_side_car_again(store: Store, path: str) -> bool:
    """Whether the database knows the leg of this side-car."""
    found = _ID_IN_NAME.search(path)
    if not found:
        return False
    with store.reading() as connection:
        legs = queries.legs_whose_id_begins(connection, found[1])
        whole = queries.whole_legs(connection, [leg["id"] for leg in legs])
    return any(sidecar.path_of(leg) == path and sidecar.write(leg) for leg in whole)
