"""The metadata of legs: by tag, by call, by hour."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.web import metadata
from noojee_agi.web.admission import Admission
from noojee_agi.web.arguments import Arguments
from noojee_agi.web.metadata import Page, Pages
from noojee_agi.web.services import Services

PATH = "/njadmin/rest/RecordingAPI"


class Question(NamedTuple):
    """names: of its arguments."""

    names: tuple[str, ...]
    ask: Callable[[Store, Config, Arguments], Pages]


QUESTIONS = {
    "retrieveMetaData": Question(
        ("tag",), lambda store, config, given: metadata.by_tag(store, config, given.get("tag"))
    ),
    "retrieveMetaDataByUniqueId": Question(
        ("uniqueId",), lambda store, config, given: metadata.by_uniqueid(store, config, given.get("uniqueId"))
    ),
    "retrieveMetaDataByHour": Question(
        ("date", "hour"),
        lambda store, config, given: metadata.by_hour(store, config, given.get("date"), given.get("hour")),
    ),
}


class RecordingApi:
    def __init__(self, services: Services, admission: Admission) -> None:
        self._services = services
        self._admission = admission

    async def send(self, request: Request, name: str) -> Response:
        """Page after page, so that ten thousand legs keep nobody else waiting."""
        question = QUESTIONS[name]
        given = await self._admission.arguments(request, question.names)
        config = self._services.config()
        pages = await self._services.of_database(lambda store: question.ask(store, config, given))
        return StreamingResponse(self._array(pages), media_type="application/json")

    async def _array(self, pages: Pages) -> AsyncIterator[str]:
        """A failure in the middle breaks the answer off: what is not whole is no JSON."""
        comma = ""
        yield "["
        while (legs := await self._services.of_database(lambda store: _next(pages))) is not None:
            if legs:
                yield comma + legs
                comma = ",\n"
        yield "]"


def _next(pages: Pages) -> str | None:
    """The next page's legs as JSON, without the brackets; None: there are no more."""
    page: Page | None = next(pages, None)
    return None if page is None else json.dumps(page, ensure_ascii=False)[1:-1]
