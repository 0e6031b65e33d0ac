"""next_leg: the persons of a recorded conversation have changed, so its leg ends, and the next one begins."""

from __future__ import annotations

from noojee_agi.actions import new_leg, start_record
from noojee_agi.actions.arguments import Request
from noojee_agi.actions.context import Context
from noojee_agi.actions.result import Result
from noojee_agi.asterisk import extensions
from noojee_agi.asterisk.target import Target
from noojee_agi.recordings.former import Former


def next_leg(
    former: Former, target: Target, was_recorded: bool, context: Context, is_same: bool = False
) -> Result:
    """Of the same call, with the same tag; whose it is, is decided by who talks now.

    target: the channel that is recorded from now on; what records its conversation for us ends. was_recorded:
    whether the former leg was at the same one. is_same: the same persons talk as in that: it has the same
    owner. Raises what start_record raises.
    """
    if is_same:
        target = target._replace(extension="", extensions=former.extensions)
    login = former.agent_login_name if is_same or _takes_part(former.extension, target, context) else ""
    request = Request(exten_or_uniqueid="", tag=former.tag, agent_login_name=login)
    agent_known = start_record.check_agent(login, context.config, context.knowledge)
    leg = new_leg.make(request, target, context.config, agent_known)
    leg = leg._replace(call_uniqueid=former.call_uniqueid, server=former.server)
    new_leg.write_ahead(leg, context.config)
    result, _ = start_record.replace_running(leg, target, context, was_recorded)
    if result.status == start_record.OK:
        start_record.tell_recorded(target, result)
    return result


def _takes_part(extension: str, target: Target, context: Context) -> bool:
    """Whether who owned the former leg still talks: his extension does.

    A leg for which none was named has that of its own channel, such as a trunk's: there somebody must sit.
    """
    is_own = extension == extensions.of_channel(target.channel.name)
    return extension in target.extensions and not (is_own and context.knowledge.knows_nobody_at(extension))
