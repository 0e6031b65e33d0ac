"""The apiKey, accounts and attachments, as the database keeps them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from integration.recorder import CALL_TIME
from noojee_agi.actions import access
from noojee_agi.database import hearing, settings
from noojee_agi.database.store import Store
from noojee_agi.database.tables import account, account_group, extension_attachment
from noojee_agi.errors import BadArgument, StoreRejected


@pytest.fixture
def people(store: Store) -> Store:
    with store.transaction() as connection:
        settings.add_account(connection, "fred", "Fred", ("Agent", "Recording Manager", "Agent"))
        settings.add_account(connection, "lena", "Lena ☎ O'Neill", ())
    return store


def history(store: Store) -> list[Any]:
    """Extension, login and whether it is open, as they came."""
    attachment = extension_attachment.c
    with store.transaction() as connection:
        rows = connection.execute(
            select(attachment.extension, account.c.login, attachment.detached_at.is_(None))
            .join(account, account.c.id == attachment.account_id)
            .order_by(attachment.attached_at)
        )
        return [(row[0], row[1], bool(row[2])) for row in rows]


def test_there_is_no_key_until_one_is_set_and_then_the_last_one_counts(store: Store) -> None:
    with store.transaction() as connection:
        assert settings.key_digest(connection) == ""

    for key in ("first", "second"):
        with store.transaction() as connection:
            settings.set_key_digest(connection, access.digest(key))

    with store.transaction() as connection:
        digest = settings.key_digest(connection)
    assert access.matches("second", digest)
    assert not access.matches("first", digest)


def test_accounts_are_listed_with_their_groups_and_open_attachments(people: Store) -> None:
    with people.transaction() as connection:
        settings.attach(connection, "fred", "410")
        settings.attach(connection, "fred", "411")
        settings.attach(connection, "lena", "411")
        listed = settings.accounts(connection)

    assert listed == [
        {
            "login": "fred",
            "name": "Fred",
            "enabled": True,
            "groups": ["Agent", "Recording Manager"],
            "extensions": ["410"],
        },
        {"login": "lena", "name": "Lena ☎ O'Neill", "enabled": True, "groups": [], "extensions": ["411"]},
    ]


def test_an_account_cannot_be_added_twice(people: Store) -> None:
    with (
        pytest.raises(BadArgument, match="there is an account fred already"),
        people.transaction() as connection,
    ):
        settings.add_account(connection, "fred", "Another", ("Administrator",))

    with people.transaction() as connection:
        assert settings.accounts(connection)[0]["name"] == "Fred"
        groups = list(connection.scalars(select(account_group.c.group_name)))
    assert "Administrator" not in groups


def test_only_enabled_logins_are_known_to_the_call_path(people: Store) -> None:
    with people.transaction() as connection:
        connection.execute(update(account).where(account.c.login == "lena").values(enabled=False))
        assert hearing.enabled_logins(connection) == {"fred"}


def test_an_extension_passes_from_one_account_to_the_next_and_the_history_stays(people: Store) -> None:
    for login, extension in (("fred", "410"), ("lena", "410"), ("fred", "411")):
        with people.transaction() as connection:
            settings.attach(connection, login, extension)
    with people.transaction() as connection:
        settings.detach(connection, "410")

    assert history(people) == [("410", "fred", False), ("410", "lena", False), ("411", "fred", True)]


def test_attaching_the_same_account_again_leaves_one_open_attachment(people: Store) -> None:
    for _ in range(3):
        with people.transaction() as connection:
            settings.attach(connection, "fred", "410")

    assert [row for row in history(people) if row[2]] == [("410", "fred", True)]


def test_an_extension_cannot_have_two_open_attachments(people: Store) -> None:
    with people.transaction() as connection:
        settings.attach(connection, "fred", "410")

    with pytest.raises(StoreRejected), people.transaction() as connection:
        connection.execute(
            extension_attachment.insert().values(
                extension="410", account_id=settings.account_id("lena"), attached_at=CALL_TIME
            )
        )


def test_one_account_may_have_many_extensions(people: Store) -> None:
    with people.transaction() as connection:
        settings.attach(connection, "fred", "410")
        settings.attach(connection, "fred", "411")

    assert history(people) == [("410", "fred", True), ("411", "fred", True)]


def test_only_an_enabled_account_can_be_attached(people: Store) -> None:
    with people.transaction() as connection:
        connection.execute(update(account).where(account.c.login == "lena").values(enabled=False))
        settings.attach(connection, "fred", "410")

    for login in ("lena", "nobody"):
        with (
            pytest.raises(BadArgument, match=f"no enabled account {login}"),
            people.transaction() as connection,
        ):
            settings.attach(connection, login, "410")

    assert history(people) == [("410", "fred", True)]


def test_nobody_attached_cannot_be_detached(people: Store) -> None:
    with pytest.raises(BadArgument, match="nobody is attached to 410"), people.transaction() as connection:
        settings.detach(connection, "410")
