"""Conversations that are paused: they stay so, on whichever channel they go on."""

from __future__ import annotations

from collections.abc import Sequence

from noojee_agi.asterisk.live import Switchboard
from noojee_agi.asterisk.live_channel import LiveChannel
from noojee_agi.asterisk.marks import Mark
from noojee_agi.server.following import persons
from noojee_agi.server.legs import Legs


class Pauses:
    """names: of the channels that a pause, or one that has joined their conversation since, has marked."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def look(self, listed: Sequence[LiveChannel], legs: Legs) -> None:
        """Whoever talks with one of them is marked, too. Raises ManagerUnavailable."""
        board = Switchboard(listed)
        for channel in board.channels:
            self.names.discard(channel.name)
            if channel.mark and channel.mark.is_paused:
                self._look_at(channel, channel.mark, board, legs)

    def _look_at(self, channel: LiveChannel, mark: Mark, board: Switchboard, legs: Legs) -> None:
        talking = persons(board, channel)
        if channel.is_agent and not talking:
            legs.marking.clear(channel.name)  # he stays logged in, and has done with that call
            return
        self.names.add(channel.name)
        if channel.talks_with_one and not any(end.mixmonitor_id for end in board.conversation(channel)):
            for other in (board.by_uniqueid[uniqueid] for uniqueid in talking):
                if other.mark != mark and other.talks_with_one:
                    legs.marking.pause(other.name, mark)
                    self.names.add(other.name)
