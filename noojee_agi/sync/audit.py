"""`noojee-agi sync --audit`: what the database says beside what lies in the folder. Nothing is deleted.

Day by day: a leg's file lies in the folder of the UTC day on which it began, so one day's names are enough.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

from noojee_agi.config import Config
from noojee_agi.database import conversions, queries
from noojee_agi.database.store import Store
from noojee_agi.recordings import converted, history, recording, sidecar, spool
from noojee_agi.sync import closing, rebuild

GONE, CHANGED, OPEN, CONVERTED, UNKNOWN = KINDS = ("gone", "changed", "open", "converted", "unknown")
_PAGE = 1000
_NO_FILE = ("failed",)
Rows = list[dict[str, Any]]


class Finding(NamedTuple):
    """kind: one of KINDS. leg_id: empty for a file that no row knows."""

    kind: str
    leg_id: str
    path: str
    says: str


def run(store: Store, config: Config) -> Iterator[Finding]:
    """Raises StoreUnavailable and OSError."""
    seen: set[str] = set()
    for legs in _days(store, config):
        folders = {os.path.dirname(leg["file"]) for leg in legs}
        names = {folder: _names(folder) for folder in folders}
        audio = {folder: _by_stem(names[folder]) for folder in folders}
        for leg in legs:
            folder, name = os.path.split(leg["file"])
            yield from _of_leg(store, config, leg, audio[folder].get(_stem(name), []))
        stems = {_stem(leg["file"]) for leg in legs}
        for folder in folders:
            yield from _unknown(folder, names[folder], stems)
        seen |= folders
    others = {os.path.dirname(path) for path in rebuild.every_file(config.recordings_directory, {})} - seen
    for folder in sorted(others):
        yield from _unknown(folder, _names(folder), ())


def _days(store: Store, config: Config) -> Iterator[Rows]:
    """This host's legs whose files should be there, or will be; those of a UTC day together."""
    known = history.load(config.state_directory).servers.keys() | {config.server_name}
    ours = (leg for leg in _legs(store) if leg["server"] in known and leg["file"])
    for _, legs in itertools.groupby(ours, key=lambda leg: leg["started_at"].date()):
        yield list(legs)


def _legs(store: Store) -> Iterator[dict[str, Any]]:
    last = None
    while True:
        with store.reading() as connection:
            page = queries.next_legs(connection, queries.Filter(), last, _PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        last = page[-1]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Audio files, by what stands before the suffix."""
    found: dict[str, list[str]] = {}
    for name in names:
        if converted.is_audio(name):
            found.setdefault(_stem(name), []).append(name)
    return found


def _of_leg(store: Store, config: Config, leg: dict[str, Any], names: Collection[str]) -> Iterator[Finding]:
    """names: of audio files that may be it."""
    path, name = leg["file"], os.path.basename(leg["file"])
    if leg["status"] == "recording":
        yield from _without_end(leg)
    elif name in names:
        size = os.stat(path).st_size
        if leg["bytes"] is not None and size != leg["bytes"]:
            yield Finding(CHANGED, leg["id"], path, f"it had {leg['bytes']} bytes, and has {size}")
    elif leg["status"] not in _NO_FILE:
        yield _gone_or_converted(store, config, leg, names)


def _without_end(leg: dict[str, Any]) -> Iterator[Finding]:
    open_leg = recording.OpenLeg(leg["id"], leg["file"], leg["started_at"])
    if [*closing.endings([open_leg], datetime.now(timezone.utc))]:
        yield Finding(OPEN, leg["id"], leg["file"], "it records no more, and its row has no end")


def _gone_or_converted(store: Store, config: Config, leg: dict[str, Any], beside: Iterable[str]) -> Finding:
    folder, path = os.path.split(leg["file"])[0], leg["file"]
    found = [os.path.join(folder, each) for each in beside]
    if len(found) != 1:
        more = f": {', '.join(found)} could be it" if found else ""
        return Finding(GONE, leg["id"], path, f"the file of a leg that is {leg['status']}{more}")
    with spool.lock(config.spool_directory, wait=True):  # no drain writes the side-car meanwhile
        row = conversions.follow(store, leg["id"], path, found[0], os.stat(found[0]).st_size)
        sidecar.write(row)
    return Finding(CONVERTED, leg["id"], found[0], f"it was {path}; the row follows it")


def _unknown(folder: str, names: Iterable[str], stems: Collection[str]) -> Iterator[Finding]:
    for name in names:
        path = os.path.join(folder, name)
        if _stem(path) not in stems and not name.startswith(".") and rebuild.is_settled_audio(path):
            yield Finding(UNKNOWN, "", path, "no row knows this file")


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]
