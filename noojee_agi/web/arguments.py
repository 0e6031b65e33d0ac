"""A request's arguments: of its query string, and of its form, which wins; names in any letter case."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

from starlette.requests import Request

from noojee_agi import text
from noojee_agi.actions.arguments import LIMITS
from noojee_agi.web.answers import Refused

API_KEY = "apiKey"
KEY_HEADER = "X-Api-Key"
_FORM = "application/x-www-form-urlencoded"
_MOST_BYTES = 16384  # of a body; the head has the same limit (serving)
_MOST_FIELDS = 100
MOST_CHARACTERS = {**LIMITS, "uniqueId": LIMITS["extenOrUniqueId"], "date": 10, "hour": 2}


class Arguments(NamedTuple):
    """values: by their proper names; what was not given is not there. unknown: so many others had a value."""

    values: dict[str, str]
    key: str
    unknown: int

    def get(self, name: str) -> str:
        return self.values.get(name, "")


async def read(request: Request, names: Sequence[str]) -> Arguments:
    """Raises Refused: twice in one place, not UTF-8, too much, or a body that is no form."""
    proper = {name.lower(): name for name in (*names, API_KEY)}
    query, unknown = _known(_pairs(request.scope["query_string"]), proper)
    form, unknown_in_form = _known(_pairs(await _body(request)), proper)
    values = {**query, **form}
    key = values.pop(API_KEY, "") or request.headers.get(KEY_HEADER, "")
    checked = {name: _checked(name, value) for name, value in values.items()}
    return Arguments(checked, key, unknown + unknown_in_form)


def _checked(name: str, value: str) -> str:
    """The value without control characters, as a session takes it."""
    if len(value) > MOST_CHARACTERS[name]:
        allowed = MOST_CHARACTERS[name]
        raise Refused(400, f"{name} has {len(value)} characters: {allowed} are allowed")
    return text.without_controls(value)


def _pairs(content: bytes) -> list[tuple[str, str]]:
    try:
        return urllib.parse.parse_qsl(
            content.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError as exc:
        raise Refused(400, "the arguments cannot be read: write them as UTF-8, percent-encoded") from exc


def _known(pairs: list[tuple[str, str]], proper: dict[str, str]) -> tuple[dict[str, str], int]:
    """Those that have a name of ours, and how many others have a value: without one they ask for nothing."""
    found: dict[str, str] = {}
    unknown = 0
    for asked, value in pairs:
        name = proper.get(asked.strip().lower())
        if name is None:
            unknown += bool(value)
        elif name in found:
            raise Refused(400, f"{name} is given twice: pass it once")
        else:
            found[name] = value
    return found, unknown


async def _body(request: Request) -> bytes:
    if request.method != "POST":
        return b""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise Refused(
                413, f"the body is too large: {_MOST_BYTES} bytes are allowed", {"Connection": "close"}
            )
    kind = request.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if body and kind != _FORM:
        raise Refused(415, f"a body must be {_FORM}, or leave it empty and write the arguments behind the ?")
    return bytes(body)
