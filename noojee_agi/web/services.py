"""What the web needs of the server's process that it runs in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from noojee_agi.actions.result import Result
from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.recordings.recording import Event
from noojee_agi.recordings.snapshot import Knowledge
from noojee_agi.session.session import Invocation

T = TypeVar("T")


class InSession(Protocol):
    """Do work that waits for the disk or for the snapshot as a session does. Raises what work raises."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


class OfDatabase(Protocol):
    """Ask the database, in a thread that may wait for it. Raises NoojeeError, and what question raises."""

    async def __call__(self, question: Callable[[Store], T]) -> T: ...


class Services(NamedTuple):
    """config: the one that holds now. run: a whole session, with the key, for an address; reported as any.

    knowledge: of one session; before_asking is called when the database must be asked first. note: into the
    spool, and tell the drain process. refused: who showed no right key got this status, at this address.
    """

    config: Callable[[], Config]
    run: Callable[[Invocation, str, str], Awaitable[Result]]
    knowledge: Callable[[Callable[[], None]], Knowledge]
    in_session: InSession
    of_database: OfDatabase
    note: Callable[[Event], None]
    refused: Callable[[int, str], None]
    metrics: Callable[[], Awaitable[tuple[bytes, str]]]
    health: Callable[[], Awaitable[tuple[int, dict[str, Any]]]]
