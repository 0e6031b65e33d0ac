"""Where a recording follows nobody: another one has answered, no transition, and what was stopped."""

from __future__ import annotations

import pytest
from lab import office, transitions
from lab.heard import FRAME_MS, assert_heard, assert_legs, is_heard, late_frames, late_ms
from lab.office import ANN, CARL, CUSTOMER, PLACES, Office
from lab.transitions import NO_TRANSITIONS, STOPPED, TAKEN, legs_of

pytestmark = pytest.mark.asterisk

AT_EACH_PLACE = pytest.mark.parametrize("place", PLACES)


@AT_EACH_PLACE
@pytest.mark.parametrize("name", TAKEN)
def test_who_answers_in_place_of_another_owns_what_he_says(at: Office, name: str, place: str) -> None:
    """At the customer's end the recording has begun for Ann, before anybody was called."""
    played = office.play(at, TAKEN[name], place)

    *_, of_carl = [leg for leg in played.legs if is_heard(leg, CARL)]
    assert (of_carl["status"], of_carl["tag"], of_carl["owner"]) == ("completed", "IN", "Carl")
    assert_heard(of_carl, frozenset({CARL, CUSTOMER}))
    pair = frozenset({ANN, CUSTOMER})
    for number, leg in enumerate(played.legs):
        assert leg is of_carl or late_frames(leg, pair) <= late_ms(played, number, pair) / FRAME_MS


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
