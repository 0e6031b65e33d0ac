"""The sessions that our own programs hand over: the server's half, the other is `session.handoff`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from noojee_agi.actions.finish_record import finish_record
from noojee_agi.actions.result import Report
from noojee_agi.asterisk.stream import Stream, Wait
from noojee_agi.errors import DiskSilent
from noojee_agi.recordings import disk, recording
from noojee_agi.server import counters, waiting
from noojee_agi.server.admission import KEY_BYTES, KEY_SECONDS, Admission
from noojee_agi.server.reports import Reports
from noojee_agi.session import handoff, session
from noojee_agi.session.handoff import GO, LENGTH_BYTES, TAKEN

logger = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 0.25  # a program answers at once; frozen, it does the work when it wakes up
_STREAMS = 2
_FINISH_WORDS = 3

Work = Callable[..., Report | None]


class Programs(NamedTuple):
    """Serves one program after the other, each in a session of its own; and who asks how the server is.

    configuration: the path of the server's own, which a program must have, too. status: what check is told.
    """

    admission: Admission
    surroundings: session.Surroundings
    reports: Reports
    configuration: Callable[[], str]
    status: Callable[[], dict[str, float | str]]

    def serve(self, connection: socket.socket, address: str) -> None:
        """Called within a session of the loop; closes the connection."""
        wait = waiting.wait_for_event
        current = waiting.current()
        with contextlib.closing(connection):
            try:
                if not handoff.is_ours(connection):
                    return
                self.admission.add(current, address)
                message = _message(connection, wait, KEY_SECONDS, KEY_BYTES)
                work, count = self._work_of(connection, message) if message else (None, 0)
                streams = _take(connection, wait, count) if work else None
            finally:
                self.admission.remove(current)
                current.stop_reading()
            if work and streams is not None:
                self._do(connection, work, streams)

    def _work_of(self, connection: socket.socket, message: bytes) -> tuple[Work | None, int]:
        """What the message asks for, and how many streams come with it; None when it is sent away."""
        if message == handoff.STATUS:
            with contextlib.suppress(OSError):
                connection.send(json.dumps(self.status()).encode())
            return None, 0
        try:
            program, configuration, words, environment = handoff.unpack(message)
        except ValueError:
            program, configuration, words, environment = "", "", [], b""
        is_finish = program == handoff.FINISH and len(words) == _FINISH_WORDS and recording.is_id(words[1])
        if program not in session.ACTIONS and not is_finish:
            logger.error("what came to the socket is none of ours: it was sent away")
            return None, 0
        if configuration != self.configuration():
            logger.warning(
                "%s does its work itself: its configuration is %r, and this server's %r: set its"
                " NOOJEE_AGI_CONF",
                *(program, configuration, self.configuration()),
            )
            return None, 0
        if is_finish:
            return partial(self._finish, *words[1:]), 0
        return partial(self._agi, session.Invocation(program, words), environment), _STREAMS

    def _do(self, connection: socket.socket, work: Work, streams: list[int]) -> None:
        report = None
        self.reports.count(counters.RUNNING, 1)
        try:
            report = work(*streams)
        except OSError:
            return  # the program does it itself, once the connection is closed
        finally:
            self.reports.count(counters.RUNNING, -1)
            waiting.current().stop_reading()
            _close(streams)  # Asterisk waits for that
        with contextlib.suppress(OSError):
            connection.send(handoff.DONE)
        if report:
            self.reports.add(report)

    def _agi(self, invocation: session.Invocation, environment: bytes, reading: int, writing: int) -> Report:
        stream = Stream(reading, writing, environment, waiting.wait_for_event)
        return session.run((stream, stream), lambda channel: invocation, self.surroundings)

    def _finish(self, leg_id: str, file: str) -> None:
        """Raises OSError: then the program does it itself, and may wait as long as it likes."""
        try:
            disk.bounded()(finish_record)(leg_id, file)
        except DiskSilent as exc:
            raise TimeoutError from exc
        self.reports.tell_of_events()


def _message(connection: socket.socket, wait: Wait, seconds: float, most_bytes: int) -> bytes | None:
    """What the program says, whole; None when it has gone, or says too much, or takes too long."""
    received, end = bytearray(), LENGTH_BYTES
    deadline = time.monotonic() + seconds
    while len(received) < end:
        if not wait(connection.fileno(), select.POLLIN, deadline - time.monotonic()):
            return None
        try:
            read = connection.recv(most_bytes)
        except OSError:
            return None
        received += read
        if not read or len(received) > most_bytes:
            return None
        if len(received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(received[:LENGTH_BYTES], "big")
    return bytes(received[LENGTH_BYTES:end])


def _take(connection: socket.socket, wait: Wait, count: int) -> list[int] | None:
    """Tell the program that its session is taken; so many streams of it, once it says GO.

    None when it does not: its patience is over, say, and it does the work itself.
    """
    try:
        connection.send(TAKEN)
        if not wait(connection.fileno(), select.POLLIN, _HANDSHAKE_SECONDS):
            return None
        said, streams, _, _ = socket.recv_fds(connection, 1, count)
    except OSError:
        return None
    if said == GO and len(streams) == count:
        return list(streams)
    _close(list(streams))
    return None


def _close(streams: list[int]) -> None:
    for descriptor in streams:
        os.close(descriptor)
