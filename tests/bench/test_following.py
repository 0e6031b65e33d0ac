"""To follow recordings costs next to nothing where none is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import following, places
from bench.following import Turns

MOST_OF_A_PROCESSOR = 0.1  # 0.02 was seen
NOISE = 1.3

pytestmark = [pytest.mark.asterisk, pytest.mark.alone, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def turns(is_long: bool) -> Turns:
    if not is_long:
        pytest.skip("takes minutes: run with --long")
    with places.in_memory() as where:
        measured = following.measure(where)
    print(following.text(measured))
    return measured


def test_to_follow_takes_next_to_nothing_of_the_processor(turns: Turns, tell: Callable[[str], None]) -> None:
    more = following.share(turns, "yes") - following.share(turns, "no")
    tell(f"to follow recordings, where none is, takes {more * 100:.1f} % of a processor")
    assert more <= MOST_OF_A_PROCESSOR


def test_a_start_beside_it_is_held_as_long_as_without(turns: Turns) -> None:
    assert following.held(turns, "yes") <= NOISE * following.held(turns, "no")
