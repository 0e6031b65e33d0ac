"""All live channels of an Asterisk, and which of them an extension or a uniqueid means."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from noojee_agi import text
from noojee_agi.asterisk import extensions, variables
from noojee_agi.asterisk.live_channel import UP, LiveChannel
from noojee_agi.errors import NoSuchCall

_PAIR = 2


class Found(NamedTuple):
    """extension: the one that was named, if it was one; extensions: whose owner the leg may have.

    others: how many further calls were named. recorded: the ends of the conversation that we record. peer:
    the telephone with which that channel talks, if there is one.
    """

    channel: LiveChannel
    extension: str
    extensions: tuple[str, ...]
    others: int
    recorded: tuple[LiveChannel, ...] = ()
    peer: LiveChannel | None = None


class Switchboard:
    """All live channels, and who talks with whom."""

    def __init__(self, channels: Iterable[LiveChannel]) -> None:
        self.channels = [channel for channel in channels if channel.is_somebodys]
        self.by_uniqueid = {channel.uniqueid: channel for channel in self.channels}
        self._bridges: defaultdict[str, list[LiveChannel]] = defaultdict(list)
        self._halves: defaultdict[str, list[LiveChannel]] = defaultdict(list)
        for channel in self.channels:
            self._bridges[channel.bridge].append(channel)
            self._halves[channel.half].append(channel)

    def find(self, asked: str, prefers_recorded: bool = False) -> Found:
        """The channel that a uniqueid or an extension means. Raises NoSuchCall.

        When the same conversation is being recorded by us at its other end, that end is meant: the recording
        has one leg at a time. prefers_recorded: of several calls one that we record, as who stops it means.
        """
        named, extension = _of_uniqueid(asked, self.channels), ""
        if not named:
            named = _at_extension(asked, self.channels)
            extension = named[0].own_extension if named else ""
        if not named:
            raise NoSuchCall(
                f"no live call has the extension or uniqueid {text.plain(asked)}:"
                " noojee-agi record list shows them"
            )
        preferred = self._ours(named) if prefers_recorded else []
        best = min(preferred or named, key=_rank)
        others = {channel.linkedid for channel in named} - {best.linkedid}
        owners = [extension] if extension else self._owners(best)
        recorded = self._recorded(best)
        end = next(iter(recorded), best)
        peers = [each for each in self.conversation(best) if each != end and not each.is_local]
        peer = next(iter(peers), None)
        return Found(end, extension, extensions.distinct(owners), len(others), recorded, peer)

    def telephones(self) -> list[LiveChannel]:
        """Where somebody sits, the oldest first; Local channels where nobody else is in the call."""
        return sorted(_real(self.channels), key=lambda channel: (-channel.seconds, channel.uniqueid))

    def conversation(self, channel: LiveChannel) -> Iterator[LiveChannel]:
        """The channel, the one that it is bridged with, and so on through the halves of Local channels.

        In a conference each is for itself.
        """
        seen, found = {channel.name}, [channel]
        while found:
            current = found.pop()
            yield current
            for other in self._next_to(current):
                if other.name not in seen:
                    seen.add(other.name)
                    found.append(other)

    def marked(self, channel: LiveChannel) -> list[LiveChannel]:
        """All who have talked in a leg of ours in which somebody of its conversation has."""
        legs = {end.mark.leg_id for end in self.conversation(channel) if end.mark}
        return [each for each in self.channels if each.mark and each.mark.leg_id in legs]

    def recorded_in(self, legs: Collection[str]) -> list[LiveChannel]:
        """Where these legs are recorded, or others since; such as by a third one in a bridge of three."""
        return [
            each
            for each in self.channels
            if each.mixmonitor_id and each.values.get(variables.LEG, "").partition(" ")[0] in legs
        ]

    def conference(self, channel: LiveChannel) -> Iterator[LiveChannel]:
        """Who else is in its bridge, where that is a conference or has become one."""
        bridge = self._bridges[channel.bridge] if channel.bridge and not channel.is_waiting else []
        if len(bridge) > _PAIR or not channel.talks_with_one:
            yield from (other for other in bridge if other != channel and not _are_agents(channel, other))

    def _next_to(self, channel: LiveChannel) -> Iterator[LiveChannel]:
        bridge = self._bridges[channel.bridge]
        if channel.talks_with_one and len(bridge) == _PAIR:
            yield from (each for each in bridge if each.talks_with_one and not _are_agents(channel, each))
        if not channel.bridge:
            yield from (other for other in bridge if _is_answered_by(channel, other))
            yield from (other for other in bridge if _is_answered_by(other, channel))
        if channel.half:
            yield from self._halves[channel.half]

    def _ours(self, named: Sequence[LiveChannel]) -> list[LiveChannel]:
        """Those whose conversation we record, else those where we have until somebody was sent away."""
        recorded = [channel for channel in named if self._recorded(channel)]
        return recorded or [channel for channel in named if self.marked(channel)]

    def _recorded(self, channel: LiveChannel) -> tuple[LiveChannel, ...]:
        """The ends at which its conversation is being recorded by us: its own first."""
        return tuple(end for end in self.conversation(channel) if end.mixmonitor_id)

    def _owners(self, channel: LiveChannel) -> list[str]:
        """The queue's agent, if it is he who talks: the variable outlives him. Then the channel's own
        extension, then those with whom it talks.
        """
        talking = [end.own_extension for end in self.conversation(channel)]
        agent = extensions.of_interface(channel.values.get(variables.MEMBERINTERFACE, ""))
        return [agent, *talking] if agent in talking else talking


def _are_agents(one: LiveChannel, other: LiveChannel) -> bool:
    """Both wait for callers: they have one bridge in which nobody hears the other (app_agent_pool.c)."""
    return one.is_agent and other.is_agent


def _is_answered_by(caller: LiveChannel, called: LiveChannel) -> bool:
    """Whether called has just answered caller, and the two are about to be bridged.

    Dial's option U, a queue's membergosub and its AGI run in between; a Local channel that caller rings
    answers only after what is behind it.

    The variables outlive their call, so caller must be in its application yet; one whose event cannot be
    believed does not say in which.
    """
    if caller is called or caller.linkedid != called.linkedid or caller.bridge or called.bridge:
        return False
    application = caller.application.casefold()
    if called.name.endswith(";1") and called.is_local and called.state != UP:
        return application in ("dial", "queue", "")
    if called.state != UP:
        return False
    agent = extensions.of_interface(caller.values.get(variables.MEMBERINTERFACE, ""))
    is_dialled = application in ("dial", "") and caller.values.get(variables.DIALEDPEERNAME) == called.name
    return is_dialled or (application in ("queue", "agi", "") and agent == called.own_extension)


def _real(channels: Sequence[LiveChannel]) -> list[LiveChannel]:
    """Without Local channels of calls in which somebody else is, too."""
    calls = {channel.linkedid for channel in channels if not channel.is_local}
    return [channel for channel in channels if not channel.is_local or channel.linkedid not in calls]


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
    """At 410 or, if a technology is named, at PJSIP/410; Local/410@agents is whoever sits at 410.

    SIP/410 is PJSIP/410 where no call is at SIP/410: a telephone keeps its number when chan_sip, which
    Asterisk 21 has no more, is given up, and a CRM or a dialplan keeps the name that it has always had.
    """
    technology, slash, _ = asked.casefold().partition("/")
    wanted = extensions.of_interface(asked).casefold()
    there = [channel for channel in live if channel.own_extension.casefold() == wanted]
    if not slash or technology == "local":
        return _real(there)
    named = _real([channel for channel in there if channel.technology == technology])
    if not named and technology == "sip":
        return _real([channel for channel in there if channel.technology == "pjsip"])
    return named


def _rank(channel: LiveChannel) -> tuple[bool, bool, bool, int, int]:
    """The smallest is meant: up, talking, the newest."""
    number = re.search(r"\.(\d+)$", channel.uniqueid)  # counts Asterisk's channels (channel.c)
    return (
        channel.state != UP,
        channel.is_waiting,
        channel.is_local and not channel.bridge,
        channel.seconds,
        -int(number[1]) if number else 0,
    )
