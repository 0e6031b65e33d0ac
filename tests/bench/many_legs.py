"""Fills a SQLite database with as many legs as a large site makes in years, in minutes."""

from __future__ import annotations

import contextlib
import sqlite3

from noojee_agi.database import intake

CHUNK = 250_000  # legs of a transaction; five legs are of four calls
TAGS_SHARE = 3  # calls with the same tag
FIRST_CALL = 1_600_000_000
YEARS_SECONDS = 5 * 365 * 86400
RECORDING = 100  # legs, the last ones, all on servers of this name that are not the measuring one
ACCOUNTS = 200

_SETTINGS = """\
PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -4000000;
"""
_ACCOUNTS = """\
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :accounts)
INSERT INTO account (id, login, name, enabled)
SELECT printf('00000000-0000-4000-8000-%012d', n), printf('agent%d', n), printf('Agent %d', n), 1 FROM number
"""
# A call's number is its rowid, so that its legs find it at once.
_CALLS = """\
WITH RECURSIVE number(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :end),
numbered AS MATERIALIZED (
    SELECT n, printf('pbx%d', n % 4 + 1) AS server, :epoch + CAST(n * :step AS INTEGER) AS begun FROM number
)
INSERT INTO call_record (
    rowid, id, server, uniqueid, source, destination, did, external_reference, started_at, ended_at
)
SELECT n, call_record_id(server, printf('%d.%d', begun, 2 * n)), server, printf('%d.%d', begun, 2 * n),
    printf('030%07d', n * 7919 % 9999991), printf('%d', 400 + n % 200), '4930555800',
    CASE WHEN n % 10 THEN printf('INV-%d', n * 7919 % (:calls / :share)) ELSE '' END,
    strftime('%Y-%m-%dT%H:%M:%S.000000+00:00', begun, 'unixepoch'),
    strftime('%Y-%m-%dT%H:%M:%S.000000+00:00', begun + 30 + n % 300, 'unixepoch')
FROM numbered
"""
# Of five legs two belong to the same call, which was transferred.
_LEGS = """\
WITH RECURSIVE number(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :end),
numbered AS MATERIALIZED (
    SELECT n, n / 5 * 4 + max(n % 5 - 1, 0) AS call, lower(
        hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a'
        || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))
    ) AS id,
    CASE WHEN n >= :recording THEN 'recording' WHEN n % 100 < 90 THEN 'completed'
        WHEN n % 100 < 95 THEN 'empty' WHEN n % 100 < 98 THEN 'failed' ELSE 'interrupted' END AS status
    FROM number
)
INSERT INTO recording_leg (
    id, call_record_id, leg, uniqueid, channel, extension, owner_id, agent_login_name, tag, file, status,
    started_at, ended_at, duration_seconds, bytes, peer_channel, peer_uniqueid
)
SELECT numbered.id, call_record.id, CASE n % 5 WHEN 1 THEN 2 ELSE 1 END, uniqueid,
    printf('PJSIP/%s-%08x', destination, n), destination,
    CASE WHEN n % 10 THEN printf('00000000-0000-4000-8000-%012d', n * 7919 % :accounts + 1) END, '',
    external_reference,
    '/var/spool/asterisk/noojee/' || replace(substr(started_at, 1, 10), '-', '/') || '/' || uniqueid || '-'
        || substr(numbered.id, 1, 8) || '.wav',
    status, started_at, CASE status WHEN 'recording' THEN NULL ELSE ended_at END,
    CASE status WHEN 'completed' THEN 30.0 + call % 300 END, CASE status WHEN 'completed' THEN 480044 END,
    printf('PJSIP/trunk-%08x', n),
    CASE WHEN n % 4 THEN printf('%d.%d', CAST(uniqueid AS INTEGER), 2 * call + 1) ELSE '' END
FROM numbered JOIN call_record ON call_record.rowid = call
"""


def fill(database: str, legs: int, accounts: int = ACCOUNTS) -> None:
    """Put so many legs, rounded down to fives, into this database, which has the tables and no call yet.

    One in ten is nobody's, the others are those of agent1, agent2, …, to all of them alike.
    """
    groups = legs // 5
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.create_function("call_record_id", 2, intake.call_record_id, deterministic=True)
        connection.executescript(_SETTINGS)
        indexes = _drop_indexes(connection)
        values: dict[str, object] = {
            "accounts": accounts,
            "calls": groups * 4,
            "epoch": FIRST_CALL,
            "recording": groups * 5 - RECORDING,
            "share": TAGS_SHARE,
            "step": YEARS_SECONDS / (groups * 4),
        }
        connection.execute(_ACCOUNTS, values)
        for first in range(0, groups, CHUNK // 5):
            end = min(first + CHUNK // 5, groups)
            connection.execute("BEGIN")
            connection.execute(_CALLS, {**values, "first": first * 4, "end": end * 4})
            connection.execute(_LEGS, {**values, "first": first * 5, "end": end * 5})
            connection.execute("COMMIT")
        for statement in indexes:
            connection.execute(statement)
        connection.execute("PRAGMA journal_mode = WAL")


def _drop_indexes(connection: sqlite3.Connection) -> list[str]:
    """The statements that make them again, which is faster than to keep them."""
    found = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        " AND tbl_name IN ('call_record', 'recording_leg')"
    ).fetchall()
    for name, _ in found:
        connection.execute(f"DROP INDEX {name}")
    return [statement for _, statement in found]
