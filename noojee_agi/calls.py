"""Which call is meant: the one that asks, or another live one, which `live` finds."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from noojee_agi import access, arguments, extensions, peers, recording, turns, variables
from noojee_agi.errors import BadArgument, ManagerUnavailable, NoSuchCall
from noojee_agi.means import Means
from noojee_agi.peers import NOBODY, Peer, Peers

TYPE_CHECKING = False  # importing typing for it would cost the caller 5 ms
if TYPE_CHECKING:
    from noojee_agi.channel import Channel
    from noojee_agi.manager import OtherChannel

# What must be known of a channel before anything is done with it.
READ = (
    *(variables.LINKEDID, variables.MIXMONITOR_ID, variables.LEG, variables.SYSTEMNAME),
    *(variables.MEMBERINTERFACE, variables.BRIDGEPEER, variables.DIALEDPEERNAME),
    *(variables.BLINDTRANSFER, variables.ATTENDEDTRANSFER),
)
_AT = "at/"  # in front of what names another live call
_UNIQUEID = re.compile(r"(?:.+-)?\d+\.\d+")  # channel.c __ast_channel_alloc_ap: [system-]seconds.number
_TRIES = 3


@dataclass(frozen=True)
class Running:
    """A MixMonitor that records one end of the conversation for us, or did. leg: see variables.LEG."""

    channel: Channel | OtherChannel
    mixmonitor_id: str
    leg: str

    def file(self) -> str:
        """Its file; empty when it has ended, or when the id is that of somebody else's by now.

        Raises NoSuchCall, CallGone and ManagerUnavailable, as the others do.
        """
        file = self.channel.mixmonitor_file(self.mixmonitor_id)
        return file if recording.is_ours(file) else ""

    def stop(self) -> None:
        self.channel.stop_mixmonitor(self.mixmonitor_id)

    def forget(self) -> None:
        """Its id may be given to somebody else's."""
        self.channel.set(variables.MIXMONITOR_ID, "")


@dataclass(frozen=True)
class Target:
    """The channel that is to be recorded, or is.

    extension: the one that was asked for, if any; extensions: whose owner the leg may have, in this order.
    values: of READ. running: what records this conversation for us, at whichever end. peer: with whom that
    channel talks. remarks: what the caller should know besides. unreachable: why an end of the conversation
    that we record cannot be reached, or empty.
    """

    channel: Channel | OtherChannel
    values: Mapping[str, str]
    extension: str
    extensions: tuple[str, ...]
    running: tuple[Running, ...] = ()
    peer: Peer = NOBODY
    remarks: tuple[str, ...] = ()
    unreachable: str = ""
    is_other: bool = False

    @property
    def call(self) -> str:
        """For a message: which other call this is."""
        name, uniqueid = arguments.plain(self.channel.name), arguments.plain(self.channel.uniqueid)
        return f"the call of {name} (uniqueid {uniqueid})"


class CommandLine:
    """In place of a channel of our own, where nobody calls."""

    uniqueid = host = ""

    def __init__(self, key: str) -> None:
        self._key = key

    def get_all(self, *names: str) -> dict[str, str]:
        return {**dict.fromkeys(names, ""), variables.API_KEY: self._key}

    def sees_file(self, path: str) -> bool:
        return os.path.exists(path)


@contextlib.contextmanager
def admitted(
    asked: str, channel: Channel | CommandLine, means: Means, prefers_recorded: bool = False
) -> Iterator[Target]:
    """The call that extenOrUniqueId means, if the key is right.

    An extension is this call, for whoever sits there; a uniqueid is the call that has it; at/410 is the call
    that is at 410 now. While the block runs, nobody else starts or stops a recording of that conversation.
    prefers_recorded: of several other calls, one that we record. Raises KeyRefused, BadArgument, and as
    means.find_other does.
    """
    if isinstance(channel, CommandLine):
        access.require_key(channel.get_all(variables.API_KEY)[variables.API_KEY], means.knowledge)
        with _found(_at(asked) or asked, channel, means, prefers_recorded) as target:
            yield target
        return
    # Without a manager interface a channel is reached by its own dialplan only, which waits for each program.
    may_be_reached = bool(means.config.manager_username)
    lock, linkedid = _Lock(means.config.state_directory if may_be_reached else ""), channel.uniqueid
    # Mostly a call's first channel asks, whose uniqueid is the call's linkedid.
    for tries_left in reversed(range(_TRIES)):
        with lock.of(linkedid):
            # What was told before counts only where nobody else can have changed it.
            told = None if may_be_reached else channel.told
            values = told or channel.get_all(variables.API_KEY, *READ)
            access.require_key(values[variables.API_KEY], means.knowledge)
            other = _other(asked, channel, values)
            before, linkedid = linkedid, values[variables.LINKEDID] or channel.uniqueid
            if not other and (linkedid == before or not may_be_reached or not tries_left):
                yield _own(asked, channel, values, means)
                return
        if other:
            with _found(other, channel, means, prefers_recorded) as target:
                yield target
            return


class _Lock:
    """That of a conversation: all its channels have the same linkedid (bridge_channel.c)."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def of(self, linkedid: str) -> contextlib.AbstractContextManager[None]:
        return turns.of(self._directory, linkedid) if self._directory else contextlib.nullcontext()


@contextlib.contextmanager
def _found(
    asked: str, channel: Channel | CommandLine, means: Means, prefers_recorded: bool
) -> Iterator[Target]:
    """Looked for once to know whose lock it is, and again under it: it may have been recorded meanwhile."""
    lock = _Lock(means.config.state_directory)
    linkedid = _linkedid(means.find_other(asked, prefers_recorded))
    for _ in range(_TRIES):
        with lock.of(linkedid):
            target = means.find_other(asked, prefers_recorded)
            before, linkedid = linkedid, _linkedid(target)
            if before == linkedid:
                yield replace(target, is_other=target.channel.uniqueid != channel.uniqueid)
                return
    raise NoSuchCall(f"{arguments.plain(asked)} goes from one call to the next: try again")


def _linkedid(target: Target) -> str:
    return target.values[variables.LINKEDID] or target.channel.uniqueid


def _other(asked: str, channel: Channel, values: Mapping[str, str]) -> str:
    """What names another live call than this channel's; empty when this one is meant. Raises BadArgument."""
    if at := _at(asked):
        return at
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


def _own(asked: str, channel: Channel, values: Mapping[str, str], means: Means) -> Target:
    """The asking channel: whatever extension is named, it is only for whoever sits there."""
    others = peers.find(channel, values, looks_for_caller=bool(means.config.manager_username))
    on_call = _extensions_on_call(channel, values, others)
    extension = "" if _is_own_name(asked, channel, values) else extensions.named(asked, on_call)
    target = Target(
        channel,
        values,
        extension,
        (extension,) if extension else on_call,
        _running(channel, values),
        others.telephone,
        _remarks(extension, on_call, means),
    )
    recorded = [end for end in others.ends if end.mixmonitor_id]
    return _whole_conversation(target, recorded[0], means) if recorded else target


def _is_own_name(asked: str, channel: Channel, values: Mapping[str, str]) -> bool:
    return (
        not asked
        or bool(_UNIQUEID.fullmatch(asked))
        or asked.casefold() == channel.name.casefold()
        or (asked in (channel.uniqueid, values[variables.LINKEDID]))
    )


def _whole_conversation(target: Target, recorded: Peer, means: Means) -> Target:
    """When we record it already at its other end, that is the end: so it has one leg at a time."""
    try:
        found = means.find_other(target.channel.uniqueid, True)
    except (ManagerUnavailable, NoSuchCall) as exc:
        name = arguments.plain(recorded.name)
        reason = f"its other end, {name}, is recorded by us too, and cannot be reached: {exc}"
        return replace(target, unreachable=reason)
    return replace(target, channel=found.channel, values=found.values, running=found.running, peer=found.peer)


def _running(channel: Channel, values: Mapping[str, str]) -> tuple[Running, ...]:
    mixmonitor_id = recording.mixmonitor_id(values[variables.MIXMONITOR_ID])
    return (Running(channel, mixmonitor_id, values[variables.LEG]),) if mixmonitor_id else ()


def _remarks(extension: str, on_call: tuple[str, ...], means: Means) -> tuple[str, ...]:
    """Where another call could have been meant, as it once was."""
    if not extension or extension in on_call or not means.config.manager_username:
        return ()
    named = arguments.plain(extension)
    return (
        f"this call is meant, for extension {named}, which is not on it now; at/{named} is the call there",
    )


def _extensions_on_call(channel: Channel, values: Mapping[str, str], others: Peers) -> tuple[str, ...]:
    own = extensions.of_channel(channel.name)
    return extensions.distinct([others.agent, own, *others.talking, channel.extension, channel.did])
