"""The legs that record now: their files are seen being closed, so MixMonitor needs no end command."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime

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
        self._watched_since: dict[str, datetime] = {}  # by folder
        self._closed: set[str] = set()
        self._doubtful: set[str] = set()  # was closed, and had a writer when we looked
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
            if isinstance(event, Ending):
                self._remove(event.leg_id)
            elif isinstance(event, Leg) and event.server == self._server:
                self._add(OpenLeg(event.id, event.file, event.started_at))

    def read(self) -> None:
        """Take in what was closed since the last time: before a drain, which brings in their starts."""
        closed = self._watch.read()
        self._closed |= set(filter(recording.is_ours, closed.files))
        if not closed.is_all or len(self._closed) >= _MOST_CLOSED:
            self.look_at_all()

    def ended(self) -> list[Ending]:
        """Of the legs that are known and whose files were closed; each is told once."""
        files = self._closed & self._leg_of.keys()
        found = closing.ended(self._legs[self._leg_of[file]] for file in files)
        self._closed -= {self._legs[ending.leg_id].file for ending in found}
        return found

    def ended_of(self, events: Sequence[Event]) -> list[Ending]:
        """Of the legs that begin with these events: their files may have been closed before."""
        legs = [event for event in events if isinstance(event, Leg) and event.file in self._closed]
        ours = (leg for leg in legs if leg.server == self._server)
        return closing.ended(OpenLeg(leg.id, leg.file, leg.started_at) for leg in ours)

    def refresh(self) -> None:
        """Once in a while: another disk, say, may have come to stand in a folder's place."""
        newest = [*self._watched_since][-1:]  # where the next call's file will be, most of the day
        folders = dict.fromkeys([os.path.dirname(file) for file in self._leg_of] + newest)
        self._watch.keep(folders)
        self._watched_since = {folder: self._watched_since[folder] for folder in folders}
        try:
            changed = self._watch.refresh()
            for folder in folders:
                self._watch.add(folder)
            if changed or self.failure:
                self.look_at_all()
            self.failure = None
        except OSError as exc:
            self._fails(exc)

    def look_at_all(self) -> None:
        """What was closed before now may not have been seen, or somebody else has told of an end."""
        self._is_all_seen = False
        self._watched_since = dict.fromkeys(self._watched_since, recording.now())

    def endings(self, store: Store, is_all_stored: bool = True) -> list[Ending]:
        """Of the legs that have ended, as far as the database does not know it.

        is_all_stored: else another drain is about to bring in what has begun, and a file whose leg is not
        known yet is kept in mind. Raises StoreUnavailable.
        """
        strangers = self._strangers(store)
        found = closing.ended([*self._seen(), *strangers])
        unknown = self._closed - self._leg_of.keys() - {leg.file for leg in strangers}
        # The kernel tells of a close before the file has no writer any more: it is looked at once more.
        told = {ending.leg_id for ending in found}
        doubtful = {file for file in self._closed & self._leg_of.keys() if self._leg_of[file] not in told}
        once_more, self._doubtful = doubtful - self._doubtful, doubtful
        self._closed = once_more if is_all_stored else once_more | unknown
        self._is_all_seen = self.failure is None
        return found

    @property
    def waits(self) -> bool:
        """Whether a file was closed whose leg is not known yet."""
        return bool(self._closed)

    def _add(self, leg: OpenLeg) -> None:
        folder = os.path.dirname(leg.file)
        if folder not in self._watched_since:
            try:
                self._watch.add(folder)
            except OSError as exc:
                self._fails(exc)
            self._watched_since[folder] = recording.now()
        if leg.started_at <= self._watched_since[folder]:
            self._closed.add(leg.file)  # perhaps, before it was watched
        self._legs[leg.id] = leg
        self._leg_of[leg.file] = leg.id

    def _fails(self, exc: OSError) -> None:
        self.failure = exc
        self.look_at_all()

    def _remove(self, leg_id: str) -> None:
        leg = self._legs.pop(leg_id, None)
        if leg:
            self._leg_of.pop(leg.file, None)
            self._closed.discard(leg.file)

    def _seen(self) -> list[OpenLeg]:
        if not self._is_all_seen:
            return list(self._legs.values())
        return [self._legs[self._leg_of[file]] for file in self._closed & self._leg_of.keys()]

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
