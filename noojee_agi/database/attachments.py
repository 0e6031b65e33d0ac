"""Who was attached to which extension when, and the legs whose owner that says.

The rows are what all events together say, in whatever order they come: an attachment ends when the next one
begins, or when the extension is detached; of the same moment the detaching comes first, and of two logins
always the same one counts.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, Text, func, or_, select, type_coerce, update
from sqlalchemy.dialects import postgresql, sqlite

from noojee_agi.database.tables import account, extension_attachment, extension_detachment, recording_leg
from noojee_agi.errors import StoreRejected
from noojee_agi.recordings.recording import Attachment

_TURN = 0x6E6F6F6B  # the lock's key, ours alone in this database: "nook"
_ATTACHED, _DETACHED, _LEG = extension_attachment.c, extension_detachment.c, recording_leg.c


class Touched(NamedTuple):
    """A leg without an agentLoginName that began while one of its extensions was changing hands."""

    id: str
    call_record_id: str
    extensions: Sequence[str]
    started_at: datetime
    extension: str = ""


def take_turn(connection: Connection, changes: bool) -> None:
    """Whoever changes attachments waits for those who settle owners by them, and they wait for him.

    So no leg misses an attachment that another host is just bringing in. SQLite has one writer anyway.
    """
    if connection.dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock if changes else func.pg_advisory_xact_lock_shared
        connection.execute(select(lock(_TURN)))


def store(connection: Connection, attachments: Iterable[Attachment]) -> list[Touched]:
    """Returns the legs whose owner is to be settled anew, also those of an attachment that comes again.

    Raises StoreRejected when there is no account of that login.
    """
    attachments = sorted(attachments)
    accounts = _accounts(connection, {each.login for each in attachments} - {""})
    for each in attachments:
        if each.login and each.login not in accounts:
            raise StoreRejected(
                f"{each.login} was attached to {each.extension}, but there is no account of that name:"
                f" noojee-agi account add {each.login}"
            )
        _enter(connection, each, accounts.get(each.login))
    touched = {leg.id: leg for each in attachments for leg in _touched(connection, each)}
    return list(touched.values())


def _accounts(connection: Connection, logins: set[str]) -> dict[str, str]:
    found = select(account.c.login, account.c.id).where(account.c.login.in_(sorted(logins)))
    return {row.login: row.id for row in connection.execute(found)} if logins else {}


def _enter(connection: Connection, event: Attachment, account_id: str | None) -> None:
    """The new attachment lasts until the next event that is known. account_id: None for a detachment."""
    former_end = _end_former(connection, event)
    if account_id is None:
        row = {"extension": event.extension, "detached_at": event.at}
        connection.execute(_insert(connection, extension_detachment).values(row).on_conflict_do_nothing())
        return
    ends = [former_end, _next(connection, event.extension, event.at)]
    new = _insert(connection, extension_attachment).values(
        extension=event.extension,
        attached_at=event.at,
        account_id=account_id,
        detached_at=min((end for end in ends if end), default=None),
    )
    connection.execute(
        new.on_conflict_do_update(
            index_elements=["extension", "attached_at"],
            set_={"account_id": new.excluded.account_id},
            where=_ATTACHED.account_id < new.excluded.account_id,
        )
    )


def _end_former(connection: Connection, event: Attachment) -> datetime | None:
    """What was attached until then has ended; returns when it would have ended else."""
    runs_then = (
        _ATTACHED.extension == event.extension,
        _ATTACHED.attached_at < event.at,
        or_(_ATTACHED.detached_at.is_(None), _ATTACHED.detached_at > event.at),
    )
    former_end: datetime | None = connection.scalar(select(_ATTACHED.detached_at).where(*runs_then))
    connection.execute(update(extension_attachment).where(*runs_then).values(detached_at=event.at))
    return former_end


def _insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    return (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(table)


def _next(connection: Connection, extension: str, moment: datetime) -> datetime | None:
    """When the extension is attached or detached again."""
    attached = select(func.min(_ATTACHED.attached_at)).where(
        _ATTACHED.extension == extension, _ATTACHED.attached_at > moment
    )
    detached = select(func.min(_DETACHED.detached_at)).where(
        _DETACHED.extension == extension, _DETACHED.detached_at > moment
    )
    found = [connection.scalar(attached), connection.scalar(detached)]
    return min((each for each in found if each), default=None)


def _touched(connection: Connection, event: Attachment) -> list[Touched]:
    """The legs that began from then on until the next event, by the index of their start."""
    named: Any = type_coerce(_LEG.extensions, Text).contains(
        json.dumps(event.extension, ensure_ascii=False), autoescape=True
    )
    began_then = select(_LEG.id, _LEG.call_record_id, _LEG.extension, _LEG.extensions, _LEG.started_at).where(
        _LEG.started_at >= event.at,
        _LEG.agent_login_name == "",
        or_(_LEG.extension == event.extension, named),
    )
    if until := _next(connection, event.extension, event.at):
        began_then = began_then.where(_LEG.started_at < until)
    # A leg of schema 0003 knows but the one that it is filed under.
    found = (
        Touched(row.id, row.call_record_id, row.extensions or [row.extension], row.started_at)
        for row in connection.execute(began_then)
    )
    return [leg for leg in found if event.extension in leg.extensions]
