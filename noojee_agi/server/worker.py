"""One process of the server: an event loop that takes connections and runs their sessions in greenlets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from noojee_agi import log
from noojee_agi.actions.finish_record import finish_record
from noojee_agi.actions.result import Report
from noojee_agi.asterisk.stream import SESSION_SECONDS, Stream
from noojee_agi.config import Config
from noojee_agi.errors import DiskSilent
from noojee_agi.recordings import disk, recording, snapshot
from noojee_agi.server import counters, fastagi, handed_over, sighup
from noojee_agi.server.admission import KEY_BYTES, KEY_SECONDS, Admission
from noojee_agi.server.complaints import Complaints
from noojee_agi.server.counters import Counters
from noojee_agi.server.snapshot_renewal import SnapshotRenewal
from noojee_agi.server.waiting import Sessions
from noojee_agi.session import handoff, session

logger = logging.getLogger(__name__)

_QUEUE_SECONDS = 10.0  # in the kernel's queue: whoever has waited longer is not kept any longer
_PAUSE_SECONDS = 0.2
_TELL_SECONDS = 1.0
_STREAMS = 2
_FINISH_WORDS = 3
_OUR_FAILURES, _KEY_REFUSED = 500, 401
_TCP_INFO_BYTES, _LAST_DATA_RECEIVED = 64, 52  # linux/tcp.h, struct tcp_info, in milliseconds
_IPV4_MAPPED = "::ffff:"  # how a socket that listens on [::] tells an IPv4 address (RFC 4291)

Serve = Callable[[socket.socket, str], None]


@dataclass(frozen=True)
class Links:
    """What a worker has of the server: listening sockets, and pipes to the drain process."""

    network: socket.socket | None
    local: socket.socket
    events: int
    questions: int
    counters: Counters


class Worker:
    """Number `number` of the workers; threads: how many of its sessions may block at the same time."""

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
        self._programs = programs
        self._links = links

    def run(self, lifeline: int) -> None:
        """Until the other end of lifeline is closed, and every session has come to its end."""
        self._links.counters.set(self._number, counters.RUNNING, 0)
        self._loop = asyncio.new_event_loop()
        self._sessions = Sessions(self._loop, self._threads)
        self._complaints = Complaints(logger)
        self._admission = Admission(self._complaints)
        self._surroundings = self._make_surroundings()
        disk.use_thread(self._sessions.in_thread)
        disk.trust_local(self._config.recordings_directory)
        sighup.on_sighup(self._load_config, self.use)
        self._loop.add_reader(lifeline, self._close, lifeline)
        self._listeners: dict[socket.socket, Serve] = {self._links.local: self._program}
        if self._links.network:
            self._listeners[self._links.network] = self._fastagi
        for listener in self._listeners:
            self._listen(listener)
        self._tell_complaints()
        self._loop.run_forever()
        self._complaints.tell(is_last=True)

    def use(self, config: Config) -> None:
        """From the next session on."""
        self._config = config
        disk.trust_local(config.recordings_directory)

    def _make_surroundings(self) -> session.Surroundings:
        load = snapshot.Cached()
        return session.Surroundings(
            self._programs,
            lambda: self._config,
            SnapshotRenewal(self._loop, self._sessions, load, partial(_tell, self._links.questions)),
            load,
            self._sessions.pause,
            self._sessions.in_thread,
            self._links.counters.sees_ends,
        )

    # --- connections ---

    def _listen(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)

    def _close(self, lifeline: int) -> None:
        """Take in those who wait in the kernel's queues, and nobody else; then come to the end."""
        self._loop.remove_reader(lifeline)
        for listener in list(self._listeners):
            self._loop.remove_reader(listener)
            while self._accept(listener):
                pass
            del self._listeners[listener]
            listener.close()
        self._end()

    def _end(self) -> None:
        if self._sessions:
            self._loop.call_later(_PAUSE_SECONDS / 10, self._end)
        else:
            self._loop.stop()

    def _accept(self, listener: socket.socket) -> bool:
        """One of those who wait there; another process may have been quicker. Whether there was one."""
        try:
            connection, address = listener.accept()
        except BlockingIOError:
            return False
        except ConnectionError:
            return True  # gone before we looked
        except OSError as exc:  # no descriptor left, say: it waits in the kernel's queue
            self._complaints.add("a connection cannot be taken now: %s", exc)
            if not self._admission.send_away(1):
                self._loop.remove_reader(listener)
                self._loop.call_later(_PAUSE_SECONDS, self._listen, listener)
            return False
        connection.setblocking(False)
        serve = self._listeners[listener]
        self._sessions.begin(lambda: serve(connection, address[0] if address else ""))
        return True

    def _tell_complaints(self) -> None:
        self._complaints.tell()
        self._loop.call_later(_TELL_SECONDS, self._tell_complaints)

    # --- FastAGI ---

    def _fastagi(self, connection: socket.socket, address: str) -> None:
        current = self._sessions.current()
        with contextlib.closing(connection):
            if _waited(connection) > _QUEUE_SECONDS:
                self._complaints.add(
                    "%s waited to be heard for %g s and was sent away", address, _QUEUE_SECONDS
                )
                self._count(counters.FAILED, 1)
                return
            descriptor = connection.fileno()
            stream = Stream(
                descriptor, descriptor, b"", self._sessions.wait_for_event, KEY_SECONDS, KEY_BYTES
            )

            def admit() -> None:
                if self._admission.remove(current):
                    stream.extend(SESSION_SECONDS)
                    self._count(counters.RUNNING, 1)

            self._admission.add(current, address)
            report = session.run(
                (stream, stream),
                fastagi.invocation_of,
                self._surroundings,
                host=_other_host(connection, address),
                admit=admit,
            )
            current.stop_reading()
        self._has_ended(report, address, is_admitted=not self._admission.remove(current))

    def _has_ended(self, report: Report, address: str, is_admitted: bool) -> None:
        """Who comes and goes without a word, as monitoring does, is no line of the log."""
        if is_admitted:
            self._count(counters.RUNNING, -1)
            self._afterwards(report)
        elif report.result.status == _KEY_REFUSED or report.failure:
            self._afterwards(report)
        elif report.uniqueid:
            self._complaints.add("%s showed no apiKey within %g s and was sent away", address, KEY_SECONDS)

    # --- programs of ours ---

    def _program(self, connection: socket.socket, address: str) -> None:
        wait = self._sessions.wait_for_event
        current = self._sessions.current()
        with contextlib.closing(connection):
            try:
                if not handed_over.is_ours(connection):
                    return
                self._admission.add(current, address)
                message = handed_over.message(connection, wait, KEY_SECONDS, KEY_BYTES)
                work, count = self._work_of(connection, message) if message else (None, 0)
                streams = handed_over.take(connection, wait, count) if work else None
            finally:
                self._admission.remove(current)
                current.stop_reading()
            if work and streams is not None:
                self._do(connection, work, streams)

    def _work_of(
        self, connection: socket.socket, message: bytes
    ) -> tuple[Callable[..., Report | None] | None, int]:
        """What the message asks for, and how many streams come with it; None when it is sent away."""
        if message == handoff.STATUS:
            with contextlib.suppress(OSError):
                connection.send(json.dumps(self._links.counters.report()).encode())
            return None, 0
        try:
            program, configuration, words, environment = handoff.unpack(message)
        except ValueError:
            program, configuration, words, environment = "", "", [], b""
        is_finish = program == handoff.FINISH and len(words) == _FINISH_WORDS and recording.is_id(words[1])
        if program not in session.ACTIONS and not is_finish:
            logger.error("what came to the socket is none of ours: it was sent away")
            return None, 0
        if configuration != self._config.path:
            logger.warning(
                "%s does its work itself: its configuration is %r, and this server's %r: set its"
                " NOOJEE_AGI_CONF",
                *(program, configuration, self._config.path),
            )
            return None, 0
        if is_finish:
            return partial(self._finish, *words[1:]), 0
        return partial(self._agi, session.Invocation(program, words), environment), _STREAMS

    def _do(self, connection: socket.socket, work: Callable[..., Report | None], streams: list[int]) -> None:
        report = None
        self._count(counters.RUNNING, 1)
        try:
            report = work(*streams)
        except OSError:
            return  # the program does it itself, once the connection is closed
        finally:
            self._count(counters.RUNNING, -1)
            self._sessions.current().stop_reading()
            handed_over.close(streams)  # Asterisk waits for that
        with contextlib.suppress(OSError):
            connection.send(handoff.DONE)
        if report:
            self._afterwards(report)

    def _agi(self, invocation: session.Invocation, environment: bytes, reading: int, writing: int) -> Report:
        stream = Stream(reading, writing, environment, self._sessions.wait_for_event)
        return session.run((stream, stream), lambda channel: invocation, self._surroundings)

    def _finish(self, leg_id: str, file: str) -> None:
        """Raises OSError: then the program does it itself, and may wait as long as it likes."""
        try:
            disk.bounded()(finish_record)(leg_id, file)
        except DiskSilent as exc:
            raise TimeoutError from exc
        _tell(self._links.events)

    # --- afterwards ---

    def _afterwards(self, report: Report) -> None:
        """What the caller does not wait for."""
        self._count(counters.SESSIONS, 1)
        if report.result.status >= _OUR_FAILURES:
            self._count(counters.FAILED, 1)
        log.session(report)
        if report.result.leg_id:
            _tell(self._links.events)

    def _count(self, what: int, number: int) -> None:
        self._links.counters.add(self._number, what, number)


def _tell(pipe: int) -> None:
    """The drain process, that there is something for it."""
    with contextlib.suppress(BlockingIOError):  # it has been told often enough
        os.write(pipe, b"!")


def _waited(connection: socket.socket) -> float:
    """How many seconds ago it has said something, or connected (tcp(7), TCP_INFO)."""
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int.from_bytes(told[_LAST_DATA_RECEIVED : _LAST_DATA_RECEIVED + 4], sys.byteorder) / 1000


def _other_host(connection: socket.socket, address: str) -> str:
    """The address of the Asterisk at the other end; empty when it is on this machine."""
    return "" if address == connection.getsockname()[0] else address.removeprefix(_IPV4_MAPPED)
