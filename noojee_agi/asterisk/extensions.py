"""Channel name -> extension, and which extensions are on this call."""

import re
from collections.abc import Iterable

# As chan_pjsip.c, chan_sip.c and core_local.c make it.
_UNIQUE_SUFFIX = re.compile(r"-[0-9a-fA-F]{8}(;[12])?$")


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


def named(asked: str, on_call: Iterable[str]) -> str:
    """The extension that somebody names: 410, PJSIP/410, Local/410@agents, or by a channel's name; in any
    letter case, as the call has it if it is on it.
    """
    technology, slash, name = asked.partition("/")
    if not slash:
        return _known(technology, on_call) or technology
    without_suffix = _without_place(_UNIQUE_SUFFIX.sub("", name))
    whole, short = _without_place(name), of_channel(asked)
    return _known(whole, on_call) or _known(short, on_call) or without_suffix


def _known(wanted: str, on_call: Iterable[str]) -> str:
    return next((each for each in on_call if each.casefold() == wanted.casefold()), "")


def distinct(extensions: Iterable[str]) -> tuple[str, ...]:
    """The same extensions in the same order, each once, none empty."""
    return tuple(dict.fromkeys(filter(None, extensions)))


def _without_place(name: str) -> str:
    return name.partition("@")[0].partition("/")[0]
