"""The channel that an action works with: what it offers, whichever way it is reached, and what is known."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from noojee_agi import text
from noojee_agi.asterisk import variables
from noojee_agi.asterisk.marks import Mark
from noojee_agi.asterisk.peers import NOBODY, Peer
from noojee_agi.recordings import recording


class Recordable(Protocol):
    """A channel: `channel.Channel` over AGI, `other_calls.OtherChannel` over the manager interface.

    Each method raises CallGone or NoSuchCall once the channel is gone, and ManagerUnavailable. host: where
    its Asterisk runs; empty when that is this machine.
    """

    host: str
    uniqueid: str
    name: str
    extension: str
    did: str
    caller: str

    def sees_file(self, path: str) -> bool: ...
    def set(self, name: str, value: str) -> None: ...
    def set_all(self, values: Mapping[str, str]) -> None: ...
    def mixmonitor(self, file: str, options: str, end_command: str) -> None: ...
    def require_start(self, file: str) -> None: ...
    def stop_mixmonitor(self, mixmonitor_id: str) -> None: ...
    def mixmonitor_id(self) -> str: ...
    def mixmonitor_file(self, mixmonitor_id: str) -> str: ...
    def packets(self, names: Sequence[str]) -> list[int]: ...


# What must be known of a channel before anything is done with it.
READ = (
    *(variables.LINKEDID, variables.MIXMONITOR_ID, variables.LEG, variables.SYSTEMNAME),
    *(variables.MEMBERINTERFACE, variables.BRIDGEPEER, variables.DIALEDPEERNAME),
    *(variables.BLINDTRANSFER, variables.ATTENDEDTRANSFER, variables.PERSONS),
    variables.PERSON_OF,
)


class Running(NamedTuple):
    """A MixMonitor that records one end of the conversation for us, or did. leg: see variables.LEG."""

    channel: Recordable
    mixmonitor_id: str
    leg: str

    def file(self) -> str:
        """Its file; empty when it has ended, or when the id is that of somebody else's by now.

        Raises NoSuchCall, CallGone and ManagerUnavailable, as the others do.
        """
        file = self.channel.mixmonitor_file(self.mixmonitor_id)
        return file if recording.is_ours(file) else ""

    def stop(self) -> None:
        self.channel.stop_mixmonitor(self.mixmonitor_id)

    def forget(self) -> None:
        """Its id may be given to somebody else's."""
        self.channel.set(variables.MIXMONITOR_ID, "")


class Marked(NamedTuple):
    """A channel of somebody who has talked in a leg of ours that may go on.

    leg: see variables.LEG; empty unless this is the channel which that leg has recorded.
    """

    channel: Recordable
    mark: Mark
    leg: str = ""

    def clear(self) -> None:
        """Raises NoSuchCall, CallGone and ManagerUnavailable."""
        self.channel.set(variables.PERSON_OF, "")


class Target(NamedTuple):
    """The channel that is to be recorded, or is.

    extension: the one that was asked for, if any; extensions: whose owner the leg may have, in this order.
    values: of READ. running: what records this conversation for us, at whichever end. peer: with whom that
    channel talks. remarks: what the caller should know besides. unreachable: why an end of the conversation
    that we record cannot be reached, or empty. is_alone: whether it is certain that nobody else acts on the
    conversation now. marked: the channels of those who have talked in a leg of it. ends: its telephones, the
    nearest first, as far as they can be reached; none when only one can.
    """

    channel: Recordable
    values: Mapping[str, str]
    extension: str
    extensions: tuple[str, ...]
    running: tuple[Running, ...] = ()
    peer: Peer = NOBODY
    remarks: tuple[str, ...] = ()
    unreachable: str = ""
    is_other: bool = False
    is_alone: bool = True
    marked: tuple[Marked, ...] = ()
    ends: tuple[Recordable, ...] = ()

    @property
    def call(self) -> str:
        """For a message: which other call this is."""
        name, uniqueid = text.plain(self.channel.name), text.plain(self.channel.uniqueid)
        return f"the call of {name} (uniqueid {uniqueid})"


class CommandLine:
    """In place of a channel of our own, where nobody calls."""

    uniqueid = host = ""

    def __init__(self, key: str) -> None:
        self._key = key

    def get_all(self, *names: str) -> dict[str, str]:
        return {**dict.fromkeys(names, ""), variables.API_KEY: self._key}

    def sees_file(self, path: str) -> bool:
        return os.path.exists(path)
