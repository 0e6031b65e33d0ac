"""What /metrics must look for: on the disk, in the database, at the manager interface. Each may hang.

So each has a thread of its own, one at a time, and whoever asks waits a while for it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from noojee_agi.asterisk.manager import Manager
from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import history, rejected, spool
from noojee_agi.sync import housekeeping
from noojee_agi.web import threads
from noojee_agi.web.readings import Counted, Disk, Readings

T = TypeVar("T")

_WAIT_SECONDS = 3.0  # longer than the manager interface's patience
_KEPT_SECONDS = 5.0
_MANAGER_KEPT_SECONDS = 10.0


class Gauges:
    """load_config: the configuration of now. counted: of the server. certificate_days: None without TLS."""

    def __init__(
        self,
        load_config: Callable[[], Config],
        counted: Callable[[], Counted],
        certificate_days: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._load_config = load_config
        self._counted = counted
        self._certificate_days = certificate_days
        self._disk = Look(lambda: on_disk(load_config()), _KEPT_SECONDS)
        self._legs = Look(_OpenLegs(load_config).count, _KEPT_SECONDS)
        self._manager = Look(_Ping(load_config).is_answered, _MANAGER_KEPT_SECONDS)

    async def read(self) -> Readings:
        """What there is within some seconds; on the loop of the one who has asked first."""
        is_configured = bool(self._load_config().manager_username)
        manager = self._manager.value() if is_configured else asyncio.sleep(0)
        found, legs, answers = await asyncio.gather(self._disk.value(), self._legs.value(), manager)
        is_up = bool(answers) if is_configured else None
        return Readings(self._counted(), found, legs, is_up, self._certificate_days())


class Look(Generic[T]):
    """Some work that may hang, and what came of it last; None when it failed."""

    def __init__(self, work: Callable[[], T], kept_seconds: float) -> None:
        self._work = work
        self._kept_seconds = kept_seconds
        self._answer: asyncio.Future[T | None] | None = None
        self._until = 0.0

    async def value(self) -> T | None:
        """It waits for one that is at work already, and not for ever."""
        if self._answer is None or (self._answer.done() and time.monotonic() > self._until):
            self._answer = threads.begin(self._look)
        answer = self._answer
        await asyncio.wait([answer], timeout=_WAIT_SECONDS)
        return answer.result() if answer.done() else None

    def _look(self) -> T | None:
        try:
            return self._work()
        except (NoojeeError, OSError):
            return None
        finally:
            self._until = time.monotonic() + self._kept_seconds


def on_disk(config: Config) -> Disk:
    """The recordings' disk, and all spools. Raises OSError."""
    if history.load(config.state_directory).is_away(config.recordings_directory):
        raise FileNotFoundError(config.recordings_directory)
    about = os.statvfs(config.recordings_directory)
    directories = housekeeping.spools(config)
    oldest = min(filter(None, map(spool.oldest, directories)), default=0.0)
    return Disk(
        free_bytes=about.f_bavail * about.f_frsize,
        bytes=about.f_blocks * about.f_frsize,
        waiting=sum(map(spool.count, directories)),
        oldest_seconds=max(0.0, time.time() - oldest) if oldest else 0.0,
        rejected=sum(len(rejected.paths(directory)) for directory in directories),
    )


class _OpenLegs:
    """A database is opened once for each configuration. Nothing is made in it."""

    def __init__(self, load_config: Callable[[], Config]) -> None:
        self._load_config = load_config
        self._store: Store | None = None
        self._url = ""

    def count(self) -> int:
        """Raises NoojeeError."""
        config = self._load_config()
        if self._store is None or self._url != config.database_url:
            self._store, self._url = Store(config.database_url), config.database_url
        known = history.load(config.state_directory).with_server(config.server_name)
        return len(housekeeping.open_legs(self._store, known))


class _Ping:
    """Of the manager interface, over a connection that is kept: a new one is a line at Asterisk's console."""

    def __init__(self, load_config: Callable[[], Config]) -> None:
        self._load_config = load_config
        self._config: Config | None = None
        self._manager: Manager | None = None

    def is_answered(self) -> bool:
        """Raises ManagerUnavailable."""
        config = self._load_config()
        if self._manager is None or self._config != config:
            self._close()
            self._manager, self._config = Manager(config), config
        self._manager.renew_patience()
        try:
            self._manager.act("Ping", {})
        except NoojeeError:
            self._close()  # one that has failed tries nothing more
            raise
        return True

    def _close(self) -> None:
        manager, self._manager = self._manager, None
        if manager:
            manager.close()
