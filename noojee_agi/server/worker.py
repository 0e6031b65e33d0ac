"""One process of the server: an acceptor, and threads that run the sessions it has taken in."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue

from noojee_agi import log
from noojee_agi.actions import access
from noojee_agi.actions.finish_record import finish_record
from noojee_agi.actions.result import Report
from noojee_agi.asterisk import variables
from noojee_agi.asterisk.stream import Stream
from noojee_agi.config import Config
from noojee_agi.errors import DiskSilent, KeyRefused
from noojee_agi.recordings import disk, recording, snapshot
from noojee_agi.server import counters, fastagi, sighup
from noojee_agi.server.acceptor import Acceptor, Begin, Guest
from noojee_agi.server.counters import Counters
from noojee_agi.server.overflow import Overflow
from noojee_agi.session import background, handoff, session

logger = logging.getLogger(__name__)

STRANGER_THREADS = 4  # of each worker, beside its others: a right call never waits for these
_MAX_STRANGERS = 200  # who wait to be told 401
_REFUSAL_SECONDS = 1.0
_SOON_SECONDS = 0.1
_POLL_SECONDS = 0.005
_STREAMS = 2
_FINISH_WORDS = 3
_OUR_FAILURES = 500
_IPV4_MAPPED = "::ffff:"  # how a socket that listens on [::] tells an IPv4 address (RFC 4291)


@dataclass(frozen=True)
class Links:
    """What a worker has of the server: listening sockets, and pipes to the drain process."""

    network: socket.socket | None
    local: socket.socket
    events: int
    questions: int
    counters: Counters
    overflow: Overflow


@dataclass(frozen=True)
class _Question:
    """To the drain process. snapshot_of: when that was changed last; asked_at: by time.monotonic()."""

    snapshot_of: int
    asked_at: float


_NO_QUESTION = _Question(-1, 0.0)


class Worker:
    """Number `number` of the workers, with so many threads."""

    def __init__(
        self,
        number: int,
        threads: int,
        load_config: Callable[[], Config],
        config: Config,
        programs: str,
        links: Links,
    ) -> None:
        self._number = number
        self._threads = threads
        self._load_config = load_config
        self._config = config
        self._links = links
        self._all_threads = config.server_threads
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._unfinished = 0  # jobs, running or not
        self._unfinished_lock = threading.Lock()
        self._snapshot = snapshot.Cached()
        self._surroundings = session.Surroundings(
            programs, lambda: self._config, self._read_database, self._snapshot
        )
        self._refusing = replace(self._surroundings, read_database=lambda config: None)
        self._strangers: SimpleQueue[Guest | None] = SimpleQueue()
        self._askers = threading.BoundedSemaphore(max(1, threads // 8))
        self._question = _NO_QUESTION
        self._ask_again_at = 0.0
        self._alive: list[threading.Thread] = []
        self._refusers: list[threading.Thread] = []
        self._acceptor: Acceptor | None = None

    def run(self, lifeline: int) -> None:
        """Until the other end of lifeline is closed, and every session has come to its end."""
        self._links.counters.set(self._number, counters.RUNNING, 0)
        disk.trust_local(self._config.recordings_directory)
        sighup.on_sighup(self._load_config, self.use)
        self._acceptor = Acceptor(
            self._links.network,
            self._links.local,
            self._take_network,
            self._take_local,
            self._links.overflow.waiting,
            self._take_waiting,
            self._count_free_threads,
            self._is_server_full,
            partial(self._count, counters.FAILED, 1),
        )
        for _ in range(self._threads):
            self._start_thread()
        for _ in range(STRANGER_THREADS):
            self._start_refuser()
        self._acceptor.run(lifeline)
        for _ in range(STRANGER_THREADS):
            self._strangers.put(None)
        while self._refusers:
            self._refusers.pop().join()
        with contextlib.suppress(OSError):  # no descriptor is left
            while self._take_waiting():  # what we have given last, say, and nobody else is left to take
                pass
        for _ in range(self._threads):
            self._jobs.put(None)
        while self._alive:
            self._alive.pop().join()

    def use(self, config: Config) -> None:
        """From the next session on."""
        self._config = config
        disk.trust_local(config.recordings_directory)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work)
        self._alive.append(thread)
        thread.start()

    def _work(self) -> None:
        """One session after the other; when one fails as nobody foresaw, a new thread takes over."""
        disk.prepare()
        job = self._jobs.get()
        while job is not None:
            self._count(counters.RUNNING, 1)
            self._tell_waiting()
            is_done = False
            try:
                job()
                is_done = True
            finally:
                self._count(counters.RUNNING, -1)
                self._count_unfinished(-1)
                if self._acceptor:
                    self._acceptor.wake()
                if not is_done:
                    self._start_thread()
            job = self._jobs.get()

    def _count(self, what: int, number: int) -> None:
        self._links.counters.add(self._number, what, number)

    def _count_free_threads(self) -> int:
        self._tell_waiting()
        return self._threads - self._unfinished

    def _tell_waiting(self) -> None:
        self._links.counters.set(self._number, counters.WAITING, self._jobs.qsize())

    def _count_unfinished(self, number: int) -> None:
        with self._unfinished_lock:
            self._unfinished += number

    def _put(self, job: Callable[[], None]) -> None:
        self._count_unfinished(1)
        self._jobs.put(job)

    def _is_server_full(self) -> bool:
        return self._links.counters.running() >= self._all_threads

    def _take_network(self, guest: Guest) -> None:
        """Who shows the right key has its turn; the others have a few threads of their own."""
        known = self._snapshot(self._config.snapshot_file)
        if known and access.matches(guest.told[variables.API_KEY], known.key_digest):
            self._admit(guest)
        elif self._strangers.qsize() < _MAX_STRANGERS:
            self._strangers.put(guest)
        else:
            guest.close()

    def _admit(self, guest: Guest) -> None:
        """Whose key is right: here, or, while all threads here are busy, where one is free first."""
        is_given = self._acceptor and not self._acceptor.has_room() and self._links.overflow.give(guest)
        if is_given:
            self._count(counters.GIVEN, 1)
        else:
            self._put(partial(self._fastagi, guest, self._surroundings))

    def _take_waiting(self) -> bool:
        """Whether there was one. Raises OSError."""
        if not self._acceptor or not self._acceptor.has_room():
            return False
        guest = self._links.overflow.take()
        if guest:
            self._count(counters.GIVEN, -1)
            self._put(partial(self._fastagi, guest, self._surroundings))
        return guest is not None

    def _start_refuser(self) -> None:
        thread = threading.Thread(target=self._refuse)
        self._refusers.append(thread)
        thread.start()

    def _refuse(self) -> None:
        """One stranger after the other; a new thread takes over as in _work."""
        is_done = False
        try:
            while guest := self._strangers.get():
                self._stranger(guest)
            is_done = True
        finally:
            if not is_done:
                self._start_refuser()

    def _stranger(self, guest: Guest) -> None:
        """The key may have just changed, which the database knows; else it is refused in little time."""
        if time.monotonic() > guest.deadline:
            guest.close()
            return
        database = partial(self._read_database, self._config)
        try:
            access.require_key(
                guest.told[variables.API_KEY],
                snapshot.Knowledge(self._config.snapshot_file, database, self._snapshot),
            )
        except KeyRefused:
            self._fastagi(guest, self._refusing, _REFUSAL_SECONDS)
        else:
            self._admit(guest)

    def _take_local(self, guest: Guest, message: bytes) -> Begin | None:
        """What begins once the program has said GO; None when it is sent away."""
        if message == handoff.STATUS:
            with contextlib.closing(guest), contextlib.suppress(OSError):
                guest.socket.send(json.dumps(self._links.counters.report()).encode())
            return None
        try:
            program, configuration, words, environment = handoff.unpack(message)
        except ValueError:
            program, configuration, words, environment = "", "", [], b""
        if program in session.ACTIONS:
            work = partial(self._agi, session.Invocation(program, words), environment)
            begin = partial(self._begin, guest, work, _STREAMS)
        elif program == handoff.FINISH and len(words) == _FINISH_WORDS and recording.is_id(words[1]):
            begin = partial(self._begin, guest, partial(self._finish, *words[1:]), 0)
        else:
            logger.error("what came to the socket is none of ours: it was sent away")
            guest.close()
            return None
        if configuration == self._config.path:
            return begin
        logger.warning(
            "%s does its work itself: its configuration is %r, and this server's %r: set its NOOJEE_AGI_CONF",
            *(program, configuration, self._config.path),
        )
        guest.close()
        return None

    def _begin(
        self,
        guest: Guest,
        work: Callable[..., Report | None],
        count_of_streams: int,
        go: bytes,
        streams: list[int],
    ) -> None:
        if go == handoff.GO and len(streams) == count_of_streams:
            self._put(partial(self._handed_over, guest, work, streams))
            return
        guest.close()  # its patience is over, say, and it does the work itself
        for descriptor in streams:
            os.close(descriptor)

    def _fastagi(
        self, guest: Guest, surroundings: session.Surroundings, seconds: float | None = None
    ) -> None:
        with contextlib.closing(guest):
            descriptor = guest.socket.fileno()
            stream = Stream(descriptor, descriptor, bytes(guest.received), seconds is None, seconds)
            host = _other_host(guest.socket)
            report = session.run(
                (stream, stream), fastagi.invocation_of, surroundings, host=host, told=guest.told
            )
        self._afterwards(report)

    def _handed_over(self, guest: Guest, work: Callable[..., Report | None], streams: list[int]) -> None:
        report = None
        with contextlib.closing(guest), contextlib.suppress(OSError):
            try:
                report = work(*streams)
            finally:
                for descriptor in streams:  # Asterisk waits for that
                    os.close(descriptor)
            guest.socket.send(handoff.DONE)
        if report:
            self._afterwards(report)

    def _agi(self, invocation: session.Invocation, environment: bytes, reading: int, writing: int) -> Report:
        stream = Stream(reading, writing, environment)
        return session.run((stream, stream), lambda channel: invocation, self._surroundings)

    def _finish(self, leg_id: str, file: str) -> None:
        try:
            disk.bounded()(finish_record)(leg_id, file)
        except DiskSilent as exc:  # the program does it itself, and may wait as long as it likes
            raise TimeoutError from exc
        self._wake_drain()

    def _afterwards(self, report: Report) -> None:
        """What the caller does not wait for."""
        self._count(counters.SESSIONS, 1)
        if report.result.status >= _OUR_FAILURES:
            self._count(counters.FAILED, 1)
        log.session(report)
        if report.result.leg_id:
            self._wake_drain()

    def _wake_drain(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it has been told often enough
            os.write(self._links.events, b"e")

    def _read_database(self, config: Config) -> None:
        """Have the drain process renew the snapshot, and wait for it for one second at most.

        A database that works needs some milliseconds, and everybody waits for these: together, so that in a
        queue of wrong keys not each waits anew. Only some threads may wait longer, and none just after a
        question without an answer: wrong keys must not keep right ones waiting when the database is away.
        """
        if time.monotonic() < self._ask_again_at:
            return
        before = _changed_at(config.snapshot_file)
        question = self._ask(before)
        if not self._askers.acquire(blocking=False):
            _changes(config.snapshot_file, before, question.asked_at + _SOON_SECONDS)
            return
        try:
            if not _changes(config.snapshot_file, before, time.monotonic() + background.READ_WITHIN_SECONDS):
                self._ask_again_at = time.monotonic() + snapshot.FRESH_SECONDS
                self._question = _NO_QUESTION
        finally:
            self._askers.release()

    def _ask(self, before: int) -> _Question:
        """Ask once more; the question is that of the first who asked since the snapshot has changed."""
        if self._question.snapshot_of != before:
            self._question = _Question(before, time.monotonic())
        with contextlib.suppress(BlockingIOError):
            os.write(self._links.questions, b"?")
        return self._question


def _changes(path: str, before: int, deadline: float) -> bool:
    """Whether the file does before this moment of time.monotonic()."""
    while _changed_at(path) == before:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _changed_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _other_host(connection: socket.socket) -> str:
    """The address of the Asterisk at the other end; empty when it is on this machine, or gone already."""
    try:
        host = str(connection.getpeername()[0])
    except OSError:
        return ""
    return "" if host == connection.getsockname()[0] else host.removeprefix(_IPV4_MAPPED)
