"""Connections and transactions; here the driver's errors become our own."""

import contextlib
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, inspect, make_url, text
from sqlalchemy.pool import NullPool

from noojee_agi.database.watch import Watch
from noojee_agi.errors import (
    ConfigurationError,
    StoreConflict,
    StoreDuplicate,
    StoreRejected,
    StoreUnavailable,
)

REVISION = "0005"  # the newest migration

T = TypeVar("T")

_TRIES = 8
_CONNECT_SECONDS = 5
_LOCK_SECONDS = 5
_STATEMENT_SECONDS = 60
_SILENT_SECONDS = 70  # a server that works has given the statement up by then
# What goes on with the line before it, and the statement, which holds what a call has brought.
_MERE_HINT = re.compile(r"\s|LINE \d+:|$")
# PostgreSQL manual, appendix A: serialization_failure, deadlock_detected; unique_violation.
_CONFLICTS, _DUPLICATE = ("40001", "40P01"), "23505"
# What a retry cannot mend: the value itself is wrong.
_REJECTED = (exc.IntegrityError, exc.DataError, ValueError, TypeError, OverflowError)


class Store:
    """One database. Every method raises StoreUnavailable, or StoreRejected for values it will never take."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError when the url is none. Connects only when used."""
        try:
            self.url = make_url(url)
            if self.url.get_backend_name() not in ("sqlite", "postgresql"):
                raise ConfigurationError("[database] url: only sqlite and postgresql are supported")
            if "@" in (self.url.host or "") or "password" in self.url.query:
                raise ConfigurationError(
                    "[database] url: write user:password@ before the host, and %40 for each @ in the password"
                )
            if self.url.get_backend_name() == "sqlite" and not (self.url.database or "").startswith("/"):
                raise ConfigurationError("[database] url: give sqlite an absolute path: sqlite:////path/file")
            self.engine = _engine(self.url)
        except (exc.ArgumentError, exc.NoSuchModuleError, ImportError, ValueError) as error:
            raise ConfigurationError(
                "[database] url is not a database address such as sqlite:////var/lib/noojee-agi/noojee.db"
                " or postgresql+psycopg2://user:password@host/name"
            ) from error

    @property
    def name(self) -> str:
        """The address without its password, also in a query string."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    @contextlib.contextmanager
    def transaction(self, takes_long: bool = False) -> Iterator[Connection]:
        """A connection whose work is committed at the end, or undone; takes_long: without a time limit."""
        with self._own_errors(), self.engine.execution_options(takes_long=takes_long).begin() as connection:
            yield connection

    def in_turn(self, work: Callable[[Connection], T], takes_long: bool = False) -> T:
        """What work returns, in a transaction that is done again at once when another host's came first.

        That may also show in a key that is there twice (PostgreSQL manual 13.5, Serialization Failure
        Handling). Raises what work raises, at last StoreConflict or StoreDuplicate, too.
        """
        another_was_first = contextlib.suppress(StoreConflict, StoreDuplicate)
        for attempt in range(_TRIES - 1):
            with another_was_first, self.transaction(takes_long) as connection:
                return work(connection)
            time.sleep(random.uniform(0, 0.02 * 2**attempt))
        with self.transaction(takes_long) as connection:
            return work(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that changes nothing and, with SQLite, keeps no writer waiting."""
        with self._own_errors(), self.engine.execution_options(reads_only=True).begin() as connection:
            yield connection

    def revision(self) -> str:
        """The newest migration that the database has; empty when it has no tables yet."""
        with self.reading() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return ""
            return str(connection.scalar(text("SELECT version_num FROM alembic_version")) or "")

    def _said(self, error: Exception) -> str:
        return _first_line(error, self.url.password)

    @contextlib.contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except _REJECTED as error:
            refusal = StoreDuplicate if _sqlstate(error) == _DUPLICATE else StoreRejected
            raise refusal(f"{self.name} refuses this: {self._said(error)}") from error
        except exc.SQLAlchemyError as error:
            if isinstance(error, exc.StatementError) and not isinstance(error, exc.DBAPIError):
                raise StoreRejected(f"{self.name} refuses this: {self._said(error)}") from error
            kind = StoreConflict if _sqlstate(error) in _CONFLICTS else StoreUnavailable
            raise kind(f"{self.name} cannot be used: {self._said(error)}") from error


def _sqlstate(error: Exception) -> str:
    """PostgreSQL's name of the error; SQLite has one writer at a time, and none of these."""
    return getattr(getattr(error, "orig", None), "pgcode", None) or ""


def _first_line(error: Exception, password: str | None) -> str:
    """The driver's first line, and its last one that tells more: of several hosts each has its own."""
    cause = getattr(error, "orig", None) or error
    said = str(cause).strip() or type(cause).__name__
    if password:
        said = said.replace(password, "***")
    first, *others = said.splitlines()
    return "; ".join([first, *[line for line in others if not _MERE_HINT.match(line)][-1:]])


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": _LOCK_SECONDS})
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
        return engine
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args={"connect_timeout": _CONNECT_SECONDS},
        executemany_mode="values_plus_batch",  # many rows, one answer of the server
    )
    # First of all: SQLAlchemy, too, asks a new connection questions.
    event.listen(engine, "connect", _on_postgresql_connect, insert=True)
    event.listen(engine, "close", _on_postgresql_close)
    event.listen(engine, "begin", _on_postgresql_begin)
    event.listen(engine, "before_cursor_execute", _on_postgresql_question)
    event.listen(engine, "after_cursor_execute", _on_postgresql_answer)
    event.listen(engine, "commit", _on_postgresql_question)
    event.listen(engine, "rollback", _on_postgresql_question)
    return engine


def _on_sqlite_connect(connection: sqlite3.Connection, _: object) -> None:
    """The driver must not begin transactions by itself: it would leave DDL outside of them."""
    connection.isolation_level = None
    _set_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _on_sqlite_begin(connection: Connection) -> None:
    """A transaction that is going to write says so at once: waiting for the lock later would fail."""
    reads_only = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _set_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait here for another process that is just doing the same."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _on_postgresql_connect(connection: Any, record: Any) -> None:
    record.info["watch"] = Watch(connection.fileno(), _SILENT_SECONDS)


def _on_postgresql_close(_: object, record: Any) -> None:
    watch = record.info.pop("watch", None)
    if watch:
        watch.end()


def _on_postgresql_question(connection: Connection, *_: object) -> None:
    watch = connection.info["watch"]
    if connection.get_execution_options().get("takes_long"):
        watch.rest()
    else:
        watch.begin()


def _on_postgresql_answer(connection: Connection, *_: object) -> None:
    connection.info["watch"].rest()


def _on_postgresql_begin(connection: Connection) -> None:
    """Per transaction, not per connection: so it works through pgbouncer too.

    A commit that is said to be done must be: the event is forgotten then. And when the network forgets us in
    the middle, the server must not keep our locks until its kernel notices: the next drain needs them.
    """
    options = connection.get_execution_options()
    statement = 0 if options.get("takes_long") else _STATEMENT_SECONDS
    lock = _STATEMENT_SECONDS if options.get("takes_long") else _LOCK_SECONDS
    idle = 0 if options.get("takes_long") or options.get("reads_only") else _STATEMENT_SECONDS
    connection.exec_driver_sql(
        f"SET LOCAL lock_timeout = '{lock}s'; SET LOCAL statement_timeout = '{statement}s';"
        f" SET LOCAL idle_in_transaction_session_timeout = '{idle}s';"
        " SELECT set_config('synchronous_commit', 'on', true)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )
