"""Copies the legs of a SQLite database into a PostgreSQL: the same rows, for the same questions."""

from __future__ import annotations

import contextlib
import io
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg2  # type: ignore[import-untyped]
from sqlalchemy import make_url

TABLES = ("account", "account_group", "team", "team_member", "call_record", "recording_leg")
_PIECE = 10_000  # rows
# As superuser: the rows refer to each other rightly, nobody has to look.
_SETTINGS = "SET session_replication_role = replica; SET maintenance_work_mem = '512MB'"
_INDEXES = """\
SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('call_record', 'recording_leg')
AND indexname LIKE 'ix\\_%'"""


def copy(database: str, url: str) -> None:
    """From this SQLite file, to an address as SQLAlchemy has it: tables that have no legs yet."""
    address = make_url(url).set(drivername="postgresql").render_as_string()
    with (
        contextlib.closing(sqlite3.connect(database)) as source,
        contextlib.closing(psycopg2.connect(address)) as connection,
        connection.cursor() as target,
    ):
        target.execute(_SETTINGS)
        target.execute(_INDEXES)
        indexes = target.fetchall()
        for name, _ in indexes:
            target.execute(f"DROP INDEX {name}")
        for table in reversed(TABLES):
            target.execute(f"DELETE FROM {table}")
        for table in TABLES:
            rows = source.execute(f"SELECT * FROM {table}")
            columns = ", ".join(column[0] for column in rows.description)
            target.copy_expert(f"COPY {table} ({columns}) FROM STDIN", _Lines(rows))
        for _, statement in indexes:
            target.execute(statement)
        connection.commit()
        connection.autocommit = True
        target.execute("VACUUM ANALYZE")


class _Lines(io.RawIOBase):
    """Rows as COPY's text format has them; none of them holds a tab, a line's end or a backslash."""

    def __init__(self, rows: sqlite3.Cursor) -> None:
        self._pieces = _pieces(rows)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def _pieces(rows: sqlite3.Cursor) -> Iterator[bytes]:
    while some := rows.fetchmany(_PIECE):
        yield b"".join(_line(row) for row in some)


def _line(row: Sequence[Any]) -> bytes:
    return ("\t".join("\\N" if value is None else str(value) for value in row) + "\n").encode()
