"""Channel name -> extension, and which extensions are on this call."""

import re
from collections.abc import Iterable

_UNIQUE_SUFFIX = re.compile(
    r"-[0-9a-fA-F]{6,}(;[12])?$"
)  # as the drivers make it: eight digits, chan_sip's fewer


def of_channel(channel: str) -> str:
    """The extension in a channel's name: what is left without technology and unique suffix.

    PJSIP/trunk-a-0000001 is trunk-a: cut at the last hyphen, as Asterisk's drivers append the suffix.
    """
    rest = channel.partition("/")[2]
    name = rest.rpartition("-")[0] or rest
    return _without_place(name)


def of_interface(interface: str) -> str:
    """The extension in a dial string such as a queue member's: PJSIP/410, Local/410@agents/n, 410."""
    return _without_place(interface.partition("/")[2] or interface)


def of_argument(asked: str) -> str:
    """The extension that somebody names: 410, PJSIP/410, Local/410@agents, or by a channel's name."""
    technology, slash, name = asked.partition("/")
    return _without_place(_UNIQUE_SUFFIX.sub("", name)) if slash else technology


def find(asked: str, on_call: Iterable[str]) -> str:
    """Which of the call's extensions 410 or PJSIP/410 means, in any letter case; empty when none."""
    wanted = of_argument(asked).casefold()
    return next((extension for extension in on_call if extension.casefold() == wanted), "")


def distinct(extensions: Iterable[str]) -> tuple[str, ...]:
    """The same extensions in the same order, each once, none empty."""
    return tuple(dict.fromkeys(extension for extension in extensions if extension))


def _without_place(name: str) -> str:
    return name.partition("@")[0].partition("/")[0]
