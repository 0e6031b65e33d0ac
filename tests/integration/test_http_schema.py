"""The API is what /openapi.json says: whatever is asked, the answer is one that the document knows."""

from __future__ import annotations

import itertools
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import network_call, web
from lab.served import Served
from lab.site import Site
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from noojee_agi.config import Config
from noojee_agi.web import app, audio, openapi
from noojee_agi.web.arguments import API_KEY
from noojee_agi.web.endpoint import Endpoint
from noojee_agi.web.services import Services

SHORT, LONG = {"positive": 6, "negative": 5}, 1500
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
BIG = 20_000_000
AUDIO_BYTES = 3000
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
EXTRAS = ("requestBody", "parameters")


class Api:
    """A server with one leg that has audio, which is among the ids that are tried."""

    def __init__(self, served: Served, leg: dict[str, Any]) -> None:
        self.served = served
        self.url = served.http
        self.leg_id = str(leg["id"])
        self.document = web.get(served.http_port, "/openapi.json").json()
        for operation in self.document["paths"][audio.PATH].values():
            operation["parameters"][0]["schema"] = {"enum": [self.leg_id, served.site.key, "", "%00"]}

    def give_key(self, case: Any) -> None:
        """In place of what was made up for it."""
        case.query = {**(case.query or {}), API_KEY: self.served.site.key}
        if isinstance(case.body, dict):
            case.body.pop(API_KEY, None)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    site = Site(tmp_path_factory.mktemp("schema") / "site")
    with Served(site, {"http.listen": "127.0.0.1:0", "log.level": "info"}) as served:
        network_call.place(served.port, site.key)
        leg = site.wait_for_legs()[0]
        with Path(leg["file"]).open("ab") as file:
            file.truncate(AUDIO_BYTES)
        yield Api(served, leg)
        assert "Traceback" not in served.stderr + site.log()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_every_answer_is_in_the_document(
    api: Api, mode: GenerationMode, is_long: bool, tell: Callable[[str], None]
) -> None:
    schema = schemathesis.openapi.from_dict(api.document)
    operations = [cast(Any, each).ok() for each in schema.get_all_operations()]
    if mode is GenerationMode.NEGATIVE:
        operations = [each for each in operations if {*EXTRAS} & {*each.definition.raw}]
    found: Counter[str] = Counter()
    addresses = (f"127.{number >> 8}.{number & 255}.1" for number in itertools.count())

    count = LONG if is_long else SHORT[mode.value]

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        for operation in operations:
            case = data.draw(operation.as_strategy(generation_mode=mode))
            if data.draw(st.sampled_from([True, True, True, False])):
                api.give_key(case)
            # Each from another address, or all that follow a few wrong keys would be sent away.
            response = case.call(base_url=api.url, headers={"X-Forwarded-For": next(addresses)})
            case.validate_response(response, checks=CHECKS)
            assert response.status_code != 500, response.text
            assert response.headers["cache-control"] == ["no-store"]
            found[f"{response.status_code}"] += 1

    ask()
    tell(f"the API asked at random ({mode.value}): {dict(sorted(found.items()))}, all as documented")


def test_the_document_is_one() -> None:
    schemathesis.openapi.from_dict(openapi.document()).validate()


def test_the_document_has_the_addresses_that_are_there(api: Api) -> None:
    services = Services(lambda: Config(), *[cast(Any, None)] * (len(Services._fields) - 1))
    entrance = cast(Any, app.make(services))
    routes = [route for route in entrance._app.routes if isinstance(route, Route)]
    paths = api.document["paths"]
    assert sorted(route.path for route in routes) == sorted(paths)
    for route in routes:
        known = {method.lower() for method in cast(Endpoint, route.app)._methods()}
        assert {*paths[route.path]} & {*METHODS} <= known
        assert known - {*paths[route.path]} <= {"head"}
    for path in paths:
        for method in METHODS:
            elsewhere = {"X-Forwarded-For": f"127.9.9.{METHODS.index(method)}"}
            answer = web.ask(api.served.http_port, path, method=method.upper(), headers=elsewhere)
            is_known = method in paths[path] or (method == "head" and "get" in paths[path])
            assert (answer.status == 405) != is_known, (method, path)


def test_every_limit_is_the_real_one(api: Api) -> None:
    """At most 149 characters, say: with one more it is 400, and not with 149."""
    tried = 0
    for path, operations in api.document["paths"].items():
        for parameter in operations.get("post", {}).get("parameters", []):
            limit = parameter["schema"].get("maxLength")
            if not limit:
                continue
            for length, is_right in ((limit, True), (limit + 1, False)):
                # An ä, since characters are meant.
                given_ = {
                    "extenOrUniqueId": "410",
                    parameter["name"]: "ä" * length,
                    "apiKey": api.served.site.key,
                }
                answer = web.ask(api.served.http_port, path, given_)
                is_too_long = answer.status == 400 and "are allowed" in answer.json()["Message"]
                assert is_too_long != is_right, (path, parameter["name"], length, answer)
            tried += 1
    assert tried == 3 + 3 * 2 + 1 + 1 + 2


def test_audio_comes_in_the_ranges_that_are_asked_for(api: Api) -> None:
    def part(asked: str) -> tuple[int, int]:
        path = f"/recordings/{api.leg_id}/audio?apiKey={api.served.site.key}"
        answer = web.ask(api.served.http_port, path, method="GET", headers={"Range": asked} if asked else {})
        if answer.status >= 400:
            assert answer.json()["Code"] == -answer.status
        return answer.status, len(answer.body)

    assert part("") == (200, AUDIO_BYTES)
    assert part("bytes=0-99") == (206, 100)
    assert part("bytes=-7") == (206, 7)
    assert part("bytes=2990-") == (206, 10)
    assert part("bytes=3000-")[0] == 416
    assert part("bytes=9-3") == (200, AUDIO_BYTES)
    assert part("lines=1-2")[0] in (200, 400)


@pytest.mark.parametrize("change", [50_000, -BIG // 2, None], ids=["grows", "shrinks", "is purged"])
def test_a_file_that_changes_meanwhile_leaves_no_traceback(api: Api, change: int | None) -> None:
    """It grows while a call is still recorded: what comes is what was there when it was asked for."""
    file = Path(api.served.site.legs()[0]["file"])
    os.truncate(file, BIG)
    with socket.create_connection((web.HERE, api.served.http_port), web.ANSWER_SECONDS) as connection:
        path = f"/recordings/{api.leg_id}/audio?apiKey={api.served.site.key}"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        begin = connection.recv(1000)
        if change is None:
            file.unlink()
        else:
            os.truncate(file, BIG + change)
        head, _, body = (begin + web.said(connection)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"content-length: {BIG}".encode() in head
    assert len(body) == BIG or change != 50_000
    assert len(body) < BIG or change == 50_000 or change is None
    file.touch()
    os.truncate(file, AUDIO_BYTES)
