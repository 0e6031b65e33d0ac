"""The recording follows the call: a leg for each conversation, on real Asterisks, with SIP telephones."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lab import manager, office, tones, transitions
from lab.office import ANN, CARL, CUSTOMER, PLACES, TALK_SECONDS, TONES, Office, Played
from lab.served import Served
from lab.transitions import ALONE, CONSULTING, NO_TRANSITIONS, STOPPED, TAKEN, TRANSITIONS, Leg, legs_of

pytestmark = pytest.mark.asterisk

LOUD, FAINT = 0.12, 0.03  # a telephone's tone has 0.24
FRAME_MS = 20
# The goals for what is lost between two legs. No test is stricter than three times of them.
LONGEST_SECONDS, MEDIAN_SECONDS = 0.1, 0.04
LENIENCE = 3
# Of a new person's frames, between his first word and the server's answer to the event: LATE_FRAMES where
# nobody else works on the machine. Beside other tests the server may be as late as he talks, and no more.
LATE_FRAMES = 2 * LENIENCE
LATE_MS = round(TALK_SECONDS * 1000)
CALLS = [(name, place) for name in TRANSITIONS for place in PLACES]
AT_EACH_PLACE = pytest.mark.parametrize("place", PLACES)


@pytest.fixture(
    scope="module", params=[pytest.param(22, id="asterisk22"), pytest.param(16, id="asterisk16")], name="at"
)
def office_of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    with ExitStack() as stack:
        yield office.office(request.param, tmp_path_factory.mktemp("office"), stack)


# ---- What is to be heard


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


def assert_heard(leg: dict[str, Any], pair: frozenset[str]) -> None:
    """Both, for as long as they have talked; nobody else, but the next one until the leg has ended."""
    assert max(levels(leg, CONSULTING) + levels(leg, ALONE)) < FAINT
    before = slice(None, -LATE_MS // 100 - 1)
    assert [each for each in strangers(pair) if max(levels(leg, each)[before], default=0.0) > FAINT] == []
    assert late_frames(leg, pair) <= LATE_MS // FRAME_MS
    seconds = sum(frames_of_both(leg, pair)) * FRAME_MS / 1000
    assert seconds > TALK_SECONDS - LENIENCE * LONGEST_SECONDS


def assert_legs(played: Played, tag: str, expected: list[Leg]) -> None:
    seen = [(leg["leg"], leg["status"], leg["tag"], leg["owner"]) for leg in played.legs]
    wanted = [(number, "completed", tag, leg.owner) for number, leg in enumerate(expected, 1)]
    assert seen == wanted
    assert len({leg["call_record_id"] for leg in played.legs}) == 1
    for leg, each in zip(played.legs, expected, strict=True):
        assert_heard(leg, each.pair)


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


@AT_EACH_PLACE
@pytest.mark.parametrize("name", TAKEN)
def test_who_answers_in_place_of_another_owns_what_he_says(at: Office, name: str, place: str) -> None:
    """At the customer's end the recording has begun for Ann, before anybody was called."""
    played = office.play(at, TAKEN[name], place)

    of_carl = [leg for leg in played.legs if max(levels(leg, TONES[CARL]), default=0.0) > FAINT]
    assert [(leg["status"], leg["tag"], leg["owner"]) for leg in of_carl] == [("completed", "IN", "Carl")]
    assert_heard(of_carl[0], frozenset({CARL, CUSTOMER}))


@AT_EACH_PLACE
@pytest.mark.parametrize("name", NO_TRANSITIONS)
def test_what_is_no_transition_begins_no_leg(at: Office, name: str, place: str) -> None:
    played = office.play(at, NO_TRANSITIONS[name], place)

    assert_legs(played, "IN", legs_of(name, place))


@AT_EACH_PLACE
@pytest.mark.parametrize("name", STOPPED)
def test_what_was_stopped_does_not_begin_again(at: Office, name: str, place: str) -> None:
    played = office.play(at, STOPPED[name], place)

    assert_legs(played, "IN", legs_of(name, place))


def test_an_agent_who_stays_logged_in_has_done_with_the_call_that_he_has_not_any_more(at: Office) -> None:
    played = office.play(at, transitions.agent_of_pool, "pool")

    assert_legs(played, "IN", legs_of("redirect", "customer"))


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
    kept = office.play(at, partial(transitions.to_and_fro, times=8), "customer")
    moved = [office.play(at, partial(transitions.to_and_fro, times=1), "agent") for _ in range(3)]

    assert [leg["owner"] for leg in kept.legs] == ["Ann", *["Carl", "Ann"] * 4]
    with_whom = itertools.cycle((ANN, CARL))
    late = [late_frames(leg, frozenset({CUSTOMER, next(with_whom)})) for leg in kept.legs]
    assert max(late) <= LATE_FRAMES
    stays, goes = gaps(kept), [gap for played in moved for gap in gaps(played)]
    longest, median = max(stays + goes), statistics.median(stays + goes)
    tell(
        f"between two legs of Asterisk {at.exchange.asterisk.installation.version}: longest {_ms(longest)}"
        f" ({_judged(longest, LONGEST_SECONDS)}), median {_ms(median)} ({_judged(median, MEDIAN_SECONDS)});"
        f" median where the recorded channel stays {_ms(statistics.median(stays))} (of {len(stays)}),"
        f" where it leaves {_ms(statistics.median(goes))} (of {len(goes)})"
    )
    assert longest <= LENIENCE * LONGEST_SECONDS
    assert median <= LENIENCE * MEDIAN_SECONDS


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _judged(seconds: float, goal: float) -> str:
    return f"goal {_ms(goal)}: {'reached' if seconds <= goal else 'missed'}"
