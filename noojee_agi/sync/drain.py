"""Spool -> database -> side-car."""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from noojee_agi import text
from noojee_agi.config import Config
from noojee_agi.database import intake, queries
from noojee_agi.database.store import Store
from noojee_agi.errors import JournalUnusable, StoreRejected
from noojee_agi.recordings import event_files, history, journal, recording, rejected, sidecar, spool, wav
from noojee_agi.recordings.recording import Attachment, Ending, Event, Leg, leg_id, leg_ids
from noojee_agi.sync import desks

logger = logging.getLogger(__name__)

Stored = Callable[[Sequence[Event]], None]
Ended = Callable[[Sequence[Event]], list[Ending]]
_Waiting = tuple[bytes, Event]  # with its line

_BATCH = 200
# An ending without its start waits this long before it is set aside: the start may be on its way.
_PATIENCE_SECONDS = 60


@dataclass
class Result:
    """What a drain did. busy: another one holds the lock. left: how many events must be tried again later."""

    stored: int = 0
    rejected: int = 0
    busy: bool = False
    left: int = 0


def _nobody(events: Sequence[Event]) -> None:
    """Is told of nothing."""


def _none(events: Sequence[Event]) -> list[Ending]:
    """Nothing is known of any."""
    return []


def run(
    store: Store,
    spool_directory: str,
    stored: Stored = _nobody,
    is_patient: bool = True,
    ended: Ended = _none,
) -> Result:
    """Store every waiting event. stored is told the events of each transaction, some of them perhaps again.

    ended: asked for the endings of the legs among these events, which are stored together with them.
    is_patient: also those that come meanwhile; in a server they may never end, and it looks again anyway.
    Raises StoreUnavailable (what was not stored stays in the spool) and OSError.
    """
    drain = _Drain(store, spool_directory, stored, ended)
    while True:
        with spool.lock(spool_directory) as ours:
            drain.result.busy = not ours
            if ours:
                drain.prepare()
                while drain.pass_once() and is_patient:
                    pass
        # An event that came after the last look, whose own drain found the lock taken, is ours too.
        if not ours or not is_patient or journal.is_empty(spool_directory):
            return drain.result


def run_own(
    store: Store, config: Config, stored: Stored = _nobody, is_patient: bool = True, ended: Ended = _none
) -> Result:
    """run() for this configuration's spool; one that was there and is gone, with its disk, is not made."""
    is_there = os.path.isdir(config.spool_directory)
    if not is_there and history.load(config.state_directory).is_away(config.recordings_directory):
        return Result()
    return run(store, config.spool_directory, desks.renewing(store, config, stored), is_patient, ended)


def backlog(spool_directory: str) -> str:
    """What waits there, for an error's message: the spool may be what is wrong."""
    try:
        return f"{spool.count(spool_directory)} events wait in the spool"
    except OSError:
        return "the spool cannot be read"


class _Drain:
    """The holder of the spool's lock at work; result: what it has done so far."""

    def __init__(self, store: Store, spool_directory: str, stored: Stored, ended: Ended) -> None:
        self.result = Result()
        self._store = store
        self._directory = spool_directory
        self._stored = stored
        self._ended = ended
        self._left: set[str] = set()  # journals that this drain does not look at again
        self._patience_seconds: float = _PATIENCE_SECONDS

    def prepare(self) -> None:
        """Clear up what others have left behind. Raises OSError."""
        journal.tidy(self._directory)
        event_files.take_in(self._directory)

    def pass_once(self) -> bool:
        """Store what was taken before, then what is there now. Whether there was anything.

        In this order: while the database is away one journal grows, and does not become many.
        """
        found = [path for path in journal.taken(self._directory) if path not in self._left]
        self._patience_seconds = math.inf  # the start of an ending may lie in a later one
        left = [path for path in found if self._store_journal(path)]
        if path := journal.take(self._directory):
            found.append(path)
            left += [path] if self._store_journal(path) else []
        self._patience_seconds = _PATIENCE_SECONDS
        for path in left:
            if count := self._store_journal(path):
                self._leave(path, count)
        return bool(found)

    def _leave(self, path: str, count: int) -> None:
        self._left.add(path)
        self.result.left += count

    def _store_journal(self, path: str) -> int:
        """Returns how many of its events are to be looked at once more."""
        left: list[bytes] = []
        try:
            for batch in journal.batches(path, _BATCH):
                left += self._store_batch(batch)
            # Only now: whoever is killed before finds all again, and writes what may not have been written.
            journal.keep_only(path, left)
        except JournalUnusable as exc:
            logger.error("%s, all of it is tried again later", exc)
            self._leave(path, max(len(left), 1))
            return 0
        return len(left)

    def _store_batch(self, batch: list[bytes]) -> list[bytes]:
        """Returns the lines that must be tried again later."""
        waiting = [(line, event) for line in batch if (event := self._read(line))]
        for ending in self._ended([event for _, event in waiting]):
            waiting.append((recording.to_json(ending).encode(), ending))
        return self._store_together(waiting) if waiting else []

    def _read(self, line: bytes) -> Event | None:
        try:
            return recording.from_json(line.decode())
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            if isinstance(exc, ValueError | RecursionError) and not journal.is_whole(line):
                start = text.printable(line[:60].decode("utf-8", "replace"))
                logger.warning("an event that was never written to its end is dropped: %s", start)
            else:
                self._set_aside(line, "damaged", f"not an event of this program: {exc!r}")
            return None

    def _store_together(self, waiting: list[_Waiting]) -> list[bytes]:
        """In one transaction; when that is refused, halve until the refused one stands alone."""
        events = [event for _, event in waiting]
        try:
            legs, others = self._store.in_turn(lambda connection: _store(connection, events))
        except StoreRejected as exc:
            if len(waiting) == 1:
                return self._refused(*waiting[0], str(exc))
            middle = len(waiting) // 2
            return self._store_together(waiting[:middle]) + self._store_together(waiting[middle:])
        others |= _others_of_strangers(self._store, events, legs)
        unwritten = _write_side_cars(self._store, legs, others)
        calls = {leg["id"]: leg["call_record_id"] for leg in legs}
        left = [
            line
            for line, event in waiting
            if calls.get(leg_id(event)) in unwritten or (unwritten and isinstance(event, Attachment))
        ]
        self.result.stored += len(events) - len(left)
        self._stored(events)
        return left

    def _refused(self, line: bytes, event: Event, reason: str) -> list[bytes]:
        waited_seconds = time.time() - recording.moment(event).timestamp()
        if not isinstance(event, Leg) and waited_seconds < self._patience_seconds:
            return [line]
        self._set_aside(line, f"{recording.kind(event)}-{leg_id(event)}".rstrip("-"), reason)
        return []

    def _set_aside(self, line: bytes, name: str, reason: str) -> None:
        path = rejected.set_aside(self._directory, line, reason, name)
        logger.error("an event is set aside as %s: %s", path, text.printable(reason))
        self.result.rejected += 1


def _store(connection: Any, events: list[Event]) -> tuple[list[dict[str, Any]], set[str]]:
    """The legs of these events as they are then, and the others whose side-cars may be out of date."""
    others = intake.store(connection, events)
    return queries.whole_legs(connection, leg_ids(events)), others


def _others_of_strangers(store: Store, events: list[Event], legs: list[dict[str, Any]]) -> set[str]:
    """A leg that ends here and has no side-car was begun on another host, where those of its call are not."""
    begun = {event.id for event in events if isinstance(event, Leg)}
    strangers = (leg for leg in legs if leg["id"] not in begun)
    calls = {leg["call_record_id"] for leg in strangers if not os.path.exists(sidecar.path_of(leg))}
    if not calls:
        return set()
    with store.reading() as connection:
        return intake.legs_of(connection, calls) - {leg["id"] for leg in legs}


def _write_side_cars(store: Store, legs: list[dict[str, Any]], others: set[str]) -> set[str]:
    """Mend files, and write, a leg's own last: it shows that the others are done.

    Returns the calls of which one must be tried again.
    """
    for leg in legs:
        if leg["status"] == "interrupted":
            _repair(leg["file"])
    ours = (leg for leg in queries.each_leg(store, others) if sidecar.is_here(leg))
    unwritten = {leg["call_record_id"] for leg in ours if not sidecar.write(leg)}
    return unwritten | {leg["call_record_id"] for leg in legs if not sidecar.write(leg)}


def _repair(file: str) -> None:
    if not recording.is_ours(file):
        return  # its side-car's word says so
    try:
        wav.repair(file)
    except OSError as exc:
        logger.error("%s: its header cannot be repaired: %s", file, exc.strerror)
