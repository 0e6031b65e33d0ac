"""A SIP telephone of our own, where a test must choose what the real ones of `phones` leave to chance.

It speaks as much of RFC 3261 as a call on 127.0.0.1 needs, and sends G.711 (RFC 3551) from a chosen sequence
number on. Register, dial, answer, press keys (RFC 4733), transfer blindly (RFC 3515), hang up.
"""

from __future__ import annotations

import contextlib
import math
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from lab.waiting import wait_until

FRAME_SECONDS = 0.02
FRAME_SAMPLES = 160
RATE = 8000
_LOUDNESS = 8000
_POLL_SECONDS = 0.1
_KEYS = "0123456789*#"  # RFC 4733, 3.2: in the order of their event codes
_PACKETS, _LAST_PACKETS = 8, 3  # of a key: its end comes three times


class SipPhone:
    """The telephone of one line; a context manager. It answers by itself.

    first_sequence: the sequence number of the first RTP packet that it sends in each of its calls; frames:
    how many of 20 ms it puts into each.
    """

    def __init__(
        self, extension: str, port: int, frequency: int, first_sequence: int, frames: int = 1
    ) -> None:
        self.extension = extension
        self._port = port
        self._tone = _tone(frequency, frames)
        self._frames = frames
        self._first_sequence = first_sequence
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(_POLL_SECONDS)
        self._calls: dict[str, _Call] = {}
        self._is_registered = threading.Event()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._listen), threading.Thread(target=self._play)]

    def __enter__(self) -> SipPhone:
        for thread in self._threads:
            thread.start()
        self._request(
            "REGISTER", _Call(_new_id(), f"<sip:{self.extension}@127.0.0.1>", f"sip:127.0.0.1:{self._port}")
        )
        if not self._is_registered.wait(10):
            raise AssertionError(f"telephone {self.extension} is not registered")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def dial(self, number: str) -> None:
        """Call a number, and wait until it has answered."""
        call = _Call(_new_id(), f"<sip:{number}@127.0.0.1>", f"sip:{number}@127.0.0.1:{self._port}")
        self._calls[call.id] = call
        self._request("INVITE", call, call.description())
        wait_until(lambda: call.is_up, 10, f"{number} to answer {self.extension}")

    def calls(self) -> list[object]:
        """Those that are up."""
        return [call for call in list(self._calls.values()) if call.is_up]

    def talked(self) -> float:
        """For how many seconds, in that of its calls which is the longest."""
        sent = [call.sent for call in list(self._calls.values())]
        return max(sent, default=0) * self._frames * FRAME_SECONDS

    def wait_up(self, count: int = 1) -> None:
        """Until it is in so many calls."""
        wait_until(lambda: len(self.calls()) >= count, 10, f"a call at {self.extension}")

    def wait_idle(self) -> None:
        wait_until(lambda: not self._calls, 10, f"{self.extension} to be idle")

    def press(self, keys: str) -> None:
        """In all its calls."""
        for call in list(self._calls.values()):
            call.keys += [(_KEYS.index(key), step) for key in keys for step in range(_PACKETS)]

    def transfer(self, number: str) -> None:
        """Send the other end of its call there, and be out of it."""
        (call,) = list(self._calls.values())
        self._request("REFER", call, more=[f"Refer-To: <sip:{number}@127.0.0.1:{self._port}>"])
        wait_until(lambda: call.is_referred, 10, f"the transfer to {number}")
        self.hang_up()

    def hang_up(self) -> None:
        for call in list(self._calls.values()):
            self._request("BYE", call)
            self._forget(call.id)

    def _forget(self, call_id: str) -> None:
        call = self._calls.pop(call_id, None)
        if call:
            call.audio.close()

    def _play(self) -> None:
        """A packet for each call whenever its frames are due."""
        next_at = time.monotonic()
        while not self._is_over.is_set():
            for call in list(self._calls.values()):
                with contextlib.suppress(OSError):  # it has just ended
                    call.send(self._tone, self._first_sequence, self._frames)
            next_at += FRAME_SECONDS * self._frames
            self._is_over.wait(max(0.0, next_at - time.monotonic()))

    def _listen(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(TimeoutError):
                self._take(_Message(self._socket.recv(65535).decode()))

    def _take(self, message: _Message) -> None:
        if message.status:
            self._take_answer(message)
        elif message.method == "INVITE":
            self._answer_call(message)
        elif message.method != "ACK":
            self._reply(message, message.header("To"))
            if message.method == "BYE":
                self._forget(message.header("Call-ID"))

    def _take_answer(self, message: _Message) -> None:
        method = message.header("CSeq").split()[1]
        call = self._calls.get(message.header("Call-ID"))
        if method == "REFER" and message.status == 202 and call:
            call.is_referred = True
        if message.status != 200:
            return
        if method == "REGISTER":
            self._is_registered.set()
        elif method == "INVITE" and call:
            call.to, call.target = message.header("To"), message.contact
            self._request("ACK", call)
            call.talk_to(message.body)

    def _answer_call(self, message: _Message) -> None:
        """A new call, or the same one with another description."""
        known = self._calls.get(message.header("Call-ID"))
        call = known or _Call(message.header("Call-ID"), message.header("From"), message.contact)
        call.sender = call.sender or f"{message.header('To')};tag={_new_id()}"
        self._calls[call.id] = call
        self._reply(message, call.sender, call.description())
        call.talk_to(message.body)

    def _request(self, method: str, call: _Call, body: str = "", more: Sequence[str] = ()) -> None:
        call.sender = call.sender or f"<sip:{self.extension}@127.0.0.1>;tag={_new_id()}"
        call.number += method != "ACK"
        head = [
            f"{method} {call.target} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self._own_port};branch=z9hG4bK{_new_id()};rport",
            "Max-Forwards: 70",
            f"From: {call.sender}",
            f"To: {call.to}",
            f"Call-ID: {call.id}",
            f"CSeq: {call.number} {method}",
            *more,
        ]
        self._send(head, body)

    def _reply(self, message: _Message, to: str, body: str = "") -> None:
        head = ["SIP/2.0 200 OK", *(f"Via: {via}" for via in message.headers("Via")), f"To: {to}"]
        head += [f"{name}: {message.header(name)}" for name in ("From", "Call-ID", "CSeq")]
        self._send(head, body)

    def _send(self, head: list[str], body: str) -> None:
        head += [f"Contact: <sip:{self.extension}@127.0.0.1:{self._own_port}>"]
        head += ["Content-Type: application/sdp"] if body else []
        head += [f"Content-Length: {len(body)}", "", body]
        self._socket.sendto("\r\n".join(head).encode(), ("127.0.0.1", self._port))

    @property
    def _own_port(self) -> int:
        return int(self._socket.getsockname()[1])


@dataclass
class _Call:
    """A dialog and its audio. to: the other end as the headers name it; sender: this end."""

    id: str
    to: str
    target: str
    sender: str = ""
    number: int = 0
    audio: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    peer: tuple[str, int] | None = None
    sent: int = 0
    keys: list[tuple[int, int]] = field(default_factory=list)  # packets to come: the key, and which one of it
    pressed_at: int = 0
    is_referred: bool = False

    def __post_init__(self) -> None:
        self.audio.bind(("127.0.0.1", 0))

    @property
    def is_up(self) -> bool:
        return self.peer is not None

    def description(self) -> str:
        """RFC 4566: G.711 µ-law to this call's port, and keys."""
        port = self.audio.getsockname()[1]
        lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
        lines += [
            f"m=audio {port} RTP/AVP 0 101",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:101 telephone-event/8000",
        ]
        return "\r\n".join([*lines, "a=fmtp:101 0-15", ""])

    def talk_to(self, description: str) -> None:
        found = re.search(r"^m=audio (\d+)", description, re.MULTILINE)
        self.peer = ("127.0.0.1", int(found[1])) if found else self.peer

    def send(self, tone: bytes, first_sequence: int, frames: int) -> None:
        """RFC 3550, 5.1: version 2, payload type 0; in place of the tone's a key's packets, type 101."""
        if self.peer is None:
            return
        count = FRAME_SAMPLES * frames
        sequence, stamp = (first_sequence + self.sent) & 0xFFFF, self.sent * count
        kind, content = 0, tone[stamp % RATE : stamp % RATE + count]
        if self.keys:
            key, step = self.keys.pop(0)
            self.pressed_at = self.pressed_at if step else stamp
            kind, content = 101 if step else 0x80 | 101, _key(key, step, count)
            stamp = self.pressed_at
        head = struct.pack("!BBHII", 0x80, kind, sequence, stamp, hash(self.id) & 0xFFFFFFFF)
        self.audio.sendto(head + content, self.peer)
        self.sent += 1


class _Message:
    """A request or an answer (status)."""

    def __init__(self, text: str) -> None:
        self._head, _, self.body = text.partition("\r\n\r\n")
        first, *_ = self._head.split("\r\n")
        words = first.split()
        self.status = int(words[1]) if words[0].startswith("SIP/") else 0
        self.method = words[0]

    def headers(self, name: str) -> list[str]:
        return re.findall(
            rf"^{name}\s*:\s*(.*?)\s*$", self._head.replace("\r", ""), re.MULTILINE | re.IGNORECASE
        )

    def header(self, name: str) -> str:
        return next(iter(self.headers(name)), "")

    @property
    def contact(self) -> str:
        found = re.search(r"<([^>]+)>", self.header("Contact"))
        return found[1] if found else ""


def _key(key: int, step: int, count: int) -> bytes:
    """RFC 4733, 2.3: the event, its end and volume, and for how long."""
    last = _PACKETS - _LAST_PACKETS
    return struct.pack("!BBH", key, 0x8A if step >= last else 0x0A, (min(step, last) + 1) * count)


def _new_id() -> str:
    return uuid.uuid4().hex


def _tone(frequency: int, frames: int) -> bytes:
    """One second of it, and one packet more, in G.711 µ-law."""
    count = RATE + FRAME_SAMPLES * frames
    return bytes(_mu_law(int(_LOUDNESS * math.sin(2 * math.pi * frequency * n / RATE))) for n in range(count))


def _mu_law(sample: int) -> int:
    """ITU-T G.711: sign, exponent, mantissa, all inverted."""
    sign = 0x80 if sample < 0 else 0
    size = min(abs(sample), 32635) + 0x84
    exponent = max(0, size.bit_length() - 8)
    return ~(sign | exponent << 4 | size >> (exponent + 3) & 0x0F) & 0xFF
