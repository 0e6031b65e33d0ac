"""What an action works with, beside the channel that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from noojee_agi.asterisk.target import Target
from noojee_agi.config import Config
from noojee_agi.recordings.snapshot import Knowledge


class Context(NamedTuple):
    """programs: the folder in which finish_record.py lies. find_other: any live call, by extension or
    uniqueid, and whether one is preferred that we record; it raises NoSuchCall and ManagerUnavailable.
    pause: waits so many seconds. admit: told that the apiKey is right. sees_ends: whether somebody sees it
    when a recording's file is closed on this machine.
    """

    config: Config
    programs: str
    knowledge: Knowledge
    find_other: Callable[[str, bool], Target]
    pause: Callable[[float], None]
    admit: Callable[[], None]
    sees_ends: bool
