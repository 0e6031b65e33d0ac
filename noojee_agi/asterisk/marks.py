"""What stands on the channels of those who have talked in a leg of ours (variables.PERSON_OF).

While it is recorded, on those with whom the recorded channel talks; between two legs, and while it is paused,
on all of them. So whoever acts on the conversation next knows of it, at whichever of its ends.
"""

from __future__ import annotations

from typing import NamedTuple

from noojee_agi.recordings import recording

_PAUSED = "paused "


class Mark(NamedTuple):
    """is_paused: nothing is recorded until somebody says so, whoever talks then."""

    leg_id: str
    file: str
    is_paused: bool = False

    def __str__(self) -> str:
        return f"{_PAUSED if self.is_paused else ''}{self.leg_id} {self.file}"


def parse(value: str) -> Mark | None:
    """None for what is none of ours."""
    is_paused = value.startswith(_PAUSED)
    leg_id, _, file = value.removeprefix(_PAUSED).partition(" ")
    return Mark(leg_id, file, is_paused) if recording.is_id(leg_id) and recording.is_ours(file) else None
