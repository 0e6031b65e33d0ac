"""The server's process for HTTP: what the web asks for, it does as a worker does what Asterisk asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from noojee_agi import certificate
from noojee_agi.actions import new_leg
from noojee_agi.actions.result import Result
from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import disk
from noojee_agi.recordings.recording import Event
from noojee_agi.recordings.snapshot import Knowledge
from noojee_agi.server import counters, sighup, surroundings
from noojee_agi.server.admission import Admission
from noojee_agi.server.complaints import Complaints
from noojee_agi.server.questions import Questions
from noojee_agi.server.reports import Reports
from noojee_agi.server.waiting import Sessions
from noojee_agi.server.worker import Links
from noojee_agi.session import session
from noojee_agi.session.session import Invocation
from noojee_agi.web import app, metrics, networks, tls
from noojee_agi.web.gauges import Gauges
from noojee_agi.web.health import Health
from noojee_agi.web.services import Services
from noojee_agi.web.serving import Serving

T = TypeVar("T")
logger = logging.getLogger(__name__)

_NICENESS = 5  # audio and the dialplan's own sessions come first, but a start by HTTP must not starve
_MOST, _MOST_WITH_TLS = 2000, 200  # connections that have asked for nothing yet; TLS takes 300 kB of each
_DISK_SECONDS = 10.0
_NOT_ALLOWED = 403
_REFUSALS = {
    401: "a request by HTTP without a right key came from %s",
    _NOT_ALLOWED: "a request by HTTP came from %s, which [http] allow does not name",
    429: "requests by HTTP are not heard for a minute after too many wrong keys: the last came from %s",
}
_TELL_SECONDS = 1.0


class Http:
    """number: its slot in the counters."""

    def __init__(
        self,
        load_config: Callable[[], Config],
        config: Config,
        programs: str,
        links: Links,
        number: int,
    ) -> None:
        """Raises ConfigurationError when something in [http] cannot be."""
        networks.of(config)
        self._load_config = load_config
        self._config = config
        self._programs = programs
        self._links = links
        self._number = number
        self._tls = tls.context(config)
        self._expires_at = tls.expires_at(config)
        self._allowed = networks.Allowed(lambda: self._config)

    def run(self, lifeline: int) -> None:
        """Until the other end of lifeline is closed, and every answer has come to its end."""
        with contextlib.suppress(OSError):  # it may be forbidden
            os.nice(_NICENESS)
        for listener in (self._links.local, self._links.network):
            if listener:
                listener.close()
        self._links.counters.set(self._number, counters.RUNNING, 0)
        asyncio.run(self._serve(lifeline))

    def use(self, config: Config) -> None:
        """From the next request on; a certificate for the next connections."""
        try:
            networks.of(config)
        except NoojeeError as exc:
            logger.error("HTTP goes on with the configuration before: %s", exc)
            return
        self._config = config
        try:
            if self._tls:
                tls.renew(self._tls, config)
                self._expires_at = tls.expires_at(config)
        except NoojeeError as exc:
            logger.error("the certificate before stays in use: %s", exc)

    async def _serve(self, lifeline: int) -> None:
        listener = self._links.http
        assert listener
        self._loop = loop = asyncio.get_running_loop()
        config = self._config
        self._sessions = Sessions(loop, config.server_threads)
        self._database = Questions(loop)
        self._reports = Reports(self._links.counters, self._number, self._links.events)
        self._gauges = Gauges(lambda: self._config, self._links.counters.counted, self._days_left)
        self._health = Health(self._programs, config.path)
        self._complaints = Complaints(logger)
        disk.look_whether_local(config.recordings_directory)
        disk.use_thread(self._in_thread)
        self._look_at_disk()
        self._tell_complaints()
        sighup.on_sighup(self._load_config, self.use)
        serving = Serving(
            app.make(self._services()),
            self._tls,
            Admission(self._complaints, _MOST_WITH_TLS if self._tls else _MOST),
            self._may_come,
            lambda: bool(self._sessions),
            self._complain_of_no_room,
        )
        loop.add_reader(lifeline, self._end, serving, lifeline)
        await serving.serve([listener])
        self._complaints.tell(is_last=True)

    def _end(self, serving: Serving, lifeline: int) -> None:
        self._loop.remove_reader(lifeline)
        self._health.close()
        serving.end()

    def _may_come(self, address: str) -> bool:
        """Who is on this machine may be a proxy."""
        may_come = networks.is_loopback(address) or self._allowed.has(address)
        if not may_come:
            self._refused(_NOT_ALLOWED, address)
        return may_come

    def _refused(self, status: int, address: str) -> None:
        """No failure is silent, and nobody fills the log."""
        if status in _REFUSALS:
            self._complaints.add(_REFUSALS[status], address)
            if status in counters.STATUSES:
                self._links.counters.add_session(self._number, counters.OTHER, status, 0.0)

    def _complain_of_no_room(self, exc: OSError) -> None:
        self._complaints.add("an HTTP connection cannot be taken now: %s", exc)

    def _services(self) -> Services:
        links = self._links
        around = surroundings.make(
            self._loop, self._sessions, self._programs, lambda: self._config, links.questions, links.counters
        )

        async def run(invocation: Invocation, key: str, address: str) -> Result:
            def whole() -> Result:
                self._reports.count(counters.RUNNING, 1)
                report = session.run_from_command_line(invocation, key, around)
                self._reports.count(counters.RUNNING, -1)
                self._reports.add(report, f"HTTP {address}: ")
                return report.result

            return await self._in_session(whole)

        def knowledge(before_asking: Callable[[], None]) -> Knowledge:
            config = self._config

            def ask() -> None:
                before_asking()
                around.read_database(config)

            return Knowledge(config.snapshot_file, ask, around.load_snapshot)

        return Services(
            lambda: self._config,
            run,
            knowledge,
            self._in_session,
            self._of_database,
            self._note,
            self._refused,
            self._metrics,
            self._health.answer,
        )

    async def _in_session(self, work: Callable[[], T]) -> T:
        """What nobody foresaw is the caller's as well as the loop's, which logs it."""
        done: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            tell: Callable[[], None] = partial(done.set_exception, RuntimeError("a session has failed"))
            try:
                tell = partial(done.set_result, work())
            except NoojeeError as exc:
                tell = partial(done.set_exception, exc)
            finally:
                if not done.done():  # else nobody waits for it any more
                    tell()

        self._sessions.begin(run)
        return await done

    def _in_thread(self, work: Callable[[], object]) -> object:
        """What may block, from a session or from a thread."""
        if threading.current_thread() is threading.main_thread():
            return self._sessions.in_thread(work)
        return work()

    async def _of_database(self, question: Callable[[Store], T]) -> T:
        return await self._database.ask(self._config, question)

    def _note(self, event: Event) -> None:
        """Raises NoojeeError when it cannot be noted."""
        new_leg.note(event, config=self._config)
        self._reports.tell_of_events()

    def _days_left(self) -> float | None:
        """Of the certificate that is in use: the one on the disk may be another by now."""
        if self._expires_at is None:
            return None
        return (self._expires_at - time.time()) / certificate.DAY_SECONDS

    async def _metrics(self) -> tuple[bytes, str]:
        return metrics.exposition(await self._gauges.read())

    def _look_at_disk(self) -> None:
        """In a session, which waits for the disk in a thread."""
        self._sessions.begin(lambda: disk.look_whether_local(self._config.recordings_directory))
        self._loop.call_later(_DISK_SECONDS, self._look_at_disk)

    def _tell_complaints(self) -> None:
        self._complaints.tell()
        self._loop.call_later(_TELL_SECONDS, self._tell_complaints)
