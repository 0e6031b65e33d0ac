"""One address of the API: which methods it knows, who may use it, and errors as answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from noojee_agi.errors import NoojeeError
from noojee_agi.web import answers
from noojee_agi.web.answers import Refused

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


class Endpoint:
    """methods: those that it knows now."""

    def __init__(self, handler: Handler, methods: Callable[[], Sequence[str]]) -> None:
        self._handler = handler
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            self._require_method(request)
            response = await self._handler(request)
        except (Refused, NoojeeError) as exc:
            response = answers.refusal(exc)
        except ClientDisconnect:  # in the middle of its form
            return
        try:
            await response(scope, receive, send)
        except NoojeeError as exc:  # in its middle: the connection is closed, so that it is seen
            logger.error("an answer was broken off: %s", exc)

    def _require_method(self, request: Request) -> None:
        known = self._methods()
        if request.method not in known:
            allowed = ", ".join(known)
            # Its body is not read.
            raise Refused(
                405, f"this address knows {allowed} alone", {"Allow": allowed, "Connection": "close"}
            )
