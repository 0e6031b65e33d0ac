"""Who may hear a leg; tests/integration/test_hearing.py holds it against the same rule in SQL."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from noojee_agi.recordings import people
from noojee_agi.recordings.people import People, Stay, Team

JOINED = datetime(2026, 3, 1, 9, tzinfo=timezone.utc)
LEFT = JOINED + timedelta(hours=8)
BACK = LEFT + timedelta(days=1)
MOMENT = timedelta(microseconds=1)
SALES = Team(
    frozenset({"lea", "off"}),
    {
        "lea": (Stay(BACK, None),),
        "off": (Stay(JOINED, None),),
        "fred": (Stay(JOINED, LEFT), Stay(BACK, None)),
    },
)
SUPPORT = Team(frozenset({"sue"}), {"sue": (Stay(JOINED, None),), "ann": (Stay(JOINED, None),)})
HOUSE = People(
    frozenset({"admin", "lea", "sue", "fred", "ann"}), frozenset({"admin", "gone"}), (SALES, SUPPORT)
)


@pytest.mark.parametrize(
    ("login", "owner", "moment", "may"),
    [
        ("admin", "fred", JOINED, True),
        ("admin", None, JOINED, True),
        ("admin", "", JOINED, True),
        ("gone", "fred", JOINED, False),
        ("gone", "gone", JOINED, False),
        ("unknown", "unknown", JOINED, False),
        ("", "", JOINED, False),
        ("", None, JOINED, False),
        ("fred", "fred", JOINED, True),
        ("fred", "FRED", JOINED, False),
        ("fred", None, JOINED, False),
        ("fred", "lea", BACK, False),
        ("lea", "fred", JOINED - MOMENT, False),
        ("lea", "fred", JOINED, True),
        ("lea", "fred", LEFT - MOMENT, True),
        ("lea", "fred", LEFT, False),
        ("lea", "fred", BACK, True),
        ("lea", "ann", BACK, False),
        ("lea", None, BACK, False),
        ("sue", "ann", BACK, True),
        ("sue", "fred", BACK, False),
        ("off", "fred", JOINED, False),
    ],
)
def test_who_may_hear(login: str, owner: str | None, moment: datetime, may: bool) -> None:
    assert people.may_hear(login, owner, moment, HOUSE) is may


def test_teams_are_the_same_again_after_json() -> None:
    assert people.from_json(people.as_json((SALES, SUPPORT))) == (SALES, SUPPORT)
    assert people.as_json((SALES,))[0]["stays"]["fred"] == (
        "2026-03-01T09:00:00+00:00/2026-03-01T17:00:00+00:00 2026-03-02T17:00:00+00:00/"
    )
