"""The apiKey: salted, compared, refused with the next step, and never shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from noojee_agi.actions import access
from noojee_agi.errors import KeyRefused
from noojee_agi.recordings.snapshot import Knowledge
from unit.fakes import KEY, FakeDatabase, Site, age_snapshot


def test_two_digests_of_one_key_differ_and_both_match() -> None:
    first, second = access.digest(KEY), access.digest(KEY)

    assert first != second
    assert access.matches(KEY, first)
    assert access.matches(KEY, second)


def test_a_digest_does_not_show_the_key() -> None:
    stored = access.digest(KEY)

    assert KEY not in stored
    assert KEY.encode().hex() not in stored


@pytest.mark.parametrize("key", ["", "x", KEY + " ", KEY[:-1], KEY.upper(), "\u00fc", KEY + "\x00"])
def test_another_key_does_not_match(key: str) -> None:
    assert not access.matches(key, access.digest(KEY))


@pytest.mark.parametrize("key", ["\u00fcber", "\u7530\u4e2d", "a b", "x" * 1000, '"\\$'])
def test_any_text_can_be_a_key(key: str) -> None:
    assert access.matches(key, access.digest(key))


DAMAGED: dict[str, Callable[[str, str, str], str]] = {
    "nothing": lambda scheme, salt, mac: "",
    "the key itself": lambda scheme, salt, mac: KEY,
    "a plain scheme": lambda scheme, salt, mac: f"plain${salt}${KEY}",
    "an unknown scheme": lambda scheme, salt, mac: f"md5${salt}${mac}",
    "no scheme": lambda scheme, salt, mac: f"${salt}${mac}",
    "no digest": lambda scheme, salt, mac: f"{scheme}${salt}",
    "an empty digest": lambda scheme, salt, mac: f"{scheme}${salt}$",
    "no salt": lambda scheme, salt, mac: f"{scheme}$${mac}",
    "salt and digest exchanged": lambda scheme, salt, mac: f"{scheme}${mac}${salt}",
    "a digest cut off": lambda scheme, salt, mac: f"{scheme}${salt}${mac[:-1]}",
    "a digest with more": lambda scheme, salt, mac: f"{scheme}${salt}${mac}00",
    "a salt cut off": lambda scheme, salt, mac: f"{scheme}${salt[:-1]}${mac}",
    "a salt that is not hexadecimal": lambda scheme, salt, mac: f"{scheme}$salt${mac}",
    "a digest that is not ASCII": lambda scheme, salt, mac: f"{scheme}${salt}$\u00fc{mac}",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_or_foreign_digest_matches_no_key(damage: str) -> None:
    scheme, salt, mac = access.digest(KEY).split("$")

    assert not access.matches(KEY, DAMAGED[damage](scheme, salt, mac))


def _knowledge(site: Site) -> Knowledge:
    return Knowledge(site.config.snapshot_file, lambda: site.database(site.config))


def test_the_right_key_passes_without_the_database(tmp_path: Path) -> None:
    site = Site(tmp_path)
    age_snapshot(site.config, 86400)

    access.require_key(KEY, _knowledge(site))

    assert site.database.times_read == 0


def test_a_key_that_was_just_changed_passes_after_one_look_at_the_database(tmp_path: Path) -> None:
    site = Site(tmp_path)
    age_snapshot(site.config, 60)
    site.database.key_digest = access.digest("the new key")

    access.require_key("the new key", _knowledge(site))

    assert site.database.times_read == 1


def test_the_first_call_of_all_has_the_database_read(tmp_path: Path) -> None:
    site = Site(tmp_path)
    Path(site.config.snapshot_file).unlink()

    access.require_key(KEY, _knowledge(site))

    assert site.database.times_read == 1


def test_a_wrong_key_is_not_checked_again_within_seconds(tmp_path: Path) -> None:
    site = Site(tmp_path)

    with pytest.raises(KeyRefused):
        access.require_key("wrong", _knowledge(site))

    assert site.database.times_read == 0


def test_a_wrong_key_is_refused_although_the_database_is_away(tmp_path: Path) -> None:
    site = Site(tmp_path)
    age_snapshot(site.config, 60)
    site.database.is_up = False

    with pytest.raises(KeyRefused, match="is not this system's key: see noojee-agi apikey --help"):
        access.require_key("wrong", _knowledge(site))

    assert site.database.times_read == 1


def test_a_missing_key_is_refused_with_the_variable_to_set(tmp_path: Path) -> None:
    site = Site(tmp_path)

    with pytest.raises(KeyRefused, match="variable apiKey is missing or empty: set it"):
        access.require_key("", _knowledge(site))

    assert site.database.times_read == 0


def test_no_snapshot_and_no_database_is_said_as_such(tmp_path: Path) -> None:
    site = Site(tmp_path)
    Path(site.config.snapshot_file).unlink()
    site.database.is_up = False

    with pytest.raises(KeyRefused, match="the database does not answer: run noojee-agi check"):
        access.require_key(KEY, _knowledge(site))


def test_a_system_without_a_key_lets_nobody_in(tmp_path: Path) -> None:
    site = Site(tmp_path, FakeDatabase(key=""))

    for key in (KEY, "None", "$"):
        with pytest.raises(KeyRefused, match="has no apiKey yet: run noojee-agi apikey new"):
            access.require_key(key, _knowledge(site))


@pytest.mark.parametrize("state", ["wrong", "no key in the system", "no database"])
def test_no_refusal_shows_the_key_or_its_digest(tmp_path: Path, state: str) -> None:
    site = Site(tmp_path, FakeDatabase(key="" if state == "no key in the system" else KEY))
    if state == "no database":
        Path(site.config.snapshot_file).unlink()
        site.database.is_up = False

    with pytest.raises(KeyRefused) as refused:
        access.require_key("wr0ng-k3y", _knowledge(site))

    shown = f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"
    assert "wr0ng-k3y" not in shown
    assert KEY not in shown
    assert "hmac-sha256" not in shown
