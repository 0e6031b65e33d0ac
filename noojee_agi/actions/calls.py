"""Which call is meant: the one that asks, or another live one, which `live` finds."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence

from noojee_agi import text
from noojee_agi.actions import access, channel_lock
from noojee_agi.actions.context import Context
from noojee_agi.actions.result import BUT
from noojee_agi.asterisk import extensions, marks, peers, variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.peers import Peer, Peers
from noojee_agi.asterisk.target import READ, CommandLine, Marked, Recordable, Running, Target
from noojee_agi.errors import BadArgument, ManagerUnavailable, NoSuchCall
from noojee_agi.recordings import recording

_AT = "at/"  # in front of what names another live call
_UNIQUEID = re.compile(r"(?:.+-)?\d+\.\d+")  # channel.c __ast_channel_alloc_ap: [system-]seconds.number
_TRIES = 3


@contextlib.contextmanager
def admitted(
    asked: str, channel: Channel | CommandLine, context: Context, prefers_recorded: bool = False
) -> Iterator[Target]:
    """The call that extenOrUniqueId means, if the key is right.

    An extension is this call, for whoever sits there; a uniqueid is the call that has it; at/410 is the call
    that is at 410 now. While the block runs, nobody else starts or stops a recording of that conversation.
    prefers_recorded: of several other calls, one that we record. Raises KeyRefused, BadArgument, and as
    context.find_other does.
    """
    values = channel.get_all(variables.API_KEY, *READ)
    access.require_key(values[variables.API_KEY], context.knowledge)
    context.admit()
    other = _other(asked, channel, values)
    if other or isinstance(channel, CommandLine):
        with _found(other, channel, context, prefers_recorded) as target:
            yield target
    else:
        with _locked(channel, values, context) as (current, is_alone):
            yield _own(asked, channel, current, context)._replace(is_alone=is_alone)


def with_all_ends(target: Target, channel: Channel | CommandLine, context: Context) -> Target:
    """With what only the manager interface tells of the conversation: all its ends, and what records them.

    channel: the one that asks, which is reached over AGI, whatever becomes of the manager interface.
    """
    if not context.config.manager_username or isinstance(channel, CommandLine) or target.is_other:
        return target
    if not target.ends:
        try:
            found = context.find_other(target.channel.uniqueid, True)
        except (ManagerUnavailable, NoSuchCall) as exc:
            return target._replace(unreachable=target.unreachable or str(exc))
        target = _seen_from_its_own(found, target)

    def nearest(each: Recordable) -> Recordable:
        return channel if each.uniqueid == channel.uniqueid else each

    return target._replace(
        channel=nearest(target.channel),
        running=tuple(each._replace(channel=nearest(each.channel)) for each in target.running),
        marked=tuple(each._replace(channel=nearest(each.channel)) for each in target.marked),
        ends=tuple(map(nearest, target.ends)),
    )


def ok_message(target: Target, remarks: Sequence[str]) -> str:
    """That it is done, for which call, if that is another than the asking one, and what is to be known."""
    which = f", {target.call}" if target.is_other else ""
    return f"OK{which}{BUT}{'; '.join(remarks)}" if remarks else f"OK{which}"


@contextlib.contextmanager
def _locked(
    channel: Channel, values: Mapping[str, str], context: Context
) -> Iterator[tuple[Mapping[str, str], bool]]:
    """Under the lock of the channel's conversation; what it says of itself then, and whether that is held.

    All channels of a conversation have the same linkedid (bridge_channel.c). Without a manager interface a
    channel is reached by its own dialplan only, which waits for each program.
    """
    if not context.config.manager_username:
        yield values, True
        return
    linkedid = values[variables.LINKEDID] or channel.uniqueid
    for tries_left in reversed(range(_TRIES)):
        with _lock(linkedid, context) as is_held:
            values = channel.get_all(*READ)
            before, linkedid = linkedid, values[variables.LINKEDID] or channel.uniqueid
            if linkedid == before or not tries_left:
                yield values, is_held
                return


def _lock(
    linkedid: str, context: Context, is_patient: bool = False
) -> contextlib.AbstractContextManager[bool]:
    return channel_lock.of(context.config.state_directory, linkedid, context.pause, is_patient)


@contextlib.contextmanager
def _found(
    asked: str, channel: Channel | CommandLine, context: Context, prefers_recorded: bool
) -> Iterator[Target]:
    """Looked for once to know whose lock it is, and again under it: it may have been recorded meanwhile."""
    linkedid = _linkedid(context.find_other(asked, prefers_recorded))
    is_patient = isinstance(channel, CommandLine)
    for _ in range(_TRIES):
        with _lock(linkedid, context, is_patient) as is_held:
            target = context.find_other(asked, prefers_recorded)
            before, linkedid = linkedid, _linkedid(target)
            if before == linkedid:
                is_other = target.channel.uniqueid != channel.uniqueid
                yield target._replace(is_other=is_other, is_alone=is_held)
                return
    raise NoSuchCall(f"{text.plain(asked)} goes from one call to the next: try again")


def _linkedid(target: Target) -> str:
    return target.values[variables.LINKEDID] or target.channel.uniqueid


def _other(asked: str, channel: Channel | CommandLine, values: Mapping[str, str]) -> str:
    """What names another live call than this channel's; empty when this one is meant. Raises BadArgument."""
    if at := _at(asked):
        return at
    if isinstance(channel, CommandLine):
        return asked
    own = (channel.uniqueid, values[variables.LINKEDID])
    system = f"{values[variables.SYSTEMNAME]}-"
    is_own = asked in own or asked in [uniqueid.removeprefix(system) for uniqueid in own]
    return "" if is_own or not _UNIQUEID.fullmatch(asked) else asked


def _at(asked: str) -> str:
    """What stands behind at/; empty when it does not begin so. Raises BadArgument."""
    if not asked.casefold().startswith(_AT):
        return ""
    if asked.casefold() == _AT:
        raise BadArgument("at/ names no call: at/410 is the call that is at extension 410 now")
    return asked[len(_AT) :]


def _own(asked: str, channel: Channel, values: Mapping[str, str], context: Context) -> Target:
    """The asking channel: whatever extension is named, it is only for whoever sits there."""
    others = peers.find(channel, values, looks_for_caller=bool(context.config.manager_username))
    on_call = _extensions_on_call(channel, values, others)
    extension = "" if _is_own_name(asked, channel, values) else extensions.named(asked, on_call)
    target = Target(
        channel,
        values,
        extension,
        (extension,) if extension else on_call,
        _running(channel, values),
        others.telephone,
        _remarks(extension, on_call, context),
    )
    recorded = [end for end in others.ends if end.mixmonitor_id]
    if recorded:
        return _whole_conversation(target, recorded[0], context)
    if values[variables.PERSON_OF] or any(end.mark for end in others.ends):
        return _with_marked(target, channel, values, context)
    return target


def _with_marked(target: Target, channel: Channel, values: Mapping[str, str], context: Context) -> Target:
    """All channels of those who have talked in a leg that may go on; this one, if others cannot be seen."""
    try:
        return target._replace(marked=context.find_other(channel.uniqueid, True).marked)
    except (ManagerUnavailable, NoSuchCall):
        mark, leg = marks.parse(values[variables.PERSON_OF]), values[variables.LEG]
        own = [Marked(channel, mark, leg if leg.startswith(mark.leg_id) else "")] if mark else []
        return target._replace(marked=tuple(own))


def _is_own_name(asked: str, channel: Channel, values: Mapping[str, str]) -> bool:
    return (
        not asked
        or bool(_UNIQUEID.fullmatch(asked))
        or asked.casefold() == channel.name.casefold()
        or (asked in (channel.uniqueid, values[variables.LINKEDID]))
    )


def _whole_conversation(target: Target, recorded: Peer, context: Context) -> Target:
    """When we record it already at its other end, that is the end: so it has one leg at a time."""
    try:
        found = context.find_other(target.channel.uniqueid, True)
    except (ManagerUnavailable, NoSuchCall) as exc:
        name = text.plain(recorded.name)
        reason = f"its other end, {name}, is recorded by us too, and cannot be reached: {exc}"
        return target._replace(unreachable=reason)
    return _seen_from_its_own(found, target)


def _seen_from_its_own(found: Target, target: Target) -> Target:
    return found._replace(
        extension=target.extension,
        extensions=target.extensions,
        remarks=target.remarks,
        is_other=False,
        is_alone=target.is_alone,
    )


def _running(channel: Channel, values: Mapping[str, str]) -> tuple[Running, ...]:
    mixmonitor_id = recording.mixmonitor_id(values[variables.MIXMONITOR_ID])
    return (Running(channel, mixmonitor_id, values[variables.LEG]),) if mixmonitor_id else ()


def _remarks(extension: str, on_call: tuple[str, ...], context: Context) -> tuple[str, ...]:
    """Where another call could have been meant, as it once was."""
    if not extension or extension in on_call or not context.config.manager_username:
        return ()
    named = text.plain(extension)
    return (
        f"this call is meant, for extension {named}, which is not on it now; at/{named} is the call there",
    )


def _extensions_on_call(channel: Channel, values: Mapping[str, str], others: Peers) -> tuple[str, ...]:
    own = extensions.of_channel(channel.name)
    return extensions.distinct([others.agent, own, *others.talking, channel.extension, channel.did])
