"""Which extension somebody sits down at, or gets up from."""

from __future__ import annotations

from noojee_agi.actions import access
from noojee_agi.actions.arguments import Request
from noojee_agi.actions.context import Context
from noojee_agi.asterisk import extensions, variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.target import CommandLine
from noojee_agi.errors import BadArgument


def admitted(request: Request, channel: Channel | CommandLine, context: Context) -> str:
    """The extension that is named, else this channel's own, if the key is right.

    Raises KeyRefused, and BadArgument when there is none.
    """
    access.require_key(channel.get_all(variables.API_KEY)[variables.API_KEY], context.knowledge)
    context.admit()
    own = "" if isinstance(channel, CommandLine) else extensions.of_channel(channel.name)
    extension = extensions.of_interface(request.extension) or own
    if not extension:
        raise BadArgument("there is no extension: name one, since this channel has none of its own")
    return extension
