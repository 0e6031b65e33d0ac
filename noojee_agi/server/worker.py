"""One process of the server: an event loop that takes connections and runs their sessions in greenlets."""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from noojee_agi.config import Config
from noojee_agi.recordings import disk, snapshot
from noojee_agi.server import about, counters, reports, sighup
from noojee_agi.server.admission import Admission, Refusals
from noojee_agi.server.complaints import Complaints
from noojee_agi.server.counters import Counters
from noojee_agi.server.fastagi import FastAgi
from noojee_agi.server.loop import Loop
from noojee_agi.server.programs import Programs
from noojee_agi.server.reports import Reports
from noojee_agi.server.snapshot_renewal import SnapshotRenewal
from noojee_agi.server.waiting import Sessions
from noojee_agi.session import session

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.2
_TELL_SECONDS = 1.0
_DISK_SECONDS = 10.0

Serve = Callable[[socket.socket, str], None]


class Links(NamedTuple):
    """What a worker has of the server: listening sockets, and pipes to the drain process."""

    network: socket.socket | None
    local: socket.socket
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
        self._loop = Loop()
        self._sessions = Sessions(self._loop, self._threads)
        self._complaints = Complaints(logger)
        self._admission = Admission(self._complaints)
        disk.look_whether_local(self._config.recordings_directory)
        disk.use_thread(self._sessions.in_thread)
        self._loop.call_later(_DISK_SECONDS, self._look_at_disk)
        sighup.on_sighup(self._load_config, self.use)
        self._loop.watch(lifeline, select.EPOLLIN, partial(self._close, lifeline))
        self._listeners = self._make_services()
        for listener in self._listeners:
            self._listen(listener)
        self._tell_complaints()
        self._loop.run_forever()
        self._complaints.tell(is_last=True)

    def use(self, config: Config) -> None:
        """From the next session on."""
        self._config = config

    def _make_surroundings(self) -> session.Surroundings:
        load = snapshot.Cached()
        return session.Surroundings(
            self._programs,
            lambda: self._config,
            SnapshotRenewal(self._loop, load, partial(reports.tell, self._links.questions)),
            load,
            self._sessions.pause,
            self._sessions.in_thread,
            self._links.counters.sees_ends,
            Refusals(self._sessions.pause).wait,
        )

    def _make_services(self) -> dict[socket.socket, Serve]:
        """What serves the connections of each listening socket."""
        links, surroundings = self._links, self._make_surroundings()
        outcome = Reports(links.counters, self._number, links.events)
        programs = Programs(self._admission, surroundings, outcome, lambda: self._config.path, self._status)
        services: dict[socket.socket, Serve] = {links.local: programs.serve}
        if links.network:
            fastagi = FastAgi(self._admission, self._complaints, surroundings, outcome)
            services[links.network] = fastagi.serve
        return services

    def _status(self) -> dict[str, float | str]:
        """What check is told."""
        said = about.of_server(self._links.program, self._begun, self._config)
        return {**self._links.counters.report(), **said}

    def _listen(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            one_of_us = select.EPOLLIN | select.EPOLLEXCLUSIVE  # not all who listen for each connection
            self._loop.watch(listener.fileno(), one_of_us, partial(self._accept, listener))

    def _close(self, lifeline: int) -> None:
        """Take in those who wait in the kernel's queues, and nobody else; then come to the end."""
        self._loop.unwatch(lifeline)
        for listener in list(self._listeners):
            self._loop.unwatch(listener.fileno())
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
                self._loop.unwatch(listener.fileno())
                self._loop.call_later(_PAUSE_SECONDS, partial(self._listen, listener))
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
