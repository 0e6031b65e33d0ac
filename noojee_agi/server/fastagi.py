"""What a FastAGI session asks for: agi://host/start_record,410 or agi://host/start_record?tag=INV-22."""

from __future__ import annotations

import re
from itertools import count, takewhile
from urllib.parse import parse_qsl

from noojee_agi import text
from noojee_agi.asterisk import target, variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.errors import BadArgument
from noojee_agi.session.session import ACTIONS, Invocation

_ASKED = (variables.API_KEY, *target.READ)
_END = "!"  # behind the last mark
_MAX_PAIRS = 20
_MAX_LINES = 500  # of an environment
_BLANK_LINE = re.compile(rb"\n\r?\n")
_VALUE = re.compile(rb"^200 result=1 \(", re.MULTILINE)
_OTHER_REPLY = re.compile(rb"^\d{3}(?! result=1 \().*\n", re.MULTILINE)


def environment_end(received: bytes | bytearray) -> int:
    """Where the AGI environment has ended in what came; 0 when it has not yet. Raises ValueError."""
    found = _BLANK_LINE.search(received)
    end = found.end() if found else 0
    if received.count(b"\n", 0, end) > _MAX_LINES:
        raise ValueError("no Asterisk says as much")
    return end


def question(mark: str) -> bytes:
    """Asks for the apiKey, before a session begins, and for all that a session asks first, so that it need
    not ask again. mark: stands between the values, so none of them may know it.
    """
    expression = mark.join(f"${{{name}}}" for name in _ASKED)
    return f'GET FULL VARIABLE "{expression}{mark}{_END}"\n'.encode()


def answered(received: bytes, environment_end: int, mark: str) -> tuple[bytes, dict[str, str]] | None:
    """What is left without the answer, and the values in it; None when that has not come yet.

    Lines that are no replies, such as HANGUP, are the session's. Raises ValueError for another reply.
    """
    came = received[environment_end:]
    before, found, after = came.partition(f"{mark}{_END})\n".encode())
    value = _VALUE.search(before)
    if _OTHER_REPLY.search(before[: value.start()] if value else before):
        raise ValueError("a reply that cannot be")
    if not found:
        return None
    if not value:
        raise ValueError("a mark without a reply")
    values = before[value.end() :].decode("utf-8", "replace").split(mark)
    told = dict(zip(_ASKED, values, strict=True))
    return received[:environment_end] + before[: value.start()] + after, told


def invocation_of(channel: Channel) -> Invocation:
    """The program, its arguments and its query. Raises BadArgument.

    Asterisk passes the request on as it is written, nothing decoded (res_agi.c launch_netscript).
    """
    path, _, query = channel.environment.get("agi_network_script", "").strip().partition("?")
    program = path.strip("/").removesuffix(".py")
    if program not in ACTIONS:
        raise BadArgument(f"there is no program {text.plain(path)}, only {', '.join(ACTIONS)}")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PAIRS)
    except ValueError as exc:
        raise BadArgument(f"more than {_MAX_PAIRS} arguments after the question mark") from exc
    names = takewhile(channel.environment.__contains__, (f"agi_arg_{number}" for number in count(1)))
    return Invocation(program, [channel.environment[name] for name in names], pairs)
