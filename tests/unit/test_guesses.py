"""Wrong keys of HTTP: ten in a minute from one place, a minute's pause, and little memory for all of it."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Sequence

import pytest

from noojee_agi.web import guesses
from noojee_agi.web.guesses import Guesses

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"
MOST, SECONDS = 10, 60.0
MEGABYTES = 24  # 14 were seen


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guessed(clock: Clock) -> Guesses:
    return Guesses(clock)


def guess(guessed: Guesses, count: int, address: str = HERE) -> None:
    for _ in range(count):
        guessed.add(address)


def test_nine_are_borne_and_the_tenth_begins_a_minute(guessed: Guesses, clock: Clock) -> None:
    guess(guessed, MOST - 1)
    assert guessed.seconds_blocked(HERE) == 0

    guess(guessed, 1)

    assert guessed.seconds_blocked(HERE) == SECONDS
    clock.now += 59
    assert guessed.seconds_blocked(HERE) == 1
    clock.now += 1
    assert guessed.seconds_blocked(HERE) == 0


def test_after_the_minute_it_begins_anew(guessed: Guesses, clock: Clock) -> None:
    guess(guessed, MOST)
    clock.now += SECONDS
    guess(guessed, MOST - 1)
    assert guessed.seconds_blocked(HERE) == 0
    guess(guessed, 1)
    assert guessed.seconds_blocked(HERE) == SECONDS


@pytest.mark.parametrize(
    ("pause", "is_blocked"),
    [(0.0, True), (6.6, True), (6.7, False), (30.0, False)],
)
def test_only_ten_within_one_minute_count(
    guessed: Guesses, clock: Clock, pause: float, is_blocked: bool
) -> None:
    for _ in range(MOST):
        guessed.add(HERE)
        clock.now += pause
    assert bool(guessed.seconds_blocked(HERE)) == is_blocked


def test_one_who_guesses_slowly_for_ever_is_blocked_once_he_hurries(guessed: Guesses, clock: Clock) -> None:
    for _ in range(50):
        guessed.add(HERE)
        clock.now += 10
    assert not guessed.seconds_blocked(HERE)
    guess(guessed, MOST)
    assert guessed.seconds_blocked(HERE)


def test_an_address_answers_for_itself_alone(guessed: Guesses) -> None:
    guess(guessed, MOST)
    guess(guessed, MOST - 1, ELSEWHERE)
    assert guessed.seconds_blocked(HERE)
    assert not guessed.seconds_blocked(ELSEWHERE)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:0DB8:0000:0000::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::1", "192.0.2.1", False),
        ("", "192.0.2.1", False),
    ],
)
def test_a_place_is_an_address_or_a_network_of_ipv6(
    guessed: Guesses, one: str, other: str, is_same: bool
) -> None:
    guess(guessed, MOST, one)
    assert bool(guessed.seconds_blocked(other)) == is_same


def test_guesses_from_all_over_such_a_network_are_counted_together(guessed: Guesses) -> None:
    for number in range(MOST):
        guessed.add(f"2001:db8::{number:x}")
    assert guessed.seconds_blocked("2001:db8::abcd")


def test_what_was_right_is_no_guess(guessed: Guesses) -> None:
    """A key that had to be looked up counts until it is known: nobody with the right one is blocked by it."""
    for _ in range(5 * MOST):
        guessed.add(HERE)
        guessed.forgive(HERE)
    assert not guessed.seconds_blocked(HERE)


def test_a_right_key_that_was_counted_as_the_tenth_ends_the_minute(guessed: Guesses) -> None:
    guess(guessed, MOST)
    guessed.forgive(HERE)
    assert not guessed.seconds_blocked(HERE)


def test_forgiving_takes_one_guess_away_and_no_more(guessed: Guesses) -> None:
    guess(guessed, MOST - 1)
    guessed.forgive(HERE)
    guess(guessed, 1)
    assert not guessed.seconds_blocked(HERE)
    guess(guessed, 1)
    assert guessed.seconds_blocked(HERE)


def test_forgiving_one_who_is_not_known_does_nothing(guessed: Guesses) -> None:
    guessed.forgive(HERE)
    assert not guessed.seconds_blocked(HERE)


@pytest.mark.parametrize("each", [1, MOST], ids=["a guess each", "blocked each"])
def test_a_million_addresses_take_little_memory(
    guessed: Guesses, each: int, is_long: bool, tell: Callable[[str], None]
) -> None:
    """The usual run has some more than are kept: what is beyond that is the same again."""
    count = 1_000_000 if is_long else 12_000
    tracemalloc.start()
    try:
        for number in range(count):
            guess(guessed, each, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    tell(f"wrong keys from {count} addresses, {each} each, are remembered in {megabytes:.0f} MB at most")
    assert megabytes < MEGABYTES


def test_those_who_guessed_last_are_remembered(guessed: Guesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "_ADDRESSES", 3)
    addresses: Sequence[str] = [f"192.0.2.{number}" for number in range(5)]
    for address in addresses:
        guess(guessed, MOST, address)
    assert [bool(guessed.seconds_blocked(address)) for address in addresses] == [False] * 2 + [True] * 3


def test_no_text_that_stands_for_an_address_is_kept_at_length(guessed: Guesses) -> None:
    guess(guessed, MOST, f"fe80::1%{'x' * 10_000}")
    assert sys.getsizeof(next(iter(guessed._blocked_until))) < 200
