"""The metadata of legs: by tag, by call, by hour."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from noojee_agi.web.admission import Admission
from noojee_agi.web.services import Services

PATH = "/njadmin/rest/RecordingAPI"


QUESTIONS: dict[str, tuple[tuple[str, ...], Any]] = {}


class RecordingApi:
    def __init__(self, services: Services, admission: Admission) -> None:
        self._services = services
        self._admission = admission

    async def send(self, request: Request, name: str) -> Response:
        raise NotImplementedError
