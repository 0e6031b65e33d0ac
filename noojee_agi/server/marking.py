"""Sets the marks by which whoever acts on a call next knows of its recording: see `asterisk.marks`.

Under the conversation's lock: whoever pauses or stops a recording sets and clears them, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from noojee_agi.asterisk import variables
from noojee_agi.asterisk.live_channel import LiveChannel
from noojee_agi.asterisk.manager import Manager
from noojee_agi.asterisk.marks import Mark
from noojee_agi.errors import NoSuchCall
from noojee_agi.server.following import Following


class Marking:
    """Each method raises ManagerUnavailable."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def set_all(self, followed: Following, before: str, listed: Sequence[LiveChannel]) -> None:
        """On those who talk in this leg now; before: the leg's id that they had until now.

        Not in a conference: there each is for itself, and nobody else's stop or pause ends this recording.
        """
        self._set(followed.name, variables.PERSONS, " ".join([followed.leg_id, *followed.persons]))
        if any(channel.mark for channel in listed if channel.name == followed.name):
            self.clear(followed.name)
        left = [channel for channel in listed if channel.uniqueid not in followed.persons]
        for channel in listed:
            if channel not in left and channel.talks_with_one:
                self._set(channel.name, variables.PERSON_OF, str(_mark_of(followed)))
        self.clear_all(before, left)

    def set_ended(self, followed: Following) -> None:
        """Before its end: a recording that somebody stops has no mark at its channel."""
        self._set(followed.name, variables.PERSON_OF, str(_mark_of(followed)))

    def clear_all(self, leg_id: str, listed: Sequence[LiveChannel]) -> None:
        for channel in listed:
            if channel.mark and not channel.mark.is_paused and channel.mark.leg_id == leg_id:
                self.clear(channel.name)

    def clear(self, channel: str) -> None:
        self._set(channel, variables.PERSON_OF, "")

    def pause(self, channel: str, mark: Mark) -> None:
        """It talks in a conversation that is paused."""
        self._set(channel, variables.PERSON_OF, str(mark))
        self._set(channel, variables.STATE, variables.PAUSED)

    def _set(self, channel: str, name: str, value: str) -> None:
        with contextlib.suppress(NoSuchCall):
            self._manager.set(channel, name, value)


def _mark_of(followed: Following) -> Mark:
    return Mark(followed.leg_id, followed.file)
