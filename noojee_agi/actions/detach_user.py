"""detach_user: recordings of an extension belong to nobody from now on, since nobody sits there."""

from __future__ import annotations

from noojee_agi import text
from noojee_agi.actions import desk, new_leg
from noojee_agi.actions.arguments import Request
from noojee_agi.actions.context import Context
from noojee_agi.actions.result import Result
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.target import CommandLine
from noojee_agi.recordings import recording
from noojee_agi.recordings.recording import Attachment


def detach_user(request: Request, channel: Channel | CommandLine, context: Context) -> Result:
    """Note it. The database is not waited for, so it is noted also where nobody is known to sit.

    Raises the errors whose status the dialplan gets, and CallGone.
    """
    extension = desk.admitted(request, channel, context)
    new_leg.note(Attachment(extension, recording.now(), ""), config=context.config)
    return Result(200, f"OK, recordings of {text.plain(extension)} belong to nobody from now on")
