"""Whether a request has the right key; whoever guesses is sent away for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence

from starlette.requests import Request

from noojee_agi.actions import access
from noojee_agi.errors import KeyRefused
from noojee_agi.web import arguments
from noojee_agi.web.answers import Refused
from noojee_agi.web.arguments import API_KEY, KEY_HEADER, Arguments
from noojee_agi.web.guesses import Guesses
from noojee_agi.web.services import Services

KNOWS_KEY = "knows_key"  # of a request's state

_MISSING = f"{API_KEY} is missing: pass it as an argument, or as the header {KEY_HEADER}"
_WRONG = f"{API_KEY} is not this system's key: see noojee-agi apikey --help"


class Admission:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._guesses = Guesses()

    async def arguments(self, request: Request, names: Sequence[str]) -> Arguments:
        """Of a request that has the right key. Raises Refused and KeyRefused."""
        address = address_of(request)
        seconds = self._guesses.seconds_blocked(address)
        if seconds:
            raise Refused(
                429,
                "too many wrong keys from this address: wait a minute",
                {"Retry-After": f"{math.ceil(seconds)}"},
            )
        found = await arguments.read(request, names)
        if not found.key:
            raise KeyRefused(_MISSING)
        await self._services.in_session(lambda: self._require_key(found.key, address))
        request.scope.setdefault("state", {})[KNOWS_KEY] = True
        return found

    def _require_key(self, key: str, address: str) -> None:
        """What the database must be asked about counts as wrong meanwhile: many could guess at once."""
        doubts: list[str] = []

        def doubt() -> None:
            doubts.append(address)
            self._guesses.add(address)

        knowledge = self._services.knowledge(doubt)
        try:
            access.require_key(key, knowledge)
        except KeyRefused as exc:
            if not doubts:
                doubt()
            known = knowledge.current()
            raise KeyRefused(_WRONG if known and known.key_digest else str(exc)) from exc
        if doubts:
            self._guesses.forgive(address)


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""
