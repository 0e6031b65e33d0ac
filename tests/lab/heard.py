"""What is to be heard in the legs of an office's call: both who talk in it, and nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import tones
from lab.office import TALK_SECONDS, TONES, Played
from lab.transitions import ALONE, CONSULTING, Leg

LOUD, FAINT = 0.12, 0.03  # a telephone's tone has 0.24
FRAME_MS = 20
# Of a new person's frames, beyond those that he had sent when the leg ended: less than he talks after that.
LATE_MS = round(TALK_SECONDS * 1000 / 2)
MISSED_SECONDS = 0.3  # of what two have said, at most


def levels(leg: dict[str, Any], hertz: int, milliseconds: int = 100) -> list[float]:
    return tones.levels(Path(leg["file"]), hertz, milliseconds)


def frames_of_both(leg: dict[str, Any], pair: frozenset[str]) -> list[bool]:
    """In which frames both are heard."""
    one, other = (levels(leg, TONES[party], FRAME_MS) for party in pair)
    return [min(both) > LOUD for both in zip(one, other, strict=True)]


def strangers(pair: frozenset[str]) -> list[int]:
    """Their tones."""
    return [hertz for party, hertz in TONES.items() if party not in pair]


def late_frames(leg: dict[str, Any], pair: frozenset[str]) -> int:
    """In how many somebody else is heard."""
    return sum(level > LOUD for hertz in strangers(pair) for level in levels(leg, hertz, FRAME_MS))


def late_ms(played: Played, number: int, pair: frozenset[str]) -> float:
    """For how long others may be heard in this leg: they talked before it ended, as Asterisk says.

    On a busy machine the server is late; what a recording loses by that is told by test_following.py.
    """
    begun = played.begun[number]
    end = min((each for each in (*played.begun, *played.stopped) if each > begun), default=0.0)
    others = [talk for talk in played.talks if not talk.pair <= pair]
    seconds = [min(talk.until or end, end) - max(talk.since, begun) for talk in others]
    return LATE_MS + 1000 * sum(each for each in seconds if each > 0)


def is_heard(leg: dict[str, Any], party: str) -> bool:
    return max(levels(leg, TONES[party]), default=0.0) > FAINT


def assert_heard(leg: dict[str, Any], pair: frozenset[str], late: float = LATE_MS) -> None:
    """Both, for as long as they have talked; nobody else, but the next one until the leg has ended.

    late: for so many ms.
    """
    assert max(levels(leg, CONSULTING) + levels(leg, ALONE)) < FAINT
    before = slice(None, -round(late) // 100 - 1)
    assert [each for each in strangers(pair) if max(levels(leg, each)[before], default=0.0) > FAINT] == []
    assert late_frames(leg, pair) <= late / FRAME_MS
    seconds = sum(frames_of_both(leg, pair)) * FRAME_MS / 1000
    assert seconds > TALK_SECONDS - MISSED_SECONDS


def assert_legs(played: Played, tag: str, expected: Sequence[Leg]) -> None:
    seen = [(leg["leg"], leg["status"], leg["tag"], leg["owner"]) for leg in played.legs]
    wanted = [(number, "completed", tag, leg.owner) for number, leg in enumerate(expected, 1)]
    assert seen == wanted
    assert len({leg["call_record_id"] for leg in played.legs}) == 1
    for number, (leg, each) in enumerate(zip(played.legs, expected, strict=True)):
        assert_heard(leg, each.pair, late_ms(played, number, each.pair))
