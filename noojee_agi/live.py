"""All live channels of an Asterisk, and which of them an extension or a uniqueid means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from noojee_agi import arguments, extensions, variables
from noojee_agi.errors import NoSuchCall

UP = 6  # include/asterisk/channelstate.h AST_STATE_UP
_ZOMBIE = "<ZOMBIE>"  # channel.c: what a masquerade leaves behind
# channel.c ast_channel_yank, pbx.c, res_parking before 12: in front of the name of the channel they hold.
_HOLDERS = ("AsyncGoto/", "Parked/", "Surrogate/", "Bridge/")
# Asterisk's own, at which nobody sits.
_INTERNAL = ("announcer", "cbann", "cbrec", "message", "multicastrtp", "recorder", "snoop", "unicastrtp")
_WAITING_IN = ("park", "bridgewait")  # applications: one bridge holds all who wait


@dataclass(frozen=True)
class LiveChannel:
    """A channel as the manager interface lists it. seconds: since it was made; values: of calls.READ."""

    name: str
    uniqueid: str
    linkedid: str = ""
    state: int = UP
    seconds: int = 0
    bridge: str = ""
    application: str = ""
    caller: str = ""
    connected: str = ""
    extension: str = ""
    did: str = ""
    is_parked: bool = False
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def technology(self) -> str:
        return _held(self.name).partition("/")[0].casefold()

    @property
    def own_extension(self) -> str:
        """That of its name: who sits there."""
        return extensions.of_channel(_held(self.name))

    @property
    def is_local(self) -> bool:
        return self.technology == "local"

    @property
    def is_somebodys(self) -> bool:
        """Whether somebody may sit there, and it is not just being replaced."""
        return not self.name.endswith(_ZOMBIE) and self.technology not in _INTERNAL

    @property
    def is_waiting(self) -> bool:
        """Whether it is parked, say: up, but with nobody to talk to."""
        return self.is_parked or self.application.casefold() in _WAITING_IN

    @property
    def mixmonitor_id(self) -> str:
        return self.values.get(variables.MIXMONITOR_ID, "")


@dataclass(frozen=True)
class Found:
    """extension: the one that was named, if it was one; extensions: whose owner the leg may have.

    others: how many further calls were named.
    """

    channel: LiveChannel
    extension: str
    extensions: tuple[str, ...]
    others: int


def find(asked: str, channels: Sequence[LiveChannel]) -> Found:
    """The live channel that a uniqueid or an extension means.

    When the same conversation is being recorded by us at its other end, that end is meant: the recording
    has one leg at a time. Raises NoSuchCall.
    """
    live = [channel for channel in channels if channel.is_somebodys]
    named, extension = _of_uniqueid(asked, live), ""
    if not named:
        named = _at_extension(asked, live)
        extension = named[0].own_extension if named else ""
    if not named:
        raise NoSuchCall(
            f"no live call has the extension or uniqueid {arguments.plain(asked)}:"
            " noojee-agi record list shows them"
        )
    best = min(named, key=_rank)
    recorded = [channel for channel in conversation(best, live) if channel.mixmonitor_id]
    others = {channel.linkedid for channel in named} - {best.linkedid}
    owners = [extension] if extension else [_agent(best), best.own_extension]
    return Found(
        min(recorded, key=_rank) if recorded and not best.mixmonitor_id else best,
        extension,
        extensions.distinct(owners),
        len(others),
    )


def telephones(channels: Iterable[LiveChannel]) -> list[LiveChannel]:
    """The channels at which somebody sits, the oldest first; Local ones where nobody else is in the call."""
    live = [channel for channel in channels if channel.is_somebodys]
    real = {channel.linkedid for channel in live if not channel.is_local}
    return sorted(
        (channel for channel in live if not channel.is_local or channel.linkedid not in real),
        key=lambda channel: (-channel.seconds, channel.uniqueid),
    )


def _held(name: str) -> str:
    holder = next((holder for holder in _HOLDERS if name.startswith(holder)), "")
    return name.removeprefix(holder)


def _agent(channel: LiveChannel) -> str:
    return extensions.of_interface(channel.values.get(variables.MEMBERINTERFACE, ""))


def _of_uniqueid(asked: str, live: Sequence[LiveChannel]) -> list[LiveChannel]:
    """By uniqueid, with or without the system's name, or by the channel's whole name; else by the call's."""
    wanted = {asked, *(f"{channel.values[variables.SYSTEMNAME]}-{asked}" for channel in live[:1])}
    by_channel = [
        channel
        for channel in live
        if channel.uniqueid in wanted or channel.name.casefold() == asked.casefold()
    ]
    return by_channel or [channel for channel in live if channel.linkedid in wanted]


def _at_extension(asked: str, live: Sequence[LiveChannel]) -> list[LiveChannel]:
    """At 410 or, if a technology is named, at PJSIP/410; Local/410@agents is whoever sits at 410."""
    technology, slash, _ = asked.partition("/")
    wanted = extensions.of_interface(asked).casefold()
    is_any = not slash or technology.casefold() == "local"
    return [
        channel
        for channel in live
        if channel.own_extension.casefold() == wanted
        and (is_any or channel.technology == technology.casefold())
    ]


def _rank(channel: LiveChannel) -> tuple[bool, bool, bool, bool, int, int]:
    """The smallest is meant: a telephone, up, talking, the newest."""
    number = re.search(r"\.(\d+)$", channel.uniqueid)  # counts Asterisk's channels (channel.c)
    return (
        channel.is_local,
        channel.state != UP,
        channel.is_waiting,
        channel.is_local and not channel.bridge,
        channel.seconds,
        -int(number[1]) if number else 0,
    )


def conversation(channel: LiveChannel, channels: Iterable[LiveChannel]) -> Iterator[LiveChannel]:
    """The channel, the one that it is bridged with, and so on through the halves of Local channels.

    In a conference each is for itself.
    """
    left = {id(other): other for other in channels if other is not channel}
    found = [channel]
    while found:
        current = found.pop()
        yield current
        bridge = "" if current.is_waiting else current.bridge
        bridged = [other for other in left.values() if bridge and other.bridge == bridge]
        half = [other for other in left.values() if _is_other_half(current, other)]
        for other in [*(bridged if len(bridged) == 1 else []), *half]:
            found += [left.pop(id(other))] if id(other) in left else []


def _is_other_half(one: LiveChannel, other: LiveChannel) -> bool:
    """Local/410@agents-00000001;1 and ;2 (core_unreal.c)."""
    return one.is_local and one.name != other.name and one.name[:-1] == other.name[:-1]
