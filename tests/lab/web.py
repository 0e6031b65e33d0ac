"""Clients of the HTTP API: one that asks as it should, and one that says any bytes."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

HERE = "127.0.0.1"
ANSWER_SECONDS = 20.0  # longer than the server waits for anything
CALLS = "/servicemanager/rest/CallManagementAPI"
_HEAD = re.compile(rb"HTTP/1\.1 (?!100)(\d{3})[^\r\n]*\r\n(.*?)\r\n\r\n", re.DOTALL)
_READ = 65536


class Answer(NamedTuple):
    """headers: their names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    target: str,
    fields: Mapping[str, str] | None = None,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """One request, with these fields as its form. Raises OSError."""
    form = urllib.parse.urlencode(fields) if fields is not None else None
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
    connection = (
        http.client.HTTPSConnection(HERE, port, timeout=ANSWER_SECONDS, context=tls)
        if tls
        else http.client.HTTPConnection(HERE, port, timeout=ANSWER_SECONDS)
    )
    with contextlib.closing(connection):
        connection.request(method, target, form, {**kind, **(headers or {})})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())


def get(port: int, target: str, tls: ssl.SSLContext | None = None) -> Answer:
    return ask(port, target, method="GET", tls=tls)


def start(port: int, key: str, call: str = "410", tls: ssl.SSLContext | None = None) -> Answer:
    return ask(port, f"{CALLS}/start", {"extenOrUniqueId": call, "apiKey": key}, tls=tls)


def say(port: int, words: bytes, tls: ssl.SSLContext | None = None, limit: float = ANSWER_SECONDS) -> bytes:
    """All that comes until the server closes. Raises TimeoutError when it does not."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((HERE, port), limit))
        if tls:
            connection = stack.enter_context(tls.wrap_socket(connection, server_hostname=HERE))
        return said(connection, words)


def said(connection: socket.socket, words: bytes = b"") -> bytes:
    """The same over a connection that is there."""
    answer = b""
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        connection.sendall(words)
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        while read := connection.recv(_READ):
            answer += read
    return answer


def heads(answers: bytes) -> list[tuple[int, str]]:
    """Status and headers, in small letters, of each answer in what was said."""
    return [(int(status), lines.decode("latin-1").lower()) for status, lines in _HEAD.findall(answers)]
