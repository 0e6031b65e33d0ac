"""attach_user: recordings of an extension belong to somebody from now on, who has sat down there."""

from __future__ import annotations

from noojee_agi import text
from noojee_agi.actions import desk, new_leg
from noojee_agi.actions.arguments import Request
from noojee_agi.actions.context import Context
from noojee_agi.actions.result import Result
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.target import CommandLine
from noojee_agi.errors import BadArgument, NoSuchAccount
from noojee_agi.recordings import recording
from noojee_agi.recordings.recording import Attachment
from noojee_agi.recordings.snapshot import Knowledge


def attach_user(request: Request, channel: Channel | CommandLine, context: Context) -> Result:
    """Note it; who was attached there until now is so no longer. The database is not waited for.

    Raises the errors whose status the dialplan gets, and CallGone.
    """
    extension = desk.admitted(request, channel, context)
    login = request.agent_login_name.strip()
    if not login:
        raise BadArgument("there is no agentLoginName: attach_user.py,agentLoginName[,extension]")
    _require_account(login, context.knowledge)
    new_leg.note(Attachment(extension, recording.now(), login), config=context.config)
    return Result(200, f"OK, recordings of {text.plain(extension)} belong to {text.plain(login)} from now on")


def _require_account(login: str, knowledge: Knowledge) -> None:
    """An account that was added just now must not be refused, so the database is asked before that."""
    for look in (knowledge.current, knowledge.renewed):
        snapshot = look()
        if snapshot is not None and login in snapshot.logins:
            return
    raise NoSuchAccount(f"no enabled account {text.plain(login)}: run noojee-agi account add, or list")
