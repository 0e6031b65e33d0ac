"""A frame of a telephone, which a channel must have handled between two recordings of ours."""

from __future__ import annotations

import time
from collections.abc import Callable

from noojee_agi.asterisk.target import Target
from noojee_agi.errors import ManagerUnavailable

# A frame of a telephone is 20 ms long (RFC 3551, 4.2), with some settings up to 60.
_FRAME_SECONDS = 0.08
_FRAME_POLL_SECONDS = 0.003
_FRAME_PASSES_SECONDS = 0.01  # from Asterisk's counting it until the other end has it


def let_one_pass(target: Target, pause: Callable[[float], None]) -> None:
    """Until each end has heard one of the other; where that is not known, for as long as it may take."""
    ends = [target.channel.name, target.peer.name]
    deadline = time.monotonic() + _FRAME_SECONDS
    try:
        before = target.channel.packets(ends) if all(map(_counts_packets, ends)) else []
        while before and -1 not in before and time.monotonic() < deadline:
            pause(_FRAME_POLL_SECONDS)
            if all(now > then for now, then in zip(target.channel.packets(ends), before, strict=True)):
                pause(_FRAME_PASSES_SECONDS)
                return
    except ManagerUnavailable:
        pass  # the start says so
    pause(max(deadline - time.monotonic(), _FRAME_PASSES_SECONDS))


def _counts_packets(channel: str) -> bool:
    return channel.startswith("PJSIP/")
