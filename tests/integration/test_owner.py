"""Whom a leg belongs to: settled when it is stored, as of the time of the call."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import update

from integration.recorder import CALL_TIME, Recorder, after
from noojee_agi.database import settings
from noojee_agi.database.tables import account, extension_attachment

DAY = 86_400.0


@pytest.fixture
def people(recorder: Recorder) -> Recorder:
    """A recorder whose database knows fred and lena, attached to nothing."""
    with recorder.store.transaction() as connection:
        for login in ("fred", "lena"):
            settings.add_account(connection, login, login.title(), ())
    return recorder


def attach(
    recorder: Recorder, login: str, extension: str, start: datetime, end: datetime | None = None
) -> None:
    recorder.execute(
        extension_attachment.insert().values(
            extension=extension,
            account_id=settings.account_id(login),
            attached_at=start,
            detached_at=end,
        )
    )


def disable(recorder: Recorder, login: str) -> None:
    recorder.execute(update(account).where(account.c.login == login).values(enabled=False))


@pytest.mark.parametrize(
    ("login", "known", "owner"),
    [
        ("fred", True, "fred"),
        (" fred ", True, "fred"),
        ("fred", False, "fred"),
        ("nobody", False, None),
        ("nobody", True, None),
        ("Fred", False, None),
        ("%", False, None),
    ],
    ids=["known", "blanks", "newer than the snapshot", "unknown", "deleted since", "other case", "wildcard"],
)
def test_a_login_that_is_named_owns_the_leg(
    people: Recorder, login: str, known: bool, owner: str | None
) -> None:
    attach(people, "lena", "410", after(-DAY))
    leg = people.leg(agent_login_name=login, agent_known=known)

    people.store_all(leg)

    row = people.the_leg(leg)
    assert (row["owner"], row["agent_login_name"], row["extension"]) == (owner, login, "410")


def test_an_account_disabled_after_the_call_still_owns_it(people: Recorder) -> None:
    leg = people.leg(agent_login_name="fred", agent_known=True)
    disable(people, "fred")

    people.store_all(leg)

    assert people.the_leg(leg)["owner"] == "fred"


def test_an_account_disabled_before_the_call_owns_nothing(people: Recorder) -> None:
    leg = people.leg(agent_login_name="fred", agent_known=False)
    disable(people, "fred")

    people.store_all(leg)

    assert people.the_leg(leg)["owner"] is None


def test_the_account_attached_at_the_calls_time_owns_it_although_the_drain_comes_days_later(
    people: Recorder,
) -> None:
    attach(people, "fred", "410", after(-DAY), after(30))
    attach(people, "lena", "410", after(30))
    leg = people.leg()

    people.store_all(leg)

    assert people.the_leg(leg)["owner"] == "fred"


@pytest.mark.parametrize(
    ("start", "end", "owner"),
    [
        (-DAY, None, "fred"),
        (0, None, "fred"),
        (0.000001, None, None),
        (-DAY, 0, None),
        (-DAY, 0.000001, "fred"),
        (-DAY, -1, None),
        (1, 2, None),
    ],
    ids=["still", "just now", "just after", "until just now", "until just after", "before", "later"],
)
def test_an_attachment_counts_from_its_start_until_just_before_its_end(
    people: Recorder, start: float, end: float | None, owner: str | None
) -> None:
    attach(people, "fred", "410", after(start), None if end is None else after(end))
    leg = people.leg()

    people.store_all(leg)

    assert people.the_leg(leg)["owner"] == owner


@pytest.mark.parametrize(
    ("asked", "extensions", "owner", "filed_under"),
    [
        ("", ("410", "600"), "fred", "410"),
        ("", ("600", "410"), "lena", "600"),
        ("", ("999", "600", "410"), "lena", "600"),
        ("999", ("999", "600", "410"), "lena", "999"),
        ("600", ("600", "410"), "lena", "600"),
        ("", ("999", "998"), None, "999"),
        ("", (), None, ""),
    ],
)
def test_the_first_extension_of_the_call_that_is_attached_gives_the_owner(
    people: Recorder, asked: str, extensions: tuple[str, ...], owner: str | None, filed_under: str
) -> None:
    attach(people, "fred", "410", after(-DAY))
    attach(people, "lena", "600", after(-DAY))
    leg = people.leg(extension=asked, extensions=extensions)

    people.store_all(leg)

    row = people.the_leg(leg)
    assert (row["owner"], row["extension"]) == (owner, filed_under)


def test_each_leg_of_a_call_has_its_own_owner(people: Recorder) -> None:
    attach(people, "fred", "410", after(-DAY))
    attach(people, "lena", "411", after(-DAY))
    legs = [
        people.leg(extensions=(extension,), started_at=after(int(extension)))
        for extension in ("410", "411", "412")
    ]

    people.store_all(*legs)

    assert [row["owner"] for row in people.legs()] == ["fred", "lena", None]
    people.assert_side_cars_tell_the_same()


def test_the_owner_stays_when_the_event_comes_again_after_a_change(people: Recorder) -> None:
    attach(people, "fred", "410", after(-DAY))
    leg = people.leg()
    people.store_all(leg)
    people.execute(update(extension_attachment).values(account_id=settings.account_id("lena")))

    people.store_all(leg)

    assert people.the_leg(leg)["owner"] == "fred"


def test_an_attached_extension_of_a_disabled_account_is_not_hidden_from_the_history(people: Recorder) -> None:
    """Who was attached at the call's time took the call."""
    attach(people, "fred", "410", CALL_TIME)
    disable(people, "fred")
    leg = people.leg()

    people.store_all(leg)

    assert people.the_leg(leg)["owner"] == "fred"


def test_each_leg_of_a_batch_has_the_owner_of_its_own_time_and_login(people: Recorder) -> None:
    attach(people, "fred", "410", after(0), after(10))
    attach(people, "lena", "410", after(10))
    attach(people, "fred", "420", after(20))
    disable(people, "lena")
    legs = [
        people.leg(call_uniqueid=f"17.{number}", started_at=after(second), extensions=extensions, **named)
        for number, (second, extensions, named) in enumerate(
            [
                (-1, ("410",), {}),
                (0, ("420", "410"), {}),
                (10, ("410",), {}),
                (20, ("420", "410"), {}),
                (20, (), {"agent_login_name": "lena", "agent_known": True}),
                (20, ("420",), {"agent_login_name": "lena", "agent_known": False}),
            ]
        )
    ]

    people.store_all(*legs)

    owners = {row["id"]: row["owner"] for row in people.legs()}
    assert [owners[leg.id] for leg in legs] == [None, "fred", "lena", "fred", "lena", None]
