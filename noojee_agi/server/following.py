"""One recording whose persons may change: what is to be done, by what is known of the channels now.

It has persons: those with whom the recorded channel talks since the leg began. When one of them is gone and
somebody else is there, the next leg begins. When the recorded channel itself has left, it begins where one of
the persons talks on. Nobody else's talk is recorded: not that of the one who transfers with the one to whom
he will, while a third waits for both, and nothing while somebody is parked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from noojee_agi.asterisk import variables
from noojee_agi.asterisk.live import Switchboard
from noojee_agi.asterisk.live_channel import LiveChannel
from noojee_agi.asterisk.marks import Mark


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

    def is_among(self, names: set[str]) -> bool:
        """names: of channels, or their uniqueids."""
        return not names.isdisjoint([*self.names, *self.uniqueids])

    def with_names_of(self, board: Switchboard) -> Following:
        def now(uniqueid: str, name: str) -> str:
            channel = board.by_uniqueid.get(uniqueid)
            return channel.name if channel else name

        persons = {uniqueid: now(uniqueid, name) for uniqueid, name in self.persons.items()}
        return self._replace(name=now(self.channel, self.name), persons=persons)

    def is_recorded_at(self, channel: LiveChannel) -> bool:
        """As far as its variables tell; see legs.still_records()."""
        return channel.mixmonitor_id == self.mixmonitor_id != ""

    def decide(self, board: Switchboard) -> Decision:
        live = board.by_uniqueid
        recorded = live.get(self.channel)
        persons = [live[uniqueid] for uniqueid in self.persons if uniqueid in live]
        left = [channel for channel in persons if not is_free(board, channel)]
        if self.mixmonitor_id:
            if recorded is None:
                return Decision(Step.END) if left else Decision(Step.OVER)
            if not self.is_recorded_at(recorded):
                return Decision(Step.OVER)  # somebody has stopped it, or another start has replaced it
            if self.persons and is_free(board, recorded):
                return Decision(Step.END)
            return self._while_recorded(board, recorded, left)
        left = [recorded, *left] if recorded else left
        return self._while_not(board, [each for each in left if self._is_marked(each) and not each.is_agent])

    def _is_marked(self, channel: LiveChannel) -> bool:
        """Somebody who stops the recording meanwhile, or starts another one, takes the mark away."""
        return channel.mark is not None and not channel.mark.is_paused and channel.mark.leg_id == self.leg_id

    def _while_recorded(
        self, board: Switchboard, recorded: LiveChannel, left: Sequence[LiveChannel]
    ) -> Decision:
        talking = persons(board, recorded)
        if is_paused(board, talking):
            return Decision(Step.END)
        if not self.persons:
            if talking:
                return Decision(Step.FORMED, recorded, talking)
            return Decision(Step.END if recorded.is_waiting else Step.NOTHING)
        if talking:
            is_anybody_gone = not self.persons.keys() <= talking.keys()
            if not is_anybody_gone or talking.keys() <= self.persons.keys():
                return Decision(Step.NOTHING)
            missing = [channel for channel in left if channel.uniqueid not in talking]
            if any(_waits(board, channel) for channel in missing):
                return Decision(Step.END)
            return Decision(Step.NEXT, recorded, talking)
        is_sent_away = bool(recorded.values.get(variables.BLINDTRANSFER))
        talk_on = any(persons(board, channel) for channel in left)  # without it
        has_left = not recorded.bridge and (is_sent_away or talk_on)
        return Decision(Step.END if recorded.is_waiting or has_left else Step.NOTHING)

    def _while_not(self, board: Switchboard, left: Sequence[LiveChannel]) -> Decision:
        """left: who of the last leg is there, first the channel that was recorded; not an agent who stays
        logged in, since his next call is another.

        What only those say to each other who were in a conference with it is nobody's.
        """
        if not left:
            return Decision(Step.OVER)
        if any(_waits(board, channel) for channel in left):
            return Decision(Step.NOTHING)
        for channel in left:
            talking = persons(board, channel)
            if is_paused(board, talking):
                return Decision(Step.OVER)
            if talking and (channel.uniqueid == self.channel or not talking.keys() <= self.persons.keys()):
                recorded = any(end.mixmonitor_id for end in board.conversation(channel))
                return Decision(Step.OVER) if recorded else Decision(Step.NEXT, channel, talking)
        return Decision(Step.NOTHING)


def is_with_a_stranger(listed: Sequence[LiveChannel]) -> bool:
    """Whether one of them is in a bridge with somebody whom no event has told of."""
    bridges = [channel.bridge for channel in listed if channel.bridge]
    return any(bridges.count(bridge) == 1 for bridge in bridges)


def that_ended(listed: Sequence[LiveChannel]) -> list[Following]:
    """Legs that have ended while somebody who talked in them is there, and who followed them has died."""
    marked: dict[Mark, list[LiveChannel]] = {}
    for channel in listed:
        if channel.mark and not channel.mark.is_paused:
            marked.setdefault(channel.mark, []).append(channel)
    found = []
    recorded = {each.values[variables.LEG].partition(" ")[0]: each for each in listed}
    for mark, left in marked.items():
        # The channel that it recorded is there, and was not left so by one who follows: somebody has stopped
        # it. One that it still records is there, too: then it has not ended.
        was_stopped = mark.leg_id in recorded and recorded[mark.leg_id].mark != mark
        if not was_stopped and not all(channel.is_agent for channel in left):
            left.sort(key=lambda channel: not channel.values[variables.LEG].startswith(mark.leg_id))
            persons = {channel.uniqueid: channel.name for channel in left}
            found.append(Following(mark.leg_id, mark.file, left[0].uniqueid, left[0].name, "", persons))
    return found


def persons(board: Switchboard, channel: LiveChannel) -> dict[str, str]:
    """With whom it talks, by uniqueid: in a conference with all who are there."""
    return {
        other.uniqueid: other.name
        for other in (*board.conversation(channel), *board.conference(channel))
        if other != channel and not other.is_local and other.bridge
    }


def is_paused(board: Switchboard, uniqueids: Collection[str]) -> bool:
    """Whether one of these comes from a conversation that is paused: it stays so, on whichever channel."""
    return any(board.by_uniqueid[uniqueid].is_paused for uniqueid in uniqueids)


def has_joined(board: Switchboard, paused: LiveChannel) -> list[LiveChannel]:
    """Who talks with that one, and is not paused himself yet: nobody where it is recorded again."""
    if not paused.talks_with_one or any(end.mixmonitor_id for end in board.conversation(paused)):
        return []
    talking = [board.by_uniqueid[uniqueid] for uniqueid in persons(board, paused)]
    return [other for other in talking if other.mark != paused.mark and other.talks_with_one]


def _waits(board: Switchboard, channel: LiveChannel) -> bool:
    """Whether it is parked, or alone in a bridge: somebody will come back to it, or send somebody."""
    return channel.is_waiting or (bool(channel.bridge) and not persons(board, channel))


def is_free(board: Switchboard, channel: LiveChannel) -> bool:
    """Whether an agent who stays logged in (app_agent_pool.c) has done with his call."""
    return channel.is_agent and not persons(board, channel)
