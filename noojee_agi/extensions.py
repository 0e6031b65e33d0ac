"""Channel name -> extension, and which extensions are on this call."""

from collections.abc import Iterable


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


def find(asked: str, on_call: Iterable[str]) -> str:
    """Which of the call's extensions 410 or PJSIP/410 means, in any letter case; empty when none."""
    wanted = of_interface(asked).casefold()
    return next((extension for extension in on_call if extension.casefold() == wanted), "")


def distinct(extensions: Iterable[str]) -> tuple[str, ...]:
    """The same extensions in the same order, each once, none empty."""
    return tuple(dict.fromkeys(extension for extension in extensions if extension))


def _without_place(name: str) -> str:
    return name.partition("@")[0].partition("/")[0]
