"""A live channel, as the manager interface lists it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from noojee_agi.asterisk import extensions, marks, variables
from noojee_agi.asterisk.marks import Mark
from noojee_agi.recordings import recording

UP = 6  # include/asterisk/channelstate.h AST_STATE_UP
_ZOMBIE = "<ZOMBIE>"  # channel.c: what a masquerade leaves behind
# channel.c ast_channel_yank, pbx.c, res_parking before 12: in front of the name of the channel they hold.
_HOLDERS = ("AsyncGoto/", "Parked/", "Surrogate/", "Bridge/")
# Asterisk's own, at which nobody sits.
_INTERNAL = ("announcer", "cbann", "cbrec", "message", "multicastrtp", "recorder", "snoop", "unicastrtp")
# Whose bridge holds all who wait, and those in which everybody talks with all. Not Park: who is fetched talks
# on in it (res_parking).
_WAITING_IN = "bridgewait"
_CONFERENCES = ("confbridge", "meetme")
_AGENTS = "agentlogin"


class LiveChannel(NamedTuple):
    """seconds: since it was made; values: of target.READ."""

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
    values: Mapping[str, str] = MappingProxyType({})

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
        return self.is_parked or self.application.casefold() == _WAITING_IN

    @property
    def talks_with_one(self) -> bool:
        """Whether who is alone in a bridge with it is whom it talks with."""
        return bool(self.bridge) and not self.is_waiting and self.application.casefold() not in _CONFERENCES

    @property
    def is_agent(self) -> bool:
        """Whether it is an agent's who stays logged in from one call to the next."""
        return self.application.casefold() == _AGENTS

    @property
    def half(self) -> str:
        """What the two halves of a Local channel have in common: Local/410@agents-00000001;1 and ;2."""
        return self.name.rpartition(";")[0] if self.is_local else ""

    @property
    def mixmonitor_id(self) -> str:
        return recording.mixmonitor_id(self.values.get(variables.MIXMONITOR_ID, ""))

    @property
    def mark(self) -> Mark | None:
        return marks.parse(self.values.get(variables.PERSON_OF, ""))

    @property
    def is_paused(self) -> bool:
        return self.mark is not None and self.mark.is_paused


def _held(name: str) -> str:
    holder = next((holder for holder in _HOLDERS if name.startswith(holder)), "")
    return name.removeprefix(holder)
