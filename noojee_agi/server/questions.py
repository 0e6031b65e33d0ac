"""What the web asks the database: each question waits in a thread, and not too many of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.errors import StoreUnavailable
from noojee_agi.sync import opening

T = TypeVar("T")

_AT_ONCE, _MOST = 8, 40


class Questions:
    """The database is opened by the first one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads = ThreadPoolExecutor(_AT_ONCE, "database")
        self._waiting = 0
        self._opened: tuple[Config, Store] | None = None

    async def ask(self, config: Config, question: Callable[[Store], T]) -> T:
        """Raises NoojeeError: StoreUnavailable also when so many wait already that it hangs."""
        if self._waiting >= _MOST:
            raise StoreUnavailable(f"{_MOST} questions wait for the database already")
        self._waiting += 1
        answer = self._loop.run_in_executor(self._threads, self._ask, config, question)
        answer.add_done_callback(self._has_answered)
        return await asyncio.shield(answer)

    def _has_answered(self, answer: asyncio.Future[T]) -> None:
        self._waiting -= 1

    def _ask(self, config: Config, question: Callable[[Store], T]) -> T:
        opened = self._opened
        if not opened or opened[0] is not config:
            self._opened = opened = (config, opening.open_database(config))
        return question(opened[1])
