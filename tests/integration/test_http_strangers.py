"""Peers of every kind at the HTTP port: an answer or a close, and nothing of theirs in the log."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import footprint, processes, web
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until

KEY = b"<the right key>".ljust(36, b".")  # stands for it, and is as long
START = web.CALLS.encode() + b"/start"
UNKNOWN = "0e5f6b1c-6a57-4a6e-8f5e-0123456789ab"
HOST = b"Host: a\r\n"
GET = b"GET /openapi.json HTTP/1.1\r\n" + HOST
POST = b"POST " + START + b" HTTP/1.1\r\n" + HOST
AUDIO = b"GET /recordings/%ff%00/audio?apiKey="
FORM = b"extenOrUniqueId=410&apiKey=" + KEY
CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FORM_OF = b"Content-Type: application/x-www-form-urlencoded\r\n"
AT_MOST_SECONDS = 30.0  # the server waits for a request for 10, which begin when it comes to that
HEAD_BYTES = 16384
SHORT, LONG = 40, 1500


def header(size: int) -> bytes:
    """A request whose one header is so long."""
    return GET + b"X: " + b"x" * size + b"\r\n\r\n"


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


# By name: what is said, and the statuses of the answers; None where a close, or any answer, will do.
PEERS: Mapping[str, tuple[bytes, tuple[int, ...] | None]] = {
    "a request": (GET + CLOSE + b"\r\n", (200,)),
    "a request and no more": (GET + b"\r\n", (200,)),
    "three, one after the other": (
        GET + b"\r\n" + GET + b"\r\n" + GET + CLOSE + b"\r\n",
        (200,) * 3,
    ),
    "a form, then a request": (
        POST + b"Content-Length: %d\r\n\r\n" % len(FORM) + FORM + GET + CLOSE + b"\r\n",
        (503, 200),
    ),
    "HTTP/1.0": (b"GET /openapi.json HTTP/1.0\r\n\r\n", (200,)),
    "HTTP/0.9": (b"GET /openapi.json\r\n\r\n", (400,)),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (404, 400)),
    "HTTP/9.9": (b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", None),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", (400,)),
    "two hosts": (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", (400,)),
    "garbage": (os.urandom(1000) + b"\r\n\r\n", (400,)),
    "zeros": (b"\0" * 20000, (400,)),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x01" * 600, None),
    "line ends alone": (b"\r\n" * 5000, None),
    "no word": (b"", ()),
    "half a line": (b"GET /open", ()),
    "half a head": (GET, ()),
    "half a form": (POST + b"Content-Length: 1000\r\n\r\n" + FORM, ()),
    "half a chunk": (POST + CHUNKED + b"\r\n3e8\r\n" + FORM, ()),
    "a header of 16 kB less some": (
        header(HEAD_BYTES - 200).replace(HOST, HOST + CLOSE),
        (200,),
    ),
    "a header of 20 kB": (header(20_000), (400,)),
    "a header of 200 kB": (header(200_000), (400,)),
    "a header of 20 MB": (header(20_000_000), (400,)),
    "a target of 20 kB": (b"GET /?tag=" + b"x" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", (400,)),
    "100 000 headers": (GET + b"".join(b"X-%d: y\r\n" % each for each in range(100_000)) + b"\r\n", (400,)),
    "2000 short headers": (GET + b"a:\r\n" * 2000 + CLOSE + b"\r\n", (200,)),
    "a folded header": (GET + b"X: a\r\n b\r\n\r\n", None),
    "a header without a name": (GET + b": x\r\n\r\n", (400,)),
    "a header with a zero": (GET + b"X: a\0b\r\n\r\n", (400,)),
    "a space before the colon": (GET + b"X : a\r\n\r\n", (400,)),
    "a body of 16 kB": (
        POST
        + b"Content-Length: 16384\r\nConnection: close\r\n\r\n"
        + FORM
        + b"&tag="
        + b"x" * (16384 - len(FORM) - 5),
        None,
    ),
    "a body of 17 kB": (POST + b"Content-Length: 17000\r\n\r\n" + b"x" * 17_000, (413,)),
    "a body of 20 MB": (POST + b"Content-Length: 20000000\r\n\r\n" + b"x" * 20_000_000, None),
    "a body of 20 MB in chunks": (POST + CHUNKED + b"\r\n" + chunked(*[b"x" * 65536] * 305), None),
    "a body that GET does not read": (GET + b"Content-Length: 20000000\r\n\r\n" + b"x" * 20_000_000, None),
    "a form in chunks": (POST + CHUNKED + CLOSE + b"\r\n" + chunked(FORM[:5], FORM[5:]), (503,)),
    "20 000 chunks of nothing much": (POST + CHUNKED + b"\r\n" + chunked(*[b"x"] * 20_000), None),
    "a chunk without end": (POST + CHUNKED + b"\r\n" + b"f" * 100_000, (400,)),
    "a chunk of no number": (POST + CHUNKED + b"\r\nxyz\r\n\r\n", (400,)),
    "a negative chunk": (POST + CHUNKED + b"\r\n-1\r\nx\r\n", (400,)),
    "a chunk extension": (POST + CHUNKED + b"\r\n5;" + b"x" * 50_000 + b"\r\n", (400,)),
    "trailers": (POST + CHUNKED + b"\r\n0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", (400,)),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", (400,)),
    "a length and chunks": (POST + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n", None),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", (400,)),
    "a length of 10^30": (POST + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n" + FORM, None),
    "another transfer encoding": (POST + b"Transfer-Encoding: gzip\r\n\r\n" + FORM, None),
    "an upgrade to websocket": (
        GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n",
        (200,),
    ),
    "an upgrade to HTTP/2": (GET + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n", (200,)),
    "Expect, and it is told to go on": (
        POST + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(FORM) + FORM,
        (503,),
    ),
    "Expect, and nothing comes": (POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", ()),
    "another Expect": (GET + b"Expect: a miracle\r\nConnection: close\r\n\r\n", (200,)),
    "CONNECT": (b"CONNECT 192.0.2.1:443 HTTP/1.1\r\n" + HOST + b"\r\n", None),
    "TRACE": (b"TRACE /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n", (405,)),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", (404,)),
    "a method of 5 kB": (b"X" * 5000 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", (404,)),
    "a method that is none": (b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n", (400,)),
    "a whole address": (b"GET http://192.0.2.1/openapi.json HTTP/1.1\r\n" + HOST + b"\r\n", (404,)),
    "out of the house": (b"GET /../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", (404,)),
    "out of the house, encoded": (b"GET /%2e%2e/%2fetc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", (404,)),
    "a target of any bytes": (b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n", None),
    "a target encoded of any bytes": (b"GET /%ff%00%0d%0a HTTP/1.1\r\n" + HOST + b"\r\n", (404,)),
    "a query of any bytes": (b"POST " + START + b"?tag=\xff HTTP/1.1\r\n" + HOST + b"\r\n", None),
    "an id of any bytes": (
        b"GET /recordings/%ff%00/audio?apiKey=" + KEY + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        (404,),
    ),
    "300 pipelined": ((GET + b"\r\n") * 300, (200,) * 300),
    "a HEAD": (b"HEAD /openapi.json HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", (200,)),
}


class Playground:
    def __init__(self, served: Served) -> None:
        self.served = served
        self.key = served.site.key.encode()
        self._everybody = [served.pid, *processes.children(served.pid)]
        self._http = [served.http_process]
        self._before = footprint.countable(self._http)

    def connected(self, address: str = "127.0.0.1") -> socket.socket:
        here = ("127.0.0.1", self.served.http_port)
        return socket.create_connection(here, AT_MOST_SECONDS, (address, 0))

    def say(self, words: bytes, address: str = "127.0.0.1") -> bytes:
        """All that comes until it closes. Raises TimeoutError."""
        with self.connected(address) as connection:
            return web.said(connection, words.replace(KEY, self.key))

    def assert_unharmed(self) -> None:
        """The next is served at once, by the same processes, which hold what they held before.

        One of three is: the machine may be busy with something else for a moment.
        """
        assert any(self._is_served_at_once() for _ in range(3))
        assert [self.served.pid, *processes.children(self.served.pid)] == self._everybody
        wait_until(self._holds_no_more, 20, "what it held before", self._held)

    def _is_served_at_once(self) -> bool:
        begun = time.monotonic()
        assert web.get(self.served.http_port, "/openapi.json").status == 200
        return time.monotonic() - begun < 3

    def _holds_no_more(self) -> bool:
        return footprint.hold_no_more(self._http, self._before)

    def _held(self) -> str:
        return f"{footprint.countable(self._http)} after {self._before}"


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    site = Site(tmp_path_factory.mktemp("strangers") / "site")
    with Served(site, {"http.listen": "127.0.0.1:0"}) as served:
        web.get(served.http_port, "/openapi.json")
        web.start(served.http_port, site.key)
        web.get(served.http_port, f"/recordings/{UNKNOWN}/audio?apiKey={site.key}")
        found = Playground(served)
        yield found
        found.assert_unharmed()
        log = served.stderr + site.log()
        log = re.sub(".*ERROR.* a request by HTTP without a right key came from 127.*\n", "", log)
        assert not re.search("Traceback|ERROR|CRITICAL", log), log
        assert site.key not in log


def check(answers: bytes) -> list[int]:
    """The statuses; each answer is ours, with what each has to have."""
    assert not answers or answers.startswith(b"HTTP/1.1 "), answers[:200]
    for _, headers in web.heads(answers):
        assert "cache-control: no-store" in headers
        assert "\nserver:" not in f"\n{headers}"
        assert "content-type: application/json" in headers
    return [status for status, _ in web.heads(answers)]


def test_every_peer_is_answered_or_sent_away(playground: Playground) -> None:
    with ThreadPoolExecutor(len(PEERS)) as threads:
        said = {name: threads.submit(playground.say, words) for name, (words, _) in PEERS.items()}
    wrong = {}
    for name, (_, statuses) in PEERS.items():
        try:
            found = check(said[name].result())
        except (AssertionError, TimeoutError) as exc:
            wrong[name] = repr(exc)
            continue
        if statuses is not None and found != [*statuses]:
            wrong[name] = f"{found} and not {statuses}"
        if statuses is None and any(status == 500 or not 200 <= status < 600 for status in found):
            wrong[name] = f"{found}"
    assert not wrong
    playground.assert_unharmed()


PIECES = st.sampled_from(
    [
        *(
            GET,
            POST,
            HOST,
            CHUNKED,
            FORM_OF,
            FORM,
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\0",
            b"0\r\n\r\n",
            b"5\r\n",
        ),
        *(
            CLOSE,
            b"Connection: keep-alive\r\n",
            b"Content-Length: 3\r\n",
            b"Range: bytes=0-\r\n",
        ),
        *(
            b"Expect: 100-continue\r\n",
            b"Upgrade: websocket\r\n",
            b"X-Forwarded-For: 127.0.0.1, x\r\n",
            b"GET ",
        ),
        *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"/recordings/", b"/audio?apiKey=" + KEY, b"HEAD ", b"PUT "),
        *(b"apiKey=" + KEY, b"&", b"?", b"%", b"X-Api-Key: \xff\r\n", b"x" * 5000, b"\xff\xfe"),
    ]
)


WORDS = st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=12).map(b"".join)


def test_no_bytes_harm_it(playground: Playground, is_long: bool) -> None:
    """Each is half closed, so that nobody waits for more of it."""

    @settings(max_examples=LONG if is_long else SHORT, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=12).map(b"".join),
        st.lists(st.integers(0, 400), max_size=3),
    )
    def meet(words: bytes, cuts: list[int]) -> None:
        words = words.replace(KEY, playground.key)
        with socket.create_connection(
            ("127.0.0.1", playground.served.http_port), AT_MOST_SECONDS
        ) as connection:
            begin = 0
            with contextlib.suppress(ConnectionError):
                for cut in [*sorted(cuts), len(words)]:
                    connection.sendall(words[begin:cut])
                    begin = max(begin, cut)
                with contextlib.suppress(OSError):  # it has closed already
                    connection.shutdown(socket.SHUT_WR)
            check(web.said(connection))

    meet()
    playground.assert_unharmed()


def test_a_request_byte_by_byte_is_answered_if_it_is_there_in_time(playground: Playground) -> None:
    words = GET + CLOSE + b"\r\n"
    with playground.connected() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(words)):
            connection.sendall(words[at : at + 1])
        assert check(web.said(connection)) == [200]


def test_a_wrong_key_is_told_to_nobody(playground: Playground) -> None:
    """Neither of what was said, nor from where, is anything in the log."""
    secret = b"my-other-secret"
    for words in (
        POST + b"X-Api-Key: " + secret + b"\r\nContent-Length: 19\r\n\r\nextenOrUniqueId=410",
        b"POST " + START + b"?apiKey=" + secret + b"&extenOrUniqueId=410 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /recordings/x/audio?apiKey=" + secret + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    ):
        answer = playground.say(words.replace(HOST, HOST + CLOSE), "127.0.0.9")
        assert check(answer) == [401]
        assert secret not in answer
    assert secret.decode() not in playground.served.site.log() + playground.served.stderr
