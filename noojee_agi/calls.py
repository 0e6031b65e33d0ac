"""Which call is meant: the one that asks, or another live one, which `live` finds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from noojee_agi import extensions, variables

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


def target(
    asked: str, channel: Channel | CommandLine, values: Mapping[str, str], find_other: Callable[[str], Target]
) -> Target:
    """What extenOrUniqueId means: an extension on this call is this channel. Raises as find_other does."""
    if isinstance(channel, CommandLine):
        return find_other(asked)
    on_call = _extensions_on_call(channel, values)
    if asked in ("", channel.uniqueid) or asked.casefold() == channel.name.casefold():
        return Target(channel, values, "", on_call)
    named = extensions.find(asked, on_call)
    if named:
        return Target(channel, values, named, extensions.distinct([named, *on_call]))
    return find_other(asked)


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
