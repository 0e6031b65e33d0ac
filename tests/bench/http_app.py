"""The API without sessions and database, on one of the servers: python -m bench.http_app NAME PORT."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from starlette.types import ASGIApp

from noojee_agi.config import Config
from noojee_agi.recordings.snapshot import Knowledge
from noojee_agi.web import app, pace
from noojee_agi.web.services import Services
from noojee_agi.web.serving import Serving

OURS, HYPERCORN, GRANIAN = "uvicorn", "hypercorn", "granian"
SERVERS = (OURS, HYPERCORN, GRANIAN)
_HERE = "127.0.0.1"
_BACKLOG = 1024
T = TypeVar("T")


def make_app() -> ASGIApp:
    """Ours; nobody is asked about a key, and strangers are answered as fast as can be."""
    pace._SECONDS = 0.0

    async def in_session(work: Callable[[], T]) -> T:
        return work()

    def knowledge(before_asking: Callable[[], None]) -> Knowledge:
        return Knowledge("/nowhere/snapshot.json", before_asking)

    known: dict[str, Any] = {"config": Config, "in_session": in_session, "knowledge": knowledge}
    return app.make(Services(*[cast(Any, known.get(name)) for name in Services._fields]))


def serve(name: str, port: int) -> None:
    if name == OURS:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HERE, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        served = Serving(make_app(), None, _Nobody(), lambda _: True, lambda: False, lambda _: None)
        asyncio.run(served.serve([listener]))
    elif name == HYPERCORN:
        from hypercorn.asyncio import serve as serve_hypercorn
        from hypercorn.config import Config as HypercornConfig

        config = HypercornConfig()
        config.bind = [f"{_HERE}:{port}"]
        asyncio.run(serve_hypercorn(cast(Any, make_app()), config))
    else:
        granian = importlib.import_module("granian")
        made = granian.Granian(
            "bench.http_app:make_app", _HERE, port, interface="asgi", factory=True, log_enabled=False
        )
        made.serve()


class _Nobody:
    """Who counts no connections."""

    def add(self, session: object, address: str) -> None: ...
    def remove(self, session: object) -> None: ...
    def send_one_away(self) -> bool:
        return False


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # granian's worker begins anew
    serve(sys.argv[1], int(sys.argv[2]))
