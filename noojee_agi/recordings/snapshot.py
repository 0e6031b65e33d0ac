"""The little that the call path must know of the database, in one local file."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from noojee_agi.recordings import files, people, recording
from noojee_agi.recordings.people import People

FRESH_SECONDS = 5.0
LONGEST_CALL = timedelta(days=1)  # whose recording may have begun before its owner left a team


class Snapshot(NamedTuple):
    """key_digest: of the system variable apiKey, empty when none is set. logins: of enabled accounts.

    attached: the extensions to which somebody is attached; None when that is not known. hear_all and teams:
    see people(), for which they are there; teams are as people.as_json makes them.
    """

    key_digest: str
    logins: frozenset[str]
    read_at: datetime
    attached: frozenset[str] | None = None
    hear_all: frozenset[str] | None = None
    teams: Sequence[Mapping[str, Any]] | None = None

    def is_fresh(self, now: datetime) -> bool:
        """Whether the database was read only seconds ago."""
        return abs((now - self.read_at).total_seconds()) < FRESH_SECONDS

    def people(self) -> People | None:
        """Who may hear the legs of calls that run; None when that is not known.

        Made only now: a start does not need it, and a thousand people take 2 ms.
        """
        if self.hear_all is None or self.teams is None:
            return None
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            return People(self.logins, self.hear_all, people.from_json(self.teams))
        return None


def load(path: str) -> Snapshot | None:
    """The snapshot at path; None when there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        digest, read_at = content["key_digest"], datetime.fromisoformat(content["read_at"])
        if not isinstance(digest, str) or read_at.tzinfo is None:
            return None
        # A former version's snapshot has not all of them.
        attached, hear_all = (_known(content.get(name)) for name in ("attached", "hear_all"))
        logins = frozenset(content["logins"])
        return Snapshot(digest, logins, read_at, attached, hear_all, content.get("teams"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _known(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


class Cached:
    """load(), for a process that lives long: reads the file when it has changed.

    While it cannot be read, as by a process that is out of descriptors, what was in it before still holds.
    """

    def __init__(self) -> None:
        self._state: object = None
        self._path = ""
        self._snapshot: Snapshot | None = None

    def __call__(self, path: str) -> Snapshot | None:
        try:
            there = os.stat(path)
        except OSError:
            return None
        state = (path, there.st_ino, there.st_mtime_ns)
        if self._state == state:
            return self._snapshot
        if read := load(path):
            self._state, self._path, self._snapshot = state, path, read
        return self._snapshot if self._path == path else None


def save(path: str, snapshot: Snapshot) -> None:
    """Write what was read of the database, unless somebody has read it later. Raises OSError.

    A database that has no apiKey any more has lost it: with no digest every call would be refused.
    """
    there = load(path)
    if there and there.key_digest and not snapshot.key_digest:
        return
    if there and snapshot.read_at < there.read_at <= recording.now():
        return
    files.write(path, json.dumps(snapshot._asdict(), indent=1, ensure_ascii=False, default=_as_json))


def _as_json(value: frozenset[str] | datetime) -> list[str] | str:
    return value.isoformat() if isinstance(value, datetime) else sorted(value)


class Knowledge:
    """The snapshot of one AGI session, and the way to have it renewed once.

    read_database: has the database read and the file written anew; returns within a second, done or not.
    """

    def __init__(
        self,
        path: str,
        read_database: Callable[[], None],
        load_snapshot: Callable[[str], Snapshot | None] = load,
    ) -> None:
        self._path = path
        self._read_database = read_database
        self._load = load_snapshot
        self._snapshot = load_snapshot(path)

    def current(self) -> Snapshot | None:
        """What is known without asking anybody; None when there is no snapshot yet."""
        return self._snapshot

    def knows_nobody_at(self, extension: str) -> bool:
        """Whether it is known that nobody is attached to the extension."""
        attached = self._snapshot.attached if self._snapshot else None
        return attached is not None and extension not in attached

    def renewed(self) -> Snapshot | None:
        """What the database says, or, when it does not answer, still what is known."""
        if self._snapshot is None or not self._snapshot.is_fresh(recording.now()):
            self._read_database()
            self._snapshot = self._load(self._path) or self._snapshot
        return self._snapshot
