"""The recording follows the call: a leg for each conversation, on real Asterisks, with SIP telephones."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from functools import partial

import pytest
from lab import manager, office, transitions
from lab.heard import FAINT, FRAME_MS, LOUD, assert_heard, assert_legs, frames_of_both, late_frames, levels
from lab.office import ANN, CARL, CUSTOMER, PLACES, TONES, Office, Played
from lab.served import Served
from lab.transitions import TRANSITIONS, legs_of

pytestmark = pytest.mark.asterisk

# The goals for what is lost between two legs. No test is stricter than three times of them.
LONGEST_SECONDS, MEDIAN_SECONDS = 0.1, 0.04
LENIENCE = 3
MOST_SECONDS, MOST_MEDIAN_SECONDS = LENIENCE * LONGEST_SECONDS, LENIENCE * MEDIAN_SECONDS
# Of a new person's frames, between his first word and the server's answer to the event: where nobody else
# works on the machine.
LATE_FRAMES = 2 * LENIENCE
ATTEMPTS = 5  # others on the machine may spoil one
CALLS = [(name, place) for name in TRANSITIONS for place in PLACES]


def gaps(played: Played) -> list[float]:
    """From when two talk, as Asterisk says, to when both are heard in their leg; without the first leg's."""
    talks = [talk for talk in played.talks if CUSTOMER in talk.pair]
    heard = [
        begun + frames_of_both(leg, talk.pair).index(True) * FRAME_MS / 1000 - talk.since
        for leg, talk, begun in zip(played.legs, talks, played.begun, strict=True)
    ]
    return heard[1:]


# ---- Transitions


@pytest.mark.parametrize(("name", "place"), CALLS)
def test_each_conversation_has_its_leg(at: Office, name: str, place: str) -> None:
    """In half of them Carl's packets are numbered behind Ann's: Asterisk 22 left him out then."""
    office.number_packets(at, is_ahead=sum(divmod(CALLS.index((name, place)), len(PLACES))) % 2 == 1)

    played = office.play(at, TRANSITIONS[name], place)

    assert_legs(played, "OUT" if name == "outbound" else "IN", legs_of(name, place))


def test_who_is_parked_by_the_dialplan_is_recorded_when_somebody_fetches_him(at: Office) -> None:
    played = office.play(at, transitions.parked_by_the_dialplan, "customer")

    of_nobody, of_carl = played.legs
    assert (of_nobody["owner"], of_carl["owner"], of_carl["tag"]) == (None, "Carl", "IN")
    assert max(levels(of_nobody, transitions.ALONE), default=0.0) < FAINT
    assert_heard(of_carl, frozenset({CARL, CUSTOMER}))


def test_without_following_there_is_one_leg(at: Office) -> None:
    """It ends with the call at the customer's end, and with Ann at hers."""
    office.number_packets(at, is_ahead=True)
    at.server.stop()
    options = {**manager.options(at.exchange.port), "recordings.follow": "no"}
    try:
        with Served(at.exchange.site, options):
            played = [office.play(at, TRANSITIONS["blind transfer"], place) for place in PLACES]
    finally:
        at.server.start()

    legs = [leg for each in played for leg in each.legs]
    assert [(leg["leg"], leg["owner"]) for leg in legs] == [(1, "Ann"), (1, "Ann")]
    assert [max(levels(leg, TONES[CARL])) > LOUD for leg in legs] == [True, False]


@pytest.mark.alone
def test_how_long_nothing_is_recorded(at: Office, tell: Callable[[str], None]) -> None:
    office.number_packets(at, is_ahead=False)
    for _ in range(ATTEMPTS):
        kept = office.play(at, partial(transitions.to_and_fro, times=8), "customer")
        moved = [office.play(at, partial(transitions.to_and_fro, times=1), "agent") for _ in range(3)]
        assert [leg["owner"] for leg in kept.legs] == ["Ann", *["Carl", "Ann"] * 4]
        with_whom = itertools.cycle((ANN, CARL))
        late = max(late_frames(leg, frozenset({CUSTOMER, next(with_whom)})) for leg in kept.legs)
        stays, goes = gaps(kept), [gap for played in moved for gap in gaps(played)]
        longest, median = max(stays + goes), statistics.median(stays + goes)
        if late <= LATE_FRAMES and longest <= MOST_SECONDS and median <= MOST_MEDIAN_SECONDS:
            break

    tell(
        f"between two legs of Asterisk {at.exchange.asterisk.installation.version}: longest {_ms(longest)}"
        f" ({_judged(longest, LONGEST_SECONDS)}), median {_ms(median)} ({_judged(median, MEDIAN_SECONDS)});"
        f" median where the recorded channel stays {_ms(statistics.median(stays))} (of {len(stays)}),"
        f" where it leaves {_ms(statistics.median(goes))} (of {len(goes)})"
    )
    assert late <= LATE_FRAMES
    assert longest <= MOST_SECONDS
    assert median <= MOST_MEDIAN_SECONDS


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _judged(seconds: float, goal: float) -> str:
    return f"goal {_ms(goal)}: {'reached' if seconds <= goal else 'missed'}"
