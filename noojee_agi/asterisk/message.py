"""The lines of the manager interface: a message of Asterisk's, and one of ours."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from noojee_agi import text
from noojee_agi.errors import NoojeeError

_UNSET = "(null)"  # manager.c generate_status() prints this for what is not there
_SEVERAL = ("ChanVariable", "")  # of manager.conf's channelvars; and what stands after the last line
_MAX_LINE_BYTES = 1000  # manager.c discards what is longer than its inbuf, 1025 bytes


class Message(NamedTuple):
    """One message of Asterisk's. variables: those of a channel that a Status event tells.

    marks: its ActionIDs. Asterisk prints names and values as they are, and chan_pjsip decodes %0d%0a in a
    caller's number: so anybody may write further lines into the event of his channel. is_doubtful: he has.
    """

    fields: Mapping[str, str]
    variables: Mapping[str, str] = MappingProxyType({})
    marks: frozenset[str] = frozenset()
    is_doubtful: bool = False

    def get(self, name: str) -> str:
        return self.fields.get(name, "")


def parse(received: bytes) -> Message:
    """A message's lines; of a field that comes twice, the first."""
    fields: dict[str, str] = {}
    values: dict[str, str] = {}
    marks: list[str] = []
    is_doubtful = False
    for line in received.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "Variable" and "=" in value:
            variable, _, content = value.partition("=")
            is_doubtful |= variable in values
            values.setdefault(variable, "" if content == _UNSET else content)
        else:
            is_doubtful |= name in fields and name not in _SEVERAL
            fields.setdefault(name, "" if value == _UNSET else value)
            marks += [value] if name == "ActionID" else []
    return Message(fields, values, frozenset(marks), is_doubtful)


def line(name: str, value: str) -> bytes:
    said = f"{name}: {text.without_controls(value)}".encode("utf-8", "replace")
    if len(said) > _MAX_LINE_BYTES:
        raise NoojeeError(f"{name} exceeds the manager interface's limit of {_MAX_LINE_BYTES} bytes")
    return said
