"""Peers of every kind at noojee-agi serve: none ends or holds it, or makes it say or do what it must not."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from bench.call import Call
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lab import footprint, network_call, processes, spooled
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until
from sqlalchemy import select

from noojee_agi.database.store import Store
from noojee_agi.database.tables import recording_leg
from noojee_agi.recordings.recording import Leg
from noojee_agi.session import handoff

Tell = Callable[[str], None]
T = TypeVar("T")

SHORT, LONG = 120, 1500
AT_ONCE_SECONDS = 4.0  # less than the five seconds for which the server waits for a peer
COMMAND = re.compile(
    rb'(GET FULL VARIABLE|GET VARIABLE|SET VARIABLE|EXEC|VERBOSE)( "([^"\\\x00-\x1f]|\\.)*")+'
)
REPLY = re.compile(r"\d{3}([ ]|$)")
MIXMONITOR = b'EXEC "MixMonitor"'
WHILE_SECONDS = 0.15
LONGEST_COMMAND = 2046
RESET = struct.pack("ii", 1, 0)  # SO_LINGER, on, no time: close() then resets


class Playground:
    """One server, what it was like before the first peer came, and the good calls between the bad ones."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.key = served.site.key
        self.good: list[str] = []
        self._store = Store(served.site.database_url)
        self._processes = [served.pid, *processes.children(served.pid)]
        self._before = footprint.countable(self._processes)

    def assert_unharmed(self) -> None:
        """A good call is served at once, by the same processes, which hold what they held before."""
        begun = time.monotonic()
        call = network_call.place(self.served.port, self.key)
        assert call.status == "200"
        assert time.monotonic() - begun < AT_ONCE_SECONDS
        self.good.append(call.leg_id)
        assert [self.served.pid, *processes.children(self.served.pid)] == self._processes
        try:
            wait_until(self._holds_no_more, 40)
        except AssertionError:  # what follows says which figure differs
            assert self._holds_no_more(), (footprint.countable(self._processes), self._before)

    def traces(self) -> set[str]:
        """Audio that is there now, and the legs that have begun: in the spool, else in the database."""
        recordings = self.served.site.recordings_directory
        audio = {str(path) for path in recordings.rglob("*.wav") if path.is_file()}
        begun = {event.id for event in spooled.events(recordings) if isinstance(event, Leg)}
        with self._store.reading() as connection:
            stored = set(connection.execute(select(recording_leg.c.id)).scalars())
        return {*audio, *begun, *stored}

    def _holds_no_more(self) -> bool:
        return footprint.hold_no_more(self._processes, self._before)


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    site = Site(tmp_path_factory.mktemp("fuzz") / "site")
    with Served(site, {"log.level": "info"}) as served:
        network_call.place(served.port, site.key)
        served.wait_for("sees_ends", 1)
        served.wait_for("sessions", 1)  # or it holds more than it does at rest
        served.wait_for_workers()
        found = Playground(served)
        yield found
        wait_until(lambda: {*found.good} <= {leg["id"] for leg in site.legs()}, 60, "all good calls")
        assert "Traceback" not in served.stderr + site.log()


# What a peer does, one after the other.
@dataclass(frozen=True)
class Say:
    words: bytes


@dataclass(frozen=True)
class Await:
    """The server's next command, for a moment."""


@dataclass(frozen=True)
class Answer:
    """As Asterisk does, whatever the server has asked last."""


@dataclass(frozen=True)
class EndHalf:
    """No word more from this side."""


Act = Say | Await | Answer | EndHalf

KEY = b"<the right key>"  # stands for it, since strategies are made before the server
PIECES = st.sampled_from(
    [
        *(
            b"200 result=1\n",
            b"200 result=0\n",
            b"200 result=-1\n",
            b"200 result=1 (\n",
            b"200 result=1 (x)\n",
        ),
        *(b"200 result=1 (" + KEY + b")\n", b"200 result=1 (" + KEY, b"200 result=0x7f35 (0x7f35)\n"),
        *(b"HANGUP\n", b"\n", b"\r\n", b"200\n", b"200 \n", b"200-\n", b"100 Trying\n", b"200 result=\n"),
        *(b"510 Invalid or unknown command\n", b"511 Command Not Permitted on a dead channel\n"),
        *(b"520-Invalid command syntax.  Proper usage follows:\n", b"520 End of proper usage.\n"),
        *(
            b"503 result=-2 Memory allocation failure\n",
            b"200 result=1 (" + b"x" * 5000 + b")\n",
            b"\x00",
            b"\xff\xfe\n",
        ),
        *(
            b"200 result=99999999999999999999999999\n",
            "٢٠٠ result=1\n".encode(),
            b"(" * 300 + b"\n",
            b")\n" * 300,
        ),
    ]
)
JUNK = st.one_of(PIECES, st.binary(max_size=40), st.lists(PIECES, max_size=12).map(b"".join))
ENVIRONMENT = Call(1, 1, b"").environment
LINES = ENVIRONMENT.splitlines(keepends=True)


def often(usual: st.SearchStrategy[T], *others: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Two times in three the first one; one_of() would take a strategy that it is given twice once."""
    odd = st.one_of(*others)
    return st.sampled_from([True, True, False]).flatmap(lambda is_usual: usual if is_usual else odd)


ODD_SCRIPTS = st.sampled_from([b"start_record.py?tag=x", b"stop_record", b"../../bin/sh", b"a?" + b"&" * 99])


@st.composite
def environments(draw: st.DrawFn) -> bytes:
    """A whole one, a mutated one, or anything."""
    kind = draw(st.sampled_from([*["whole"] * 5, "lines", "bytes", "cut", "anything"]))
    if kind == "anything":
        return draw(st.binary(max_size=200)) + draw(st.sampled_from([b"", b"\n\n"]))
    if kind == "lines":
        lines = draw(st.lists(st.one_of(st.sampled_from(LINES), st.binary(max_size=30)), max_size=30))
        return b"".join(lines) + draw(st.sampled_from([b"", b"\n\n", b"\r\n\r\n"]))
    if kind == "cut":
        return ENVIRONMENT[: draw(st.integers(0, len(ENVIRONMENT)))]
    if kind == "bytes":
        changed = bytearray(ENVIRONMENT)
        for at, value in draw(
            st.lists(st.tuples(st.integers(0, len(changed) - 1), st.integers(0, 255)), max_size=9)
        ):
            changed[at] = value
        return bytes(changed)
    script = draw(often(st.just(b"start_record"), ODD_SCRIPTS))
    return ENVIRONMENT.replace(b"network_script: start_record", b"network_script: " + script)


ACTS: st.SearchStrategy[list[Act]] = st.lists(
    often(st.just(Answer()), JUNK.map(Say), st.just(Await()), st.just(EndHalf())), min_size=3, max_size=12
)


@dataclass(frozen=True)
class Peer:
    """What it says first, in pieces cut at these places, and what it does then."""

    environment: bytes
    cuts: list[int]
    acts: list[Act]
    knows_key: bool
    resets: bool
    address: str


PEERS = st.builds(
    Peer,
    environments(),
    st.lists(st.integers(0, 700), max_size=4),
    ACTS,
    st.sampled_from([True, True, False]),
    st.booleans(),
    st.sampled_from(["127.0.0.1", "127.0.0.2"]),  # an Asterisk on another host
)


@dataclass
class Session:
    """One peer's connection, and what was said on it; what it asks is checked when it comes."""

    connection: socket.socket
    call: Call
    key: bytes
    sent: bytes = b""
    received: bytes = b""
    commands: list[bytes] = field(default_factory=list)
    is_half_closed: bool = False
    waits_in_vain: bool = False

    def say(self, words: bytes) -> None:
        words = words.replace(KEY, self.key)
        with contextlib.suppress(OSError):
            self.connection.sendall(words)
        self.sent += words
        self.waits_in_vain = False

    def wait(self, seconds: float) -> bool:
        """Whether the server has said a whole line within this time."""
        before = len(self.commands)
        self.connection.settimeout(seconds)
        with contextlib.suppress(OSError):
            while not self.waits_in_vain and (read := self.connection.recv(65536)):
                self._hear(read)
                if len(self.commands) > before:
                    return True
        self.waits_in_vain = True
        return False

    def answer(self) -> None:
        reply = self.call.reply(self.commands[-1]) if self.commands else b""
        self.say(reply)

    def end_half(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        self.is_half_closed = True

    def _hear(self, read: bytes) -> None:
        self.received += read
        *lines, _ = self.received.split(b"\n")
        for line in lines[len(self.commands) :]:
            self._check(line)
            self.commands.append(line)

    def _check(self, line: bytes) -> None:
        """A whole command, after the environment, and no second one before the reply to the first."""
        assert len(line) <= LONGEST_COMMAND
        assert COMMAND.fullmatch(line), line
        environment, replies = _parts(self.sent)
        assert environment, f"{line!r} before the environment's end"
        assert len(self.commands) <= replies, f"{line!r} out of turn: {self.commands} after {replies} replies"
        if line.startswith(MIXMONITOR):
            assert self.key in self.sent, "recorded without the key"
            self.call.reply(line)  # the file is there, so that nobody waits for it


def _parts(sent: bytes) -> tuple[bool, int]:
    """Whether the environment has ended, and how many replies there are at most after that."""
    lines = [line.rstrip("\r") for line in sent.decode("utf-8", "replace").split("\n")]
    ends = [number for number, line in enumerate(lines) if not line]
    if not ends or ends[0] == len(lines) - 1:
        return False, 0
    return True, sum(1 for line in lines[ends[0] + 1 :] if REPLY.match(line))


def play(peer: Peer, playground: Playground) -> Session:
    key = playground.key.encode() if peer.knows_key else b"no-key"
    with socket.create_connection(
        ("127.0.0.1", playground.served.port), AT_ONCE_SECONDS, source_address=(peer.address, 0)
    ) as connection:
        session = Session(connection, Call(1, int(time.time()), key), playground.key.encode())
        begin = 0
        for cut in [*sorted(peer.cuts), len(peer.environment)]:
            session.say(peer.environment[begin:cut])
            begin = max(begin, cut)
        for act in peer.acts:
            if isinstance(act, Say):
                session.say(act.words if peer.knows_key else act.words.replace(KEY, b"no-key"))
            elif isinstance(act, Await):
                session.wait(WHILE_SECONDS)
            elif isinstance(act, EndHalf):
                session.end_half()
            elif session.wait(WHILE_SECONDS):
                session.answer()
        if session.is_half_closed:
            session.waits_in_vain = False
            while session.wait(AT_ONCE_SECONDS):
                pass
            assert session.received.count(b"\n") == len(session.commands)
            assert session.received.endswith(b"\n") or not session.received, "half a command"
        if peer.resets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return session


def test_no_peer_harms_the_server_or_makes_it_speak_out_of_turn(
    playground: Playground, is_long: bool, tell: Tell
) -> None:
    met = {"peers": 0, "commands": 0, "recordings": 0}

    @settings(max_examples=LONG if is_long else SHORT, deadline=None, suppress_health_check=list(HealthCheck))
    @given(PEERS)
    @example(Peer(ENVIRONMENT, [], [Answer()] * 9, True, False, "127.0.0.1"))
    @example(Peer(ENVIRONMENT, [], [Answer()] * 9, True, False, "127.0.0.2"))
    def meet(peer: Peer) -> None:
        before = playground.traces()

        session = play(peer, playground)

        is_recorded = any(line.startswith(MIXMONITOR) for line in session.commands)
        if playground.key.encode() not in session.sent:
            assert playground.traces() == before
        playground.assert_unharmed()
        met["peers"] += 1
        met["commands"] += len(session.commands)
        met["recordings"] += is_recorded

    meet()
    tell(", ".join(f"{count} {what}" for what, count in met.items()) + " of arbitrary FastAGI peers: no harm")
    assert met["recordings"] > 0, "no peer has come so far"


@dataclass(frozen=True)
class Message:
    """What comes to the Unix socket, in two parts, and goes after it once the server has taken it.

    length: what is announced, less the truth. descriptors: kinds, with each part and with what goes.
    """

    body: bytes
    length: int
    cut: int
    descriptors: tuple[list[str], list[str], list[str]]
    goes: bytes
    is_heard: bool


# They stand for the site's: strategies are made before it.
CONFIGURATION, RECORDINGS = "<configuration>", b"<recordings>"


def body_of(program: str, configuration: str, words: list[bytes], environment: bytes) -> bytes:
    return handoff.pack(program, configuration, words, environment)[handoff.LENGTH_BYTES :]


HANDED_OVER = body_of("start_record", CONFIGURATION, [b"410"], ENVIRONMENT)


def bodies() -> st.SearchStrategy[bytes]:
    word = st.binary(max_size=20).filter(lambda word: b"\0" not in word)
    start = st.builds(
        body_of,
        often(
            st.just("start_record"),
            st.sampled_from(["stop_record", "start_record.py", "", "finish\xffrecord"]),
        ),
        often(st.just(CONFIGURATION), st.sampled_from(["", "/etc/asterisk/noojee_agi.conf", "\udcff"])),
        often(st.sampled_from([[b""], [b"410", b"INV-22"]]), st.lists(word, max_size=5)),
        often(st.just(ENVIRONMENT), st.sampled_from([b"", ENVIRONMENT[:40], b"\n", b"\xff\n\n"])),
    )
    counted = st.builds(
        lambda program, number, rest: b"\0".join([program, CONFIGURATION.encode(), number, rest]),
        st.sampled_from([b"start_record", b"finish_record", b"\xff"]),
        st.sampled_from([b"", b"0", b"-1", b"1", b"3", b"999", b"9" * 30, b"9" * 5000, b"1_0", b" 1", b"x"]),
        st.binary(max_size=30),
    )
    finish = st.builds(
        lambda leg, file: body_of("finish_record", CONFIGURATION, [b"-", leg, RECORDINGS + file], b""),
        st.sampled_from([b"", b"x", b"../x", b"a" * 300, b"\xff", b"0e5f6b1c-6a57-4a6e-8f5e-0123456789ab"]),
        st.sampled_from([b"/2026/11/25/x.wav", b"/2026/11/25/../../../x/y/z/a.wav", b"/a/b/c/" + b"d" * 300]),
    )
    return often(often(start, finish), counted, st.just(handoff.STATUS), st.binary(max_size=100))


KINDS = st.sampled_from(
    [
        "asterisk",
        "replies",
        "null",
        "closed reader",
        "closed writer",
        "folder",
        "zero",
        "full",
        "file",
        "socket",
    ]
)
GOES = st.sampled_from([handoff.GO, handoff.GO, handoff.GO, b"", b"X", b"GG"])
NONE: list[str] = []
WHOLE = (NONE, NONE, ["asterisk", "asterisk"])  # a session with these comes to its end
TWO = st.tuples(st.just(NONE), st.just(NONE), st.lists(KINDS, min_size=2, max_size=2))
ANY = st.tuples(*[st.lists(KINDS, max_size=4)] * 3)
NO_TRICKS = st.builds(
    Message,
    bodies(),
    st.just(0),
    st.just(0),
    often(st.just(WHOLE), TWO, st.just((NONE, NONE, NONE))),
    often(st.just(handoff.GO), GOES),
    st.just(True),
)
TRICKS = st.builds(
    Message,
    bodies(),
    st.sampled_from([0, 0, 0, 1, -1, -1000, 70000, 2**31]),
    st.sampled_from([0, 0, 0, 1, 4, 30]),
    st.one_of(st.just((NONE, NONE, NONE)), ANY),
    GOES,
    st.booleans(),
)
MESSAGES = often(NO_TRICKS, TRICKS)


class Descriptors:
    """Ours, of each kind, for one message; a context manager, since they are closed in the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asterisk = -1
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Descriptors:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, kind: str) -> int:
        if kind == "asterisk":
            return self._played()
        if kind in ("null", "zero", "full"):
            return self._keep(os.open(f"/dev/{kind}", os.O_RDWR))
        if kind == "folder":
            return self._keep(os.open(self._folder, os.O_RDONLY))
        if kind == "file":
            return self._keep(os.open(self._folder / "file", os.O_RDWR | os.O_CREAT))
        if kind == "socket":
            ours, theirs = socket.socketpair()
            theirs.close()
            return self._stack.enter_context(ours).fileno()
        reading, writing = os.pipe()
        if kind == "replies":
            os.write(writing, b"200 result=1 (no-key)\n" * 20)
        if kind == "closed reader":
            os.close(reading)
            return self._keep(writing)
        os.close(writing)
        return self._keep(reading)

    def _keep(self, descriptor: int) -> int:
        self._stack.callback(os.close, descriptor)
        return descriptor

    def _played(self) -> int:
        """A channel without the key, that answers as Asterisk does, MixMonitor too; both streams are it."""
        if self._asterisk < 0:
            ours, theirs = socket.socketpair()
            self._stack.enter_context(ours)
            player = threading.Thread(target=answer_all, args=(ours,))
            player.start()
            self._stack.callback(player.join)
            self._asterisk = self._stack.enter_context(theirs).fileno()
        return self._asterisk


def answer_all(connection: socket.socket) -> None:
    """Until nobody has its other end any more."""
    call = Call(1, int(time.time()), b"no-key")
    with contextlib.suppress(OSError), connection.makefile("rb") as commands:
        for command in commands:
            connection.sendall(call.reply(command.rstrip(b"\n")))


def deliver(message: Message, playground: Playground) -> bytes:
    """What the server said."""
    site = playground.served.site
    body = message.body.replace(RECORDINGS, os.fsencode(site.recordings_directory))
    body = body.replace(CONFIGURATION.encode(), os.fsencode(site.conf))
    whole = max(len(body) + message.length, 0).to_bytes(handoff.LENGTH_BYTES, "big") + body
    said = b""
    with Descriptors(site.folder) as ours, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WHILE_SECONDS)
        client.connect(str(playground.served.socket))
        with contextlib.suppress(OSError):
            for part, kinds in zip(
                (whole[: message.cut], whole[message.cut :], message.goes), message.descriptors, strict=True
            ):
                if part is message.goes and message.is_heard:
                    with contextlib.suppress(TimeoutError):
                        said += client.recv(4096)
                if part:
                    socket.send_fds(client, [part], [ours.of(kind) for kind in kinds])
            client.shutdown(socket.SHUT_WR)
            client.settimeout(AT_ONCE_SECONDS)
            while message.is_heard and (read := client.recv(4096)):
                said += read
    return said


def test_no_message_at_the_unix_socket_harms_the_server_or_leaves_a_descriptor(
    playground: Playground, is_long: bool, tell: Tell
) -> None:
    met = {"messages": 0, "of them taken": 0, "to the end": 0}

    @settings(max_examples=LONG if is_long else SHORT, deadline=None, suppress_health_check=list(HealthCheck))
    @given(MESSAGES)
    @example(Message(HANDED_OVER, 0, 0, WHOLE, handoff.GO, True))
    def meet(message: Message) -> None:
        before = playground.traces()

        said = deliver(message, playground)

        assert re.fullmatch(rb"T?D?|\{.*\}", said)
        wait_until(lambda: playground.served.status()["running"] == 0, 40, "every thread free")
        assert playground.traces() == before, "recorded without the key"
        playground.assert_unharmed()
        met["messages"] += 1
        met["of them taken"] += said.startswith(handoff.TAKEN)
        met["to the end"] += said.endswith(handoff.DONE)

    meet()
    tell(
        ", ".join(f"{count} {what}" for what, count in met.items())
        + ", arbitrary ones at the Unix socket: no harm"
    )
    assert met["to the end"] > met["messages"] / 20, "hardly a message has come so far"


def test_after_all_of_them_a_call_is_handed_over(playground: Playground) -> None:
    """Once we say GO within a quarter of a second, as a busy machine may not let us."""
    calls = (Call(number, int(time.time()), playground.key.encode()) for number in itertools.count(7))

    call = wait_until(lambda: handed_over(next(calls), playground), 20, "a call to be handed over")

    assert call.failure() == ""
    playground.assert_unharmed()


def handed_over(call: Call, playground: Playground) -> Call | None:
    """The call, when it is over; None when the server has given it back without a word."""
    ours, theirs = socket.socketpair()
    said = b""
    with ours, socket.socket(socket.AF_UNIX) as program:
        program.settimeout(20)
        program.connect(str(playground.served.socket))
        conf = str(playground.served.site.conf)
        program.sendall(handoff.pack("start_record", conf, [b"410"], call.environment))
        assert program.recv(1) == handoff.TAKEN
        with theirs, contextlib.suppress(BrokenPipeError):
            socket.send_fds(program, [handoff.GO], [theirs.fileno(), theirs.fileno()])
        with ours.makefile("rb") as commands:
            for command in commands:
                ours.sendall(call.reply(command.rstrip(b"\n")))
                said = command
        with contextlib.suppress(ConnectionError):
            assert program.recv(1) == (handoff.DONE if said else b"")
    return call if said else None
