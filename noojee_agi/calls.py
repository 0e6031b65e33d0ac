"""Which call is meant: the one that asks, or another live one, which `live` finds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from noojee_agi import access, extensions, turns, variables
from noojee_agi.means import Means

TYPE_CHECKING = False  # importing typing for it would cost the caller 5 ms
if TYPE_CHECKING:
    from noojee_agi.channel import Channel
    from noojee_agi.manager import OtherChannel

# What must be known of a channel before anything is done with it.
READ = (
    *(variables.LINKEDID, variables.MIXMONITOR_ID, variables.REPLACED_ID, variables.SYSTEMNAME),
    *(variables.MEMBERINTERFACE, variables.BRIDGEPEER, variables.DIALEDPEERNAME),
)


@dataclass(frozen=True)
class Target:
    """The channel that is to be recorded, or is.

    extension: the one that was asked for, if any; extensions: whose owner the leg may have, in this order.
    values: of READ. remark: what the caller should know besides, or empty.
    """

    channel: Channel | OtherChannel
    values: Mapping[str, str]
    extension: str
    extensions: tuple[str, ...]
    remark: str = ""


class CommandLine:
    """In place of a channel of our own, where nobody calls."""

    uniqueid = host = ""

    def __init__(self, key: str) -> None:
        self._key = key

    def get_all(self, *names: str) -> dict[str, str]:
        return {**dict.fromkeys(names, ""), variables.API_KEY: self._key}

    def sees_file(self, path: str) -> bool:
        return os.path.exists(path)


@contextlib.contextmanager
def admitted(
    asked: str, channel: Channel | CommandLine, means: Means, prefers_recorded: bool = False
) -> Iterator[Target]:
    """The call that extenOrUniqueId means, if the key is right.

    While the block runs, it is nobody else's turn to start or stop a recording there. prefers_recorded: of
    several other calls, one that we record. Raises KeyRefused, and as means.find_other does.
    """
    directory = means.config.state_directory
    # Without a manager interface a channel is reached by its own dialplan only, which waits for each program.
    may_be_reached = bool(channel.uniqueid and means.config.manager_username)
    with turns.of(directory, channel.uniqueid) if may_be_reached else contextlib.nullcontext():
        values = channel.get_all(variables.API_KEY, *READ)
        access.require_key(values[variables.API_KEY], means.knowledge)
        own = None if isinstance(channel, CommandLine) else _own(asked, channel, values)
        if own:
            yield own
            return
    other = means.find_other(asked, prefers_recorded)
    with turns.of(directory, other.channel.uniqueid):
        now = other.channel.get_all(variables.MIXMONITOR_ID, variables.REPLACED_ID)
        yield replace(other, values={**other.values, **now})


def _own(asked: str, channel: Channel, values: Mapping[str, str]) -> Target | None:
    """The asking channel, if that is meant: an extension on its call is itself."""
    on_call = _extensions_on_call(channel, values)
    uniqueids = ("", channel.uniqueid, channel.uniqueid.removeprefix(f"{values[variables.SYSTEMNAME]}-"))
    if asked in uniqueids or asked.casefold() == channel.name.casefold():
        return Target(channel, values, "", on_call)
    named = extensions.find(asked, on_call)
    return Target(channel, values, named, extensions.distinct([named, *on_call])) if named else None


def _extensions_on_call(channel: Channel, values: Mapping[str, str]) -> tuple[str, ...]:
    return extensions.distinct(
        [
            extensions.of_interface(values[variables.MEMBERINTERFACE]),
            extensions.of_channel(channel.name),
            *map(extensions.of_channel, values[variables.BRIDGEPEER].split(",")),
            extensions.of_channel(values[variables.DIALEDPEERNAME]),
            channel.extension,
            channel.did,
        ]
    )
