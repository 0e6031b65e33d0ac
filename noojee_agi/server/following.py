"""One recording whose persons may change: what is to be done, by what is known of the channels now.

It has persons: those with whom the recorded channel talks since the leg began. When one of them is gone and
somebody else is there, the next leg begins. When the recorded channel itself has left, it begins where one of
the persons talks on. Nobody else's talk is recorded: not that of the one who transfers with the one to whom
he will, while a third waits for both, and nothing while somebody is parked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from noojee_agi.asterisk import variables
from noojee_agi.asterisk.live import LiveChannel, Switchboard
from noojee_agi.recordings import recording


class Step(Enum):
    NOTHING = "nothing"
    FORMED = "formed"  # the persons are known now
    END = "end"  # the leg ends, and the next one begins when somebody talks again
    NEXT = "next"  # the next one begins; the leg has ended, or records the same channel, and ends
    OVER = "over"  # nothing is left to follow


class Decision(NamedTuple):
    """step; at: the channel at which the next leg begins; persons: those of the leg then, by uniqueid."""

    step: Step
    at: LiveChannel | None = None
    persons: Mapping[str, str] = {}


class Following(NamedTuple):
    """mixmonitor_id: empty while no leg records. channel: uniqueid of the recorded channel, or the last one.
    persons: names by uniqueid; empty until somebody has talked.
    """

    leg_id: str
    file: str
    channel: str
    name: str
    mixmonitor_id: str
    persons: Mapping[str, str]

    @property
    def names(self) -> Sequence[str]:
        """Those that were known: a channel may be renamed, as after a masquerade (channel.c)."""
        return [name for name in (self.name, *self.persons.values()) if name]

    @property
    def uniqueids(self) -> Sequence[str]:
        return [self.channel, *self.persons]

    def with_names_of(self, listed: Sequence[LiveChannel]) -> Following:
        names = {channel.uniqueid: channel.name for channel in listed}
        persons = {uniqueid: names.get(uniqueid, name) for uniqueid, name in self.persons.items()}
        return self._replace(name=names.get(self.channel, self.name), persons=persons)

    def is_recorded_at(self, channel: LiveChannel) -> bool:
        """As far as its variables tell; see legs.still_records()."""
        return channel.mixmonitor_id == self.mixmonitor_id != ""

    def decide(self, board: Switchboard) -> Decision:
        live = {channel.uniqueid: channel for channel in board.channels}
        recorded = live.get(self.channel)
        left = [live[uniqueid] for uniqueid in self.persons if uniqueid in live]
        if self.mixmonitor_id:
            if recorded is None:
                return Decision(Step.END) if left else Decision(Step.OVER)
            if not self.is_recorded_at(recorded):
                return Decision(Step.OVER)  # somebody has stopped it, or another start has replaced it
            return self._while_recorded(board, recorded, left)
        return _while_not([*([recorded] if recorded else []), *left], board)

    def _while_recorded(
        self, board: Switchboard, recorded: LiveChannel, left: Sequence[LiveChannel]
    ) -> Decision:
        talking = _persons(board, recorded)
        if not self.persons:
            return Decision(Step.FORMED, recorded, talking) if talking else Decision(Step.NOTHING)
        if talking:
            if self.persons.keys() <= talking.keys():
                return Decision(Step.NOTHING)
            missing = [channel for channel in left if channel.uniqueid not in talking]
            if any(_waits(board, channel) for channel in missing):
                return Decision(Step.END)
            return Decision(Step.NEXT, recorded, talking)
        is_sent_away = bool(recorded.values.get(variables.BLINDTRANSFER))
        talk_on = any(_persons(board, channel) for channel in left)  # without it
        has_left = not recorded.bridge and (is_sent_away or talk_on)
        return Decision(Step.END if recorded.is_waiting or has_left else Step.NOTHING)


def is_with_a_stranger(listed: Sequence[LiveChannel]) -> bool:
    """Whether one of them is in a bridge with somebody whom no event has told of."""
    bridges = [channel.bridge for channel in listed if channel.bridge]
    return any(bridges.count(bridge) == 1 for bridge in bridges)


def that_ended(listed: Sequence[LiveChannel]) -> list[Following]:
    """Legs that have ended while somebody who talked in them is there, and who followed them has died."""
    marked: dict[str, list[LiveChannel]] = {}
    for channel in listed:
        marked.setdefault(channel.values[variables.PERSON_OF], []).append(channel)
    found = []
    for mark, left in marked.items():
        leg_id, _, file = mark.partition(" ")
        if recording.is_id(leg_id) and recording.is_ours(file) and not _was_stopped(leg_id, listed):
            left.sort(key=lambda channel: not channel.values[variables.LEG].startswith(leg_id))
            persons = {channel.uniqueid: channel.name for channel in left}
            found.append(Following(leg_id, file, left[0].uniqueid, left[0].name, "", persons))
    return found


def _was_stopped(leg_id: str, listed: Sequence[LiveChannel]) -> bool:
    """Whether the channel that it recorded is there, and was not left so by one who follows.

    A channel that it still records is there, too: then it has not ended.
    """
    return any(
        channel.values[variables.LEG].startswith(leg_id)
        and not channel.values[variables.PERSON_OF].startswith(leg_id)
        for channel in listed
    )


def _while_not(left: Sequence[LiveChannel], board: Switchboard) -> Decision:
    """left: who of the last leg is still there, first the channel that was recorded."""
    if not left:
        return Decision(Step.OVER)
    if any(_waits(board, channel) for channel in left):
        return Decision(Step.NOTHING)
    for channel in left:
        if talking := _persons(board, channel):
            recorded = any(end.mixmonitor_id for end in board.conversation(channel))
            return Decision(Step.OVER) if recorded else Decision(Step.NEXT, channel, talking)
    return Decision(Step.NOTHING)


def _persons(board: Switchboard, channel: LiveChannel) -> dict[str, str]:
    """With whom it talks, by uniqueid."""
    return {
        other.uniqueid: other.name
        for other in board.conversation(channel)
        if other != channel and not other.is_local and other.bridge
    }


def _waits(board: Switchboard, channel: LiveChannel) -> bool:
    """Whether it is parked, or alone in a bridge: somebody will come back to it, or send somebody."""
    return channel.is_waiting or (bool(channel.bridge) and not _persons(board, channel))
