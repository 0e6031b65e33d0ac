"""One call of a SIP telephone of ours: its dialog (RFC 3261, 12), and the audio and keys that it sends."""

from __future__ import annotations

import functools
import math
import re
import socket
import struct
import urllib.parse
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.sip_message import Message

FRAME_SECONDS = 0.02
FRAME_SAMPLES = 160
RATE = 8000
_KEYS = "0123456789*#"  # RFC 4733, 3.2: in the order of their event codes
_LOUDNESS = 8000
MU_LAW, A_LAW = 0, 8  # RFC 3551, 6: payload types of G.711
_NAMES = {MU_LAW: "PCMU", A_LAW: "PCMA"}
_SILENCE = {MU_LAW: b"\xff", A_LAW: b"\xd5"}
_PACKETS, _LAST_PACKETS = 8, 3  # of a key: its end comes three times
_TAG = re.compile(r";tag=([^;>\s]+)")


@dataclass
class Call:
    """A dialog and its audio. to: the other end as the headers name it; sender: this end.

    codec: of what it sends. invitation: what another one has sent that is not answered yet. agreed: the
    number of the last invitation of ours that was answered. referred: what was said of its transfer, as
    numbers of SIP answers.
    """

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
    is_held: bool = False
    codec: int = MU_LAW
    invitation: Message | None = None
    agreed: int = 0
    referred: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.audio.bind(("127.0.0.1", 0))

    @property
    def is_up(self) -> bool:
        return self.peer is not None

    def description(self) -> str:
        """RFC 4566: G.711 to this call's port, and keys; held, nothing is taken (RFC 3264, 8.4)."""
        port = self.audio.getsockname()[1]
        lines = ["v=0", f"o=- 1 {self.number + 1} IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
        lines += [
            f"m=audio {port} RTP/AVP {self.codec} 101",
            f"a=rtpmap:{self.codec} {_NAMES[self.codec]}/8000",
            "a=rtpmap:101 telephone-event/8000",
        ]
        direction = "sendonly" if self.is_held else "sendrecv"
        return "\r\n".join([*lines, "a=fmtp:101 0-15", f"a={direction}", ""])

    def talk_to(self, description: str) -> None:
        found = re.search(r"^m=audio (\d+)", description, re.MULTILINE)
        self.peer = ("127.0.0.1", int(found[1])) if found else self.peer

    def press(self, keys: str) -> None:
        self.keys += [(_KEYS.index(key), step) for key in keys for step in range(_PACKETS)]

    @property
    def replaces(self) -> str:
        """RFC 3891, 3: the header by which another call takes the place of this one, for its other end."""
        own, other = (_TAG.search(end) for end in (self.sender, self.to))
        tags = f"to-tag={other[1] if other else ''};from-tag={own[1] if own else ''}"
        return urllib.parse.quote(f"{self.id};{tags}", safe="")

    def send(self, tones: Mapping[int, bytes], first_sequence: int, frames: int) -> None:
        """RFC 3550, 5.1: version 2; in place of the tone's a key's packets, payload type 101.

        tones: the same one in each codec.
        """
        if self.peer is None:
            return
        count = FRAME_SAMPLES * frames
        sequence, stamp = (first_sequence + self.sent) & 0xFFFF, self.sent * count
        kind, content = self.codec, tones[self.codec][stamp % RATE : stamp % RATE + count]
        if self.is_held:
            content = _SILENCE[self.codec] * count
        if self.keys:
            key, step = self.keys.pop(0)
            self.pressed_at = self.pressed_at if step else stamp
            kind, content = 101 if step else 0x80 | 101, _key(key, step, count)
            stamp = self.pressed_at
        head = struct.pack("!BBHII", 0x80, kind, sequence, stamp, hash(self.id) & 0xFFFFFFFF)
        self.audio.sendto(head + content, self.peer)
        self.sent += 1


def _key(key: int, step: int, count: int) -> bytes:
    """RFC 4733, 2.3: the event, its end and volume, and for how long."""
    last = _PACKETS - _LAST_PACKETS
    return struct.pack("!BBH", key, 0x8A if step >= last else 0x0A, (min(step, last) + 1) * count)


def new_id() -> str:
    return uuid.uuid4().hex


@functools.cache  # telephones change their tone often, and it takes 40 ms
def make_tones(frequency: int, frames: int) -> dict[int, bytes]:
    """One second of it, and one packet more, in each codec."""
    count = RATE + FRAME_SAMPLES * frames
    samples = [int(_LOUDNESS * math.sin(2 * math.pi * frequency * n / RATE)) for n in range(count)]
    return {MU_LAW: bytes(map(_mu_law, samples)), A_LAW: bytes(map(_a_law, samples))}


def _mu_law(sample: int) -> int:
    """ITU-T G.711: sign, exponent, mantissa, all inverted."""
    sign = 0x80 if sample < 0 else 0
    size = min(abs(sample), 32635) + 0x84
    exponent = max(0, size.bit_length() - 8)
    return ~(sign | exponent << 4 | size >> (exponent + 3) & 0x0F) & 0xFF


def _a_law(sample: int) -> int:
    """ITU-T G.711: of 13 bits sign, exponent and mantissa, every other bit inverted."""
    sign = 0x80 if sample >= 0 else 0
    size = min(abs(sample) >> 3, 4095)
    exponent = max(0, size.bit_length() - 5)
    mantissa = size >> (max(exponent, 1)) & 0x0F
    return (sign | exponent << 4 | mantissa) ^ 0x55
