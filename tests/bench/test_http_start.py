"""A start by HTTP beside the same start by a command, for which a Python begins each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import http_start, places
from bench.http_start import AMI, COMMAND, HTTP, Milliseconds

GOAL, LIMIT = 0.1, 0.5  # of `noojee-agi record start`
ATTEMPTS = 3
STARTS, COMMANDS = 16, 3

pytestmark = [pytest.mark.asterisk, pytest.mark.alone, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def found(is_long: bool) -> Milliseconds:
    with places.make() as where, http_start.office(where, http_start.STARTS if is_long else STARTS) as at:
        if is_long:
            measured = http_start.measure(at)
        else:
            for _ in range(ATTEMPTS):
                measured = http_start.measure(at, 1, (1, 8), STARTS, COMMANDS)
                if http_start.ratio(measured, 1, HTTP, COMMAND) <= LIMIT:
                    break
    print(http_start.text(measured))
    return measured


def test_a_start_by_http_takes_a_tenth_of_the_command(
    found: Milliseconds, tell: Callable[[str], None]
) -> None:
    for at_once in sorted({count for _, count in found}):
        of_command, of_ami = (http_start.ratio(found, at_once, HTTP, other) for other in (COMMAND, AMI))
        verdict = f"goal {GOAL:g}: {'reached' if of_command <= GOAL else 'missed'}"
        figures = f"{of_command:.3f} of record start ({verdict}), {of_ami:.1f} of AMI alone"
        tell(f"a start by HTTP, {at_once} at once: {figures}")
    assert http_start.ratio(found, 1, HTTP, COMMAND) <= LIMIT
