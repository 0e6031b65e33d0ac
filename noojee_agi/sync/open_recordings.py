"""The legs that record now: their files are seen being closed, so MixMonitor needs no end command."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from noojee_agi.database import queries
from noojee_agi.database.store import Store
from noojee_agi.recordings import recording
from noojee_agi.recordings.recording import Ending, Event, Leg, OpenLeg
from noojee_agi.sync import closing
from noojee_agi.sync.file_watch import FileWatch

_MOST_CLOSED = 10_000  # files, while the database is away: beyond that, all are looked at


class OpenRecordings:
    """Those of one server's name. What came to pass unseen is found by a look at the file.

    failure: why a folder cannot be watched, such as fs.inotify.max_user_watches; then nobody may rely on us.
    """

    def __init__(self, server: str) -> None:
        """Raises OSError when the kernel has no room for a watch (fs.inotify.max_user_instances)."""
        self.failure: OSError | None = None
        self._server = server
        self._watch = FileWatch()
        self._legs: dict[str, OpenLeg] = {}  # by id
        self._leg_of: dict[str, str] = {}  # file -> id
        self._folders: set[str] = set()
        self._closed: set[str] = set()
        self._to_look: set[str] = set()  # folders in which something may have been missed
        self._is_all_seen = True

    def fileno(self) -> int:
        """Readable when a file has been closed."""
        return self._watch.fileno()

    def close(self) -> None:
        self._watch.close()

    def begin(self, legs: Iterable[OpenLeg]) -> None:
        """These are open by the database; those that are new here may have ended already."""
        for leg in legs:
            if leg.id not in self._legs:
                self._add(leg)
                self._closed.add(leg.file)

    def stored(self, events: Sequence[Event]) -> None:
        """These have come into the database."""
        for event in events:
            if not isinstance(event, Leg):
                self._remove(event.leg_id)
            elif event.server == self._server:
                self._add(OpenLeg(event.id, event.file, event.started_at))

    def read(self) -> None:
        """Take in what was closed since the last time: before a drain, which brings in their starts."""
        closed = self._watch.read()
        self._closed |= set(filter(recording.is_ours, closed.files))
        self._is_all_seen &= closed.is_all and len(self._closed) < _MOST_CLOSED

    def ended(self) -> list[Ending]:
        """Of the legs that are known and whose files were closed; each is told once."""
        files = self._closed & self._leg_of.keys()
        self._closed -= files
        return closing.ended(self._legs[self._leg_of[file]] for file in files)

    def ended_of(self, events: Sequence[Event]) -> list[Ending]:
        """Of the legs that begin with these events: their files may have been closed before."""
        legs = [event for event in events if isinstance(event, Leg) and event.file in self._closed]
        ours = (leg for leg in legs if leg.server == self._server)
        return closing.ended(OpenLeg(leg.id, leg.file, leg.started_at) for leg in ours)

    def refresh(self) -> None:
        """Once in a while: another disk, say, may have come to stand in a folder's place."""
        self._folders = {os.path.dirname(file) for file in self._leg_of}
        self._watch.keep(self._folders)
        try:
            self._to_look |= set(self._watch.refresh())
            for folder in self._folders:
                self._watch.add(folder)
            self.failure = None
        except OSError as exc:
            self._fails(exc)

    def look_at_all(self) -> None:
        """Somebody else has told of an end, say."""
        self._is_all_seen = False

    def endings(self, store: Store, is_all_stored: bool = True) -> list[Ending]:
        """Of the legs that have ended, as far as the database does not know it.

        is_all_stored: else another drain is about to bring in what has begun, and a file whose leg is not
        known yet is kept in mind. Raises StoreUnavailable.
        """
        strangers = self._strangers(store)
        found = closing.ended([*self._seen(), *strangers])
        unknown = self._closed - self._leg_of.keys() - {leg.file for leg in strangers}
        self._closed = set() if is_all_stored else unknown
        self._to_look, self._is_all_seen = set(), self.failure is None
        return found

    @property
    def waits(self) -> bool:
        """Whether a file was closed whose leg is not known yet."""
        return bool(self._closed)

    def _add(self, leg: OpenLeg) -> None:
        folder = os.path.dirname(leg.file)
        if folder not in self._folders:
            self._folders.add(folder)
            self._to_look.add(folder)  # it may have been closed before it is watched
            try:
                self._watch.add(folder)
            except OSError as exc:
                self._fails(exc)
        self._legs[leg.id] = leg
        self._leg_of[leg.file] = leg.id

    def _fails(self, exc: OSError) -> None:
        self.failure, self._is_all_seen = exc, False

    def _remove(self, leg_id: str) -> None:
        leg = self._legs.pop(leg_id, None)
        if leg:
            self._leg_of.pop(leg.file, None)
            self._closed.discard(leg.file)

    def _seen(self) -> list[OpenLeg]:
        if not self._is_all_seen:
            return list(self._legs.values())
        files = {file for file in self._closed if file in self._leg_of}
        if self._to_look:
            files |= {file for file in self._leg_of if os.path.dirname(file) in self._to_look}
        return [self._legs[self._leg_of[file]] for file in files]

    def _strangers(self, store: Store) -> list[OpenLeg]:
        """Another drain has brought in their starts."""
        files = [file for file in self._closed if file not in self._leg_of and recording.is_ours(file)]
        if not files:
            return []
        with store.reading() as connection:
            rows = [
                row
                for file in files
                for row in queries.legs_whose_id_begins(connection, recording.id_in(file))
                if (row["file"], row["status"], row["server"]) == (file, "recording", self._server)
            ]
        return [OpenLeg(row["id"], row["file"], row["started_at"]) for row in rows]
