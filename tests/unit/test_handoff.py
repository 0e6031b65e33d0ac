"""The message that hands a session over: what is packed is unpacked, and all else is no message."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noojee_agi.session import handoff

BYTES = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b""))  # what execve(2) can pass on
PROGRAMS = st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text).map(str)


def body_of(message: bytes) -> bytes:
    """Without its length, which must be right."""
    length, body = message[: handoff.LENGTH_BYTES], message[handoff.LENGTH_BYTES :]
    assert int.from_bytes(length, "big") == len(body)
    return body


@given(PROGRAMS, BYTES.map(os.fsdecode), st.lists(BYTES, max_size=20), st.binary(max_size=300))
def test_what_is_packed_is_unpacked(
    program: str, configuration: str, words: list[bytes], environment: bytes
) -> None:
    message = handoff.pack(program, configuration, words, environment)

    assert handoff.unpack(body_of(message)) == (
        program,
        configuration,
        [word.decode("utf-8", "replace") for word in words],
        environment,
    )


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ([], b""),
        ([b""], b""),
        ([b"", b"", b""], b"agi_request: x\n\n"),
        ([b"caf\xe9"], b"agi_calleridname: J\xf6rg\n\n"),
        ([b"410"], b"agi_arg_1: \0\0\n\n"),
    ],
)
def test_empty_words_bad_encodings_and_nul_bytes_of_the_environment_stay(
    words: list[bytes], environment: bytes
) -> None:
    body = body_of(handoff.pack("start_record", "", words, environment))

    assert handoff.unpack(body)[2:] == ([word.decode("utf-8", "replace") for word in words], environment)


@given(st.binary(max_size=100))
def test_junk_is_a_value_error_and_nothing_else(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        program, configuration, words, environment = handoff.unpack(body)
        assert len("".join([program, configuration, *words])) + len(environment) <= len(body)


@given(st.binary(max_size=20), st.binary(max_size=6), st.binary(max_size=60))
def test_what_is_nearly_a_message_is_a_value_error_or_has_as_many_words_as_it_says(
    program: bytes, count: bytes, rest: bytes
) -> None:
    try:
        _, _, words, _ = handoff.unpack(b"\0".join([program, b"", count, rest]))
    except ValueError:
        return
    assert len(words) == int(count.partition(b"\0")[0])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"start_record",
        b"start_record\0/x",
        b"start_record\0/x\0001",
        b"start_record\0\0002\000410\0",
        b"start_record\0\000-1\000410\0",
        b"start_record\0\0\000410\0",
        b"start_record\0\0x\000410\0",
        b"start_record\0\00099999999999999\000410\0",
        b"\xff\0\0000\0",
        handoff.STATUS,
    ],
)
def test_these_are_no_messages(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        handoff.unpack(body)
