"""What a FastAGI session asks for: agi://host/start_record,410 or agi://host/start_record?tag=INV-22."""

from __future__ import annotations

from itertools import count, takewhile
from urllib.parse import parse_qsl

from noojee_agi import text
from noojee_agi.asterisk.channel import Channel
from noojee_agi.errors import BadArgument
from noojee_agi.session.session import ACTIONS, Invocation

_MAX_PAIRS = 20


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
