"""The API: its addresses, who may come to them, and what each answer has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noojee_agi.web import answers, audio, call_management, networks, openapi, recording_api
from noojee_agi.web.admission import KNOWS_KEY, Admission
from noojee_agi.web.audio import Audio
from noojee_agi.web.call_management import CallManagement
from noojee_agi.web.endpoint import Endpoint, Handler
from noojee_agi.web.networks import Allowed
from noojee_agi.web.pace import Pace
from noojee_agi.web.recording_api import RecordingApi
from noojee_agi.web.services import Services

_GET = ("GET", "HEAD")
_POST = ("POST",)
_NOT_ALLOWED = "may not use the API: [http] allow names those that may"
_CLOSE = {"Connection": "close"}
_DOCUMENT = "/openapi.json"
_TO_STRANGERS = (401, 403, 404, 405, 429)  # unless the key was right
_LOOK = "unexpected failure: see noojee-agi.log in the state directory"


def make(services: Services) -> ASGIApp:
    admission = Admission(services)
    routes = [*_of_the_api(services, admission), *_of_the_server(services)]
    handlers = {HTTPException: _no_such_address, Exception: _unforeseen}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return _Entrance(app, services)


def _of_the_api(services: Services, admission: Admission) -> Iterator[Route]:
    """All that want the key."""
    calls, legs = CallManagement(services, admission), RecordingApi(services, admission)

    def of_call(name: str) -> tuple[str, ...]:
        may_get = name in call_management.WITH_GET and services.config().http_allow_get == "yes"
        return ("POST", "GET") if may_get else _POST

    for name in call_management.PROGRAMS:
        path = f"{call_management.PATH}/{name}"
        yield _route(path, partial(calls.run, name=name), partial(of_call, name))
    for name in recording_api.QUESTIONS:
        yield _route(f"{recording_api.PATH}/{name}", partial(legs.send, name=name), lambda: _POST)
    yield _route(audio.PATH, Audio(services, admission).send, lambda: _GET)


def _of_the_server(services: Services) -> Iterator[Route]:
    """For whoever looks after it: nothing of a call."""
    described = JSONResponse(openapi.document()).body  # the same for all

    async def metrics(request: Request) -> Response:
        content, kind = await services.metrics()
        return Response(content, media_type=kind)

    async def health(request: Request) -> Response:
        status, content = await services.health()
        return JSONResponse(content, status)

    async def document(request: Request) -> Response:
        return Response(described, media_type="application/json")

    yield _route("/metrics", metrics, lambda: _GET)
    yield _route("/health", health, lambda: _GET)
    yield _route(_DOCUMENT, document, lambda: _GET)


def _route(path: str, handler: Handler, methods: Callable[[], tuple[str, ...]]) -> Route:
    return Route(path, Endpoint(handler, methods))


async def _no_such_address(request: Request, exc: Exception) -> Response:
    return answers.error(404, "there is no such address: /openapi.json has all of them")


async def _unforeseen(request: Request, exc: Exception) -> Response:
    """The framework has it logged then."""
    return answers.error(500, _LOOK)


def _is_to_a_stranger(scope: Scope, status: int) -> bool:
    if scope.get("state", {}).get(KNOWS_KEY):
        return False
    return status in _TO_STRANGERS or scope["path"] == _DOCUMENT


class _Entrance:
    """[http] allow, the headers of each answer, and the pace of those to strangers."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services
        self._pace = Pace()
        self._allowed = Allowed(services.config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        host, port = scope["client"] or ("", 0)
        address = networks.canonical(host)  # a proxy may say anything

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if _is_to_a_stranger(scope, message["status"]):
                    self._services.refused(message["status"], address)
                    await self._pace.turn()
                MutableHeaders(scope=message).update(answers.HEADERS)
            await send(message)

        app: ASGIApp = self._app
        if not self._allowed.has(address):
            app = answers.error(403, f"{address or 'this address'} {_NOT_ALLOWED}", _CLOSE)
        await app({**scope, "client": (address, port)}, receive, with_headers)
