"""Who owns a leg, as of its call's time."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from noojee_agi.database.attachments import Touched
from noojee_agi.database.tables import account, extension_attachment, recording_leg
from noojee_agi.recordings.recording import Leg


def find(
    connection: Connection, legs: Sequence[Leg], settled: Mapping[str, str | None]
) -> dict[str, tuple[str | None, str]]:
    """Leg -> the account that owns it, or None, and the extension that it is filed under.

    settled: the login, or None for nobody's, of those legs whose owner is known already.
    """
    named = {leg.id: _login(leg, settled) for leg in legs if leg.id in settled or leg.agent_login_name}
    accounts = _accounts(connection, {login for login in named.values() if login is not None})
    others = [leg for leg in legs if leg.id not in named]
    attachments = _attachments(connection, others)
    found = {leg.id: _by_extension(leg, attachments) for leg in others}
    for leg in legs:
        if leg.id in named:
            found[leg.id] = _account(accounts.get(named[leg.id]), leg, settled), _filed_under(leg)
    return found


def find_anew(connection: Connection, touched: Sequence[Touched]) -> None:
    """Their attachments have changed."""
    attachments = _attachments(connection, touched)
    rows = []
    for leg in touched:
        owner, extension = _by_extension(leg, attachments)
        rows.append({"of_leg": leg.id, "owner": owner, "filed_under": extension})
    if rows:
        connection.execute(_OWNED, rows)


def find_lost(connection: Connection, touched: Sequence[Touched]) -> None:
    """An owner by attachments that the rows do not have: they are of an older backup, or their side-cars are
    of a host that was not told of an attachment that came late.
    """
    attachments = _attachments(connection, touched)
    found = {leg.id: _by_extension(leg, attachments) for leg in touched}
    rows = [
        {"of_leg": leg_id, "owner": owner, "filed_under": extension}
        for leg_id, (owner, extension) in found.items()
        if owner
    ]
    if rows:
        connection.execute(_OWNED_BY_ANOTHER, rows)


def _login(leg: Leg, settled: Mapping[str, str | None]) -> str | None:
    return settled[leg.id] if leg.id in settled else leg.agent_login_name.strip()


def _accounts(connection: Connection, logins: set[str]) -> dict[str | None, Any]:
    return {row.login: row for row in connection.execute(_ACCOUNTS, {"logins": [*logins]})} if logins else {}


def _account(found: Any, leg: Leg, settled: Mapping[str, str | None]) -> str | None:
    """One that was enabled when the call came, or is now."""
    return found.id if found and (found.enabled or leg.agent_known or leg.id in settled) else None


def _attachments(connection: Connection, legs: Iterable[Leg | Touched]) -> dict[str, list[Any]]:
    """Extension -> who was attached to it while these legs started, in the order of time."""
    times = [leg.started_at for leg in legs]
    extensions = {extension for leg in legs for extension in leg.extensions}
    found: dict[str, list[Any]] = {}
    if extensions:
        asked = {"extensions": [*extensions], "first": min(times), "last": max(times)}
        for row in connection.execute(_ATTACHED, asked):
            found.setdefault(row.extension, []).append(row)
    return found


def _by_extension(leg: Leg | Touched, attachments: Mapping[str, Iterable[Any]]) -> tuple[str | None, str]:
    """The account attached, when the leg started, to the first of its extensions that has one then."""
    for extension in leg.extensions:
        for row in attachments.get(extension, ()):
            if _is_at(row, leg.started_at):
                return row.account_id, leg.extension or extension
    return None, _filed_under(leg)


def _filed_under(leg: Leg | Touched) -> str:
    """The extension that was asked for, else the first on the call; a leg from a side-car has no others."""
    return leg.extension or next(iter(leg.extensions), "")


def _is_at(row: Any, moment: datetime) -> bool:
    return row.attached_at <= moment and (row.detached_at is None or row.detached_at > moment)


_ACCOUNTS = select(account.c.id, account.c.login, account.c.enabled).where(
    account.c.login.in_(bindparam("logins", expanding=True))
)
_ATTACHED = (
    select(extension_attachment)
    .where(
        extension_attachment.c.extension.in_(bindparam("extensions", expanding=True)),
        extension_attachment.c.attached_at <= bindparam("last"),
        extension_attachment.c.detached_at.is_(None)
        | (extension_attachment.c.detached_at > bindparam("first")),
    )
    .order_by(extension_attachment.c.attached_at)
)
_OWNED = (
    update(recording_leg)
    .where(recording_leg.c.id == bindparam("of_leg"))
    .values(owner_id=bindparam("owner"), extension=bindparam("filed_under"))
)
_OWNED_BY_ANOTHER = _OWNED.where(
    recording_leg.c.owner_id.is_(None) | (recording_leg.c.owner_id != bindparam("owner"))
)
