"""The server's process for the database: drains in batches and keeps the snapshot fresh."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import history, spool
from noojee_agi.recordings.recording import Event
from noojee_agi.server import sighup
from noojee_agi.server.counters import Counters
from noojee_agi.server.purging import Purging
from noojee_agi.server.tending import Tending
from noojee_agi.sync import closing, drain, housekeeping, opening, renew_snapshot
from noojee_agi.sync.open_recordings import OpenRecordings

logger = logging.getLogger(__name__)

# What comes together, events or closed files, is stored together, and after those whose calls come: sessions
# go first.
_GATHER_SECONDS = 0.1
_GATHER_AT_MOST_SECONDS = 0.5
_LOOK_SECONDS = 5.0  # for events that nobody told of: of a call that went the plain way
_SNAPSHOT_SECONDS = 10.0
_PIPE_BYTES = 65536  # all that a pipe holds
_NO_WATCH = "each recording's end starts a program, since files cannot be watched (fs.inotify): %s"
_NICENESS = 19  # audio and the sessions have the processor first


class DrainProcess:
    """events: a pipe in which each byte tells of new events; questions: one that asks for the snapshot."""

    def __init__(
        self,
        load_config: Callable[[], Config],
        config: Config,
        events: int,
        questions: int,
        counters: Counters,
        listeners: Sequence[socket.socket],
    ) -> None:
        self._load_config = load_config
        self._config = config
        self._events = events
        self._questions = questions
        self._counters = counters
        self._listeners = listeners
        self._store = Store(config.database_url)
        self._opened_with: Config | None = None
        self._tending = Tending(self._legs_were_closed)
        self._purging = Purging()
        self._settled = spool.States()
        self._recordings: OpenRecordings | None = None
        self._watched_for: Config | None = None
        self._had_no_watch = False
        self._look_at = 0.0

    def run(self, lifeline: int) -> None:
        """Until the other end of lifeline is closed; then once more, for what came last."""
        for listener in self._listeners:
            listener.close()  # a port that nobody answers at would keep calls waiting
        sighup.on_sighup(self._load_config, self.use)
        threading.Thread(target=self._keep_snapshot, args=(lifeline,), daemon=True).start()
        with contextlib.suppress(OSError):  # it may be forbidden
            os.nice(_NICENESS)  # of this thread, and of those that it starts from now on (setpriority(2))
        self._drain(is_last=False)  # what has waited for a server; from now on it sees when a recording ends
        while True:
            # Without a database what was closed is not read, and would have it tried again at once.
            recordings = self._recordings if self._opened_with else None
            closed = [recordings.fileno()] if recordings else []
            is_soon = recordings is not None and recordings.waits
            seconds = _GATHER_AT_MOST_SECONDS if is_soon else _LOOK_SECONDS
            is_open = _wait([self._events, *closed], lifeline, seconds)
            deadline = time.monotonic() + _GATHER_AT_MOST_SECONDS
            _empty(self._events)
            while is_open and time.monotonic() < deadline:
                time.sleep(_GATHER_SECONDS)
                if not _empty(self._events):
                    break
            self._drain(is_last=not is_open)
            if not is_open:
                return

    def use(self, config: Config) -> None:
        """From the next drain on."""
        self._config = config

    def _drain(self, is_last: bool) -> None:
        config = self._config
        try:
            if self._opened_with is not config:
                self._store, self._opened_with = opening.open_database(config), config
            if self._watched_for is not config:
                self._watch_recordings(config)
                self._watched_for = config
            self._bring_in(config, is_last)
            self._tending.run_if_due(self._store, config, is_last)
            if not is_last:
                self._purging.run_if_due(config)
        except (NoojeeError, OSError) as exc:
            self._opened_with = None
            self._settle(config)
            if self._counters.in_trouble():
                logger.error("%s, tried again each 5 s: %s", drain.backlog(config.spool_directory), exc)
        else:
            self._counters.drained()
            self._settled = frozenset()

    def _watch_recordings(self, config: Config) -> None:
        self._counters.set_sees_ends(False)
        if self._recordings:
            self._recordings.close()
            self._recordings = None
        try:
            recordings = OpenRecordings(config.server_name)
        except OSError as exc:
            logger.error(_NO_WATCH, exc)
            return
        self._recordings, self._look_at = recordings, 0.0

    def _bring_in(self, config: Config, is_last: bool) -> None:
        """What has begun and what has ended: a file's close is taken in before the drain, which brings in its
        start, and both in one transaction. What is left then is brought in by itself.

        Raises StoreUnavailable and OSError.
        """
        recordings = self._recordings
        if not recordings:
            self._run_own(config, lambda events: self._counters.drained(), is_last)
            return

        def stored(events: Sequence[Event]) -> None:
            recordings.stored(events)
            self._counters.drained()  # it may take a minute until all of them are

        recordings.read()
        if ended := recordings.ended():
            spool.put(config.spool_directory, *ended)
        done = self._run_own(config, stored, is_last, recordings.ended_of)
        if not done.stored or time.monotonic() > self._look_at:
            self._look_around(config, recordings)
        self._tell_whether_ends_are_seen(config, recordings)
        endings = recordings.endings(self._store, is_all_stored=not done.busy)
        if endings:
            spool.put(config.spool_directory, *endings)
            self._run_own(config, stored, is_last, recordings.ended_of)

    def _run_own(self, config: Config, *how: Any) -> drain.Result:
        """drain.run_own(), and how long it took, if it had anything to do. Raises the same."""
        begun = time.monotonic()
        done = drain.run_own(self._store, config, *how)
        if done.stored:
            self._counters.add_drain(time.monotonic() - begun)
        return done

    def _look_around(self, config: Config, recordings: OpenRecordings) -> None:
        """Another drain may have brought in what has begun, or whoever looked after it before has died.

        Raises StoreUnavailable.
        """
        recordings.refresh()
        known = history.load(config.state_directory)
        recordings.begin(housekeeping.open_legs(self._store, known.with_server(config.server_name)))
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def _tell_whether_ends_are_seen(self, config: Config, recordings: OpenRecordings) -> None:
        """Not where it cannot be told who writes a file: another of its writers may have closed it, too."""
        if recordings.failure and not self._had_no_watch:
            logger.error(_NO_WATCH, recordings.failure)
        self._had_no_watch = recordings.failure is not None
        can_tell = False
        with contextlib.suppress(OSError):
            can_tell = closing.can_tell_who_writes(spool.lock_file(config.spool_directory))
        self._counters.set_sees_ends(can_tell and not recordings.failure)

    def _legs_were_closed(self) -> None:
        if self._recordings:
            self._recordings.look_at_all()

    def _settle(self, config: Config) -> None:
        """What must wait shall outlive a power cut."""
        with contextlib.suppress(OSError):
            self._settled = spool.settle(config.spool_directory, self._settled)

    def _keep_snapshot(self, lifeline: int) -> None:
        """In a thread of its own, which is not nice: a call may wait for this, and a drain can take a minute.

        What nobody foresaw ends the process, so that the server starts another: a kill costs it nothing.
        """
        try:
            while _wait([self._questions], lifeline, _SNAPSHOT_SECONDS):
                _empty(self._questions)
                self._renew_snapshot()
        finally:
            failure = sys.exc_info()
            if failure[0]:
                logger.critical("the snapshot cannot be kept", exc_info=failure)
                os._exit(1)

    def _renew_snapshot(self) -> None:
        config = self._config
        try:
            renew_snapshot.run(opening.open_database(config), config.snapshot_file)
        except (NoojeeError, OSError) as exc:
            if self._counters.snapshot_in_trouble():
                logger.error("the snapshot cannot be renewed, tried again each 10 s: %s", exc)
        else:
            self._counters.snapshot_renewed()


def _wait(descriptors: Sequence[int], lifeline: int, seconds: float) -> bool:
    """Until one of them is readable or the seconds are over; false once the lifeline has ended."""
    poll = select.poll()
    for descriptor in (*descriptors, lifeline):
        poll.register(descriptor, select.POLLIN)
    return lifeline not in [descriptor for descriptor, _ in poll.poll(seconds * 1000)]


def _empty(pipe: int) -> bool:
    """Whether there was something in it."""
    try:
        return bool(os.read(pipe, _PIPE_BYTES))
    except BlockingIOError:
        return False
