"""Work that may hang, beside the event loop: the end of the process waits for none of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def begin(work: Callable[[], T]) -> asyncio.Future[T | None]:
    """What comes of it; None when it raises what nobody foresaw, which is told on standard error."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T | None] = loop.create_future()

    def run() -> None:
        found = None
        try:
            found = work()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_tell, future, found)

    threading.Thread(target=run, daemon=True).start()
    return future


def _tell(future: asyncio.Future[T | None], found: T | None) -> None:
    if not future.done():
        future.set_result(found)
