"""The certificate of https: its days, its key, and where none is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import certificates

from noojee_agi import certificate


def test_the_days_that_are_left_are_those_of_the_file(tmp_path: Path) -> None:
    own = certificates.make(tmp_path, days=20)

    assert 19.99 < certificate.days_left(str(own.certificate)) <= 20.01


def test_what_is_no_certificate_has_no_days(tmp_path: Path) -> None:
    own = certificates.make(tmp_path)

    for path in (str(own.key), "/nonexistent"):
        with pytest.raises(OSError, match=r"."):
            certificate.days_left(path)


def test_a_key_that_wants_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    locked = certificates.make(tmp_path, password="a password")

    with pytest.raises(OSError, match=r"."):
        certificate.context(str(locked.certificate), str(locked.key))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    own = certificates.make(tmp_path)

    with pytest.raises(FileNotFoundError) as raised:
        certificate.context(str(own.certificate), "/nonexistent")
    assert raised.value.filename == "/nonexistent"


@pytest.mark.parametrize(
    ("listen", "is_needed"),
    [
        ("127.0.0.1:8080", False),
        ("127.9.9.9:8080", False),
        ("[::1]:8080", False),
        ("localhost:8080", False),
        ("0.0.0.0:8080", True),
        ("[::]:8080", True),
        ("192.0.2.1:8080", True),
    ],
)
def test_none_is_needed_where_only_this_machine_can_connect(listen: str, is_needed: bool) -> None:
    assert certificate.is_needed(listen) is is_needed
