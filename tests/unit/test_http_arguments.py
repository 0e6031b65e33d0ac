"""The arguments of an HTTP request: query and form, letter case, every character, and what is too much."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from noojee_agi import text
from noojee_agi.actions.arguments import LIMITS
from noojee_agi.web import arguments
from noojee_agi.web.answers import Refused
from noojee_agi.web.arguments import Arguments

NAMES = ("extenOrUniqueId", "tag", "agentLoginName")
FORM = b"application/x-www-form-urlencoded"
LIMIT = 16384


def read(
    query: bytes = b"",
    body: bytes | Sequence[bytes] = b"",
    kind: bytes | None = FORM,
    key: bytes = b"",
    method: str = "POST",
) -> Arguments:
    pieces = [body] if isinstance(body, bytes) else [*body]
    headers = [(b"content-type", kind)] if kind is not None else []
    headers += [(b"x-api-key", key)] if key else []
    scope = {"type": "http", "method": method, "headers": headers, "path": "/", "query_string": query}

    async def receive() -> Message:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    return asyncio.run(arguments.read(Request(scope, receive), NAMES))


def refused(
    query: bytes = b"", body: bytes | Sequence[bytes] = b"", kind: bytes | None = FORM
) -> tuple[int, str]:
    with pytest.raises(Refused) as raised:
        read(query, body, kind)
    return raised.value.status, str(raised.value)


@pytest.mark.parametrize(
    ("written", "values"),
    [
        (b"", {}),
        (b"tag=INV-22", {"tag": "INV-22"}),
        (b"extenOrUniqueId=410&tag=x", {"extenOrUniqueId": "410", "tag": "x"}),
        (b"TAG=a&EXTENORUNIQUEID=410", {"tag": "a", "extenOrUniqueId": "410"}),
        (b"agentloginname=Fred", {"agentLoginName": "Fred"}),
        (b"%20tag+=x", {"tag": "x"}),
        (b"t%61g=x", {"tag": "x"}),
        (b"tag=a+b", {"tag": "a b"}),
        (b"tag=a%20b", {"tag": "a b"}),
        (b"tag=a%2Bb", {"tag": "a+b"}),
        (b"tag=a%26b%3Dc", {"tag": "a&b=c"}),
        (b"tag=a=b==c", {"tag": "a=b==c"}),
        (b"tag=50%", {"tag": "50%"}),
        (b"tag=%zz", {"tag": "%zz"}),
        (b"tag=a;b", {"tag": "a;b"}),
        (b"tag=%E2%82%AC%C3%A4", {"tag": "€ä"}),
        (b"tag=%F0%9F%93%9E", {"tag": "📞"}),
        (b"tag=", {"tag": ""}),
        (b"tag", {"tag": ""}),
        (b"&&tag=x&", {"tag": "x"}),
        (b"tag=%00a%0D%0Ab", {"tag": " a  b"}),
    ],
)
def test_query_and_form_are_read_alike(written: bytes, values: dict[str, str]) -> None:
    assert read(query=written) == Arguments(values, "", 0)
    assert read(body=written) == Arguments(values, "", 0)
    assert read(query=written, method="GET") == Arguments(values, "", 0)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_comes_as_it_was_written_but_for_its_controls(written: str) -> None:
    for quote in (urllib.parse.quote_plus, urllib.parse.quote):
        assert read(query=f"tag={quote(written)}".encode()).get("tag") == text.without_controls(written)


@pytest.mark.parametrize("name", ["tag", "extenOrUniqueId"])
def test_what_is_too_long_is_refused_as_in_a_dialplan(name: str) -> None:
    most = LIMITS[name]
    assert read(query=f"{name}={'x' * most}".encode()).get(name) == "x" * most
    said = f"{name} has {most + 1} characters: {most} are allowed"
    assert refused(query=f"{name}={'x' * (most + 1)}".encode()) == (400, said)


def test_the_form_wins() -> None:
    found = read(query=b"tag=query&extenOrUniqueId=410&apiKey=q", body=b"TAG=form&apiKey=f")
    assert found == Arguments({"tag": "form", "extenOrUniqueId": "410"}, "f", 0)


def test_an_empty_value_of_the_form_wins_too() -> None:
    assert read(query=b"tag=query", body=b"tag=").get("tag") == ""


@pytest.mark.parametrize(
    ("query", "body", "header", "key"),
    [
        (b"apiKey=a", b"", b"", "a"),
        (b"APIKEY=a", b"", b"", "a"),
        (b"", b"apikey=a", b"", "a"),
        (b"", b"", b"a", "a"),
        (b"apiKey=a", b"", b"b", "a"),
        (b"apiKey=", b"", b"b", "b"),
        (b"apiKey=a", b"apiKey=", b"b", "b"),
        (b"apiKey=%E2%82%AC", b"", b"", "€"),
        (b"", b"", b"", ""),
    ],
)
def test_the_key_is_an_argument_or_the_header(query: bytes, body: bytes, header: bytes, key: str) -> None:
    found = read(query, body, key=header)
    assert found.key == key
    assert "apiKey" not in found.values


def test_a_header_of_any_bytes_is_a_key() -> None:
    assert read(key=b"\xff\xfe").key == "\xff\xfe"


@pytest.mark.parametrize(
    ("written", "unknown"),
    [
        (b"tag22=x", 1),
        (b"tag22", 0),
        (b"&tag22&tag=x", 0),
        (b"tag22=", 0),
        (b"a=1&b=2&a=3", 3),
        (b"=x", 1),
        (b"=", 0),
        (b"extension=410", 1),
    ],
)
def test_arguments_without_a_name_of_ours_are_counted_if_they_have_a_value(
    written: bytes, unknown: int
) -> None:
    assert read(query=written).unknown == unknown
    assert read(body=written).unknown == unknown
    assert read(query=written, body=written).unknown == 2 * unknown


@pytest.mark.parametrize("written", [b"tag=a&tag=b", b"tag=a&TAG=a", b"tag=&tag=", b"apiKey=a&APIKEY=b"])
def test_a_name_that_is_given_twice_is_refused(written: bytes) -> None:
    name = "apiKey" if written.startswith(b"api") else "tag"
    assert refused(query=written) == refused(body=written) == (400, f"{name} is given twice: pass it once")


@pytest.mark.parametrize(
    "written",
    [b"tag=%FF", b"tag=%C3", b"tag=%ED%A0%80", b"%FF=x", b"tag=\xc3\xa4", b"tag=\xff", b"a=1&" * 101],
)
def test_what_cannot_be_read_is_refused(written: bytes) -> None:
    status, said = refused(query=written)
    assert (status, said) == refused(body=written)
    assert status == 400
    assert "percent-encoded" in said


@pytest.mark.parametrize("pieces", [1, 7, LIMIT])
def test_a_body_may_have_16_kb_however_it_comes(pieces: int) -> None:
    body = b"key=" + b"x" * (LIMIT - 10) + b"&tag=x"
    step = LIMIT // pieces
    found = read(body=[body[at : at + step] for at in range(0, len(body), step)])
    assert (found.get("tag"), found.unknown) == ("x", 1)


def test_a_larger_body_is_not_read_to_its_end() -> None:
    pieces = [b"x" * 1024 for _ in range(1000)]
    status, said = refused(body=pieces)
    assert (status, said) == (413, "the body is too large: 16384 bytes are allowed")


@pytest.mark.parametrize(
    "kind", [None, FORM, b"Application/X-WWW-Form-Urlencoded", FORM + b"; charset=UTF-8", FORM + b" ;x"]
)
def test_a_form_is_a_form_in_any_letter_case_and_without_being_named(kind: bytes | None) -> None:
    assert read(body=b"tag=x", kind=kind).get("tag") == "x"


@pytest.mark.parametrize(
    "kind", [b"application/json", b"multipart/form-data; boundary=x", b"text/plain", b"x", b""]
)
def test_any_other_body_is_refused(kind: bytes) -> None:
    status, said = refused(body=b'{"tag": "x"}', kind=kind)
    assert status == 415
    assert FORM.decode() in said


def test_without_a_body_its_kind_does_not_matter() -> None:
    assert read(query=b"tag=x", kind=b"application/json").get("tag") == "x"


def test_a_body_of_get_is_not_looked_at() -> None:
    assert read(query=b"tag=x", body=b"tag=y", method="GET").get("tag") == "x"
