"""Conversations that are paused: they stay so, on whichever channel they go on."""

from __future__ import annotations

from collections.abc import Sequence

from noojee_agi.asterisk.live import Switchboard
from noojee_agi.asterisk.live_channel import LiveChannel
from noojee_agi.server import following
from noojee_agi.server.legs import Legs


class Pauses:
    """names: of the channels that a pause, or one that has joined their conversation since, has marked."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def look(self, listed: Sequence[LiveChannel], legs: Legs) -> None:
        """Whoever talks with one of them is marked, too, and a free agent not any more.

        Raises ManagerUnavailable.
        """
        board = Switchboard(listed)
        self.names.difference_update(channel.name for channel in board.channels)
        for channel in board.channels:
            if channel.is_paused:
                is_free = following.is_free(board, channel)
                if is_free or following.has_joined(board, channel):
                    self._look_again(channel, listed, legs)
                else:
                    self.names.add(channel.name)

    def _look_again(self, channel: LiveChannel, listed: Sequence[LiveChannel], legs: Legs) -> None:
        """Under the conversation's lock: somebody may have resumed it, and cleared the marks."""
        with legs.locked(channel, [each.uniqueid for each in listed]) as listed:
            board = Switchboard(listed)
            now = board.by_uniqueid.get(channel.uniqueid)
            if now is None or now.mark is None or not now.is_paused:
                return
            if following.is_free(board, now):
                legs.marking.clear(now.name)
                return
            joined = following.has_joined(board, now)
            for other in joined:
                legs.marking.pause(other.name, now.mark)
            self.names.update(each.name for each in (now, *joined))
