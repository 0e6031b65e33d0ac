"""One process of the server: an event loop that takes connections and runs their sessions in greenlets."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import NamedTuple

from noojee_agi.config import Config
from noojee_agi.recordings import disk
from noojee_agi.server import about, counters, sighup, surroundings
from noojee_agi.server.admission import Admission
from noojee_agi.server.complaints import Complaints
from noojee_agi.server.counters import Counters
from noojee_agi.server.fastagi import FastAgi
from noojee_agi.server.programs import Programs
from noojee_agi.server.reports import Reports
from noojee_agi.server.waiting import Sessions

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.2
_TELL_SECONDS = 1.0
_DISK_SECONDS = 10.0

Serve = Callable[[socket.socket, str], None]


class Links(NamedTuple):
    """What a worker has of the server: listening sockets, and pipes to the drain process."""

    network: socket.socket | None
    local: socket.socket
    http: socket.socket | None
    events: int
    questions: int
    counters: Counters
    program: str  # see about.program()


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
        self._config = self._begun = config
        self._programs = programs
        self._links = links

    def run(self, lifeline: int) -> None:
        """Until the other end of lifeline is closed, and every session has come to its end."""
        self._links.counters.set(self._number, counters.RUNNING, 0)
        if self._links.http:
            self._links.http.close()
        self._loop = asyncio.new_event_loop()
        self._sessions = Sessions(self._loop, self._threads)
        self._complaints = Complaints(logger)
        self._admission = Admission(self._complaints)
        disk.look_whether_local(self._config.recordings_directory)
        disk.use_thread(self._sessions.in_thread)
        self._loop.call_later(_DISK_SECONDS, self._look_at_disk)
        sighup.on_sighup(self._load_config, self.use)
        self._loop.add_reader(lifeline, self._close, lifeline)
        self._listeners = self._make_services()
        for listener in self._listeners:
            self._listen(listener)
        self._tell_complaints()
        self._loop.run_forever()
        self._complaints.tell(is_last=True)

    def use(self, config: Config) -> None:
        """From the next session on."""
        self._config = config

    def _make_services(self) -> dict[socket.socket, Serve]:
        """What serves the connections of each listening socket."""
        links = self._links
        around = surroundings.make(
            self._loop, self._sessions, self._programs, lambda: self._config, links.questions, links.counters
        )
        outcome = Reports(links.counters, self._number, links.events)
        programs = Programs(self._admission, around, outcome, lambda: self._config.path, self._status)
        services: dict[socket.socket, Serve] = {links.local: programs.serve}
        if links.network:
            fastagi = FastAgi(self._admission, self._complaints, around, outcome)
            services[links.network] = fastagi.serve
        return services

    def _status(self) -> dict[str, float | str]:
        """What check is told."""
        said = about.of_server(self._links.program, self._begun, self._config)
        return {**self._links.counters.report(), **said}

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
            if not self._admission.send_one_away():
                self._loop.remove_reader(listener)
                self._loop.call_later(_PAUSE_SECONDS, self._listen, listener)
            return False
        connection.setblocking(False)
        serve = self._listeners[listener]
        self._sessions.begin(lambda: serve(connection, address[0] if address else ""))
        return True

    def _look_at_disk(self) -> None:
        """In a session, which waits for the disk in a thread."""
        self._sessions.begin(lambda: disk.look_whether_local(self._config.recordings_directory))
        self._loop.call_later(_DISK_SECONDS, self._look_at_disk)

    def _tell_complaints(self) -> None:
        self._complaints.tell()
        self._loop.call_later(_TELL_SECONDS, self._tell_complaints)
