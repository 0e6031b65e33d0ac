"""A SIP telephone of our own, where a test must choose what the real ones of `phones` leave to chance.

It speaks as much of RFC 3261 as a call on 127.0.0.1 needs, and sends G.711 (RFC 3551) from a chosen sequence
number on. Register, dial, ring, answer, hold (RFC 3264, 8.4), press keys (RFC 4733), transfer blindly
(RFC 3515) and attended (RFC 3891), hang up.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType

from lab.sip_call import A_LAW, FRAME_SECONDS, Call, make_tones, new_id
from lab.sip_message import Message
from lab.waiting import wait_until

_POLL_SECONDS = 0.1
# For an answer that takes milliseconds: an Asterisk, or a program that it runs, may wait for its turn.
_ANSWER_SECONDS = 60


def let_talk(phones: Iterable[SipPhone], seconds: float) -> None:
    """Until each of these that is in a call has played its tone for so many seconds more.

    Asterisk writes a recording two seconds at a time: its size says that later.
    """
    until = {phone: phone.talked() + seconds for phone in phones if phone.calls()}
    wait_until(
        lambda: all(phone.talked() >= each for phone, each in until.items()), _ANSWER_SECONDS, "some talk"
    )


class SipPhone:
    """The telephone of one line; a context manager. It answers by itself, unless answers is False, and sends
    audio, unless sends is.

    first_sequence: the sequence number of the first RTP packet that it sends in each of its calls, to be
    changed only while it has none; frames: how many of 20 ms it puts into each.
    """

    def __init__(
        self, extension: str, port: int, frequency: int, first_sequence: int, frames: int = 1
    ) -> None:
        self.extension = extension
        self.answers = self.sends = True
        self.first_sequence = first_sequence
        self._port = port
        self._frames = frames
        self.say(frequency)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(_POLL_SECONDS)
        self._calls: dict[str, Call] = {}
        self._is_registered = threading.Event()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._listen), threading.Thread(target=self._play)]

    def __enter__(self) -> SipPhone:
        for thread in self._threads:
            thread.start()
        self._request(
            "REGISTER", Call(new_id(), f"<sip:{self.extension}@127.0.0.1>", f"sip:127.0.0.1:{self._port}")
        )
        if not self._is_registered.wait(_ANSWER_SECONDS):
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

    def say(self, frequency: int) -> None:
        """The tone that it plays from now on, in all its calls."""
        self._tones = make_tones(frequency, self._frames)

    def dial(self, number: str) -> None:
        """Call a number, and wait until it has answered."""
        call = Call(new_id(), f"<sip:{number}@127.0.0.1>", f"sip:{number}@127.0.0.1:{self._port}")
        self._calls[call.id] = call
        self._request("INVITE", call, call.description())
        wait_until(lambda: call.is_up, _ANSWER_SECONDS, f"{number} to answer {self.extension}")

    def calls(self) -> list[object]:
        """Those that are up."""
        return [call for call in list(self._calls.values()) if call.is_up]

    def talked(self) -> float:
        """For how many seconds, in that of its calls which is the longest."""
        sent = [call.sent for call in list(self._calls.values())]
        return max(sent, default=0) * self._frames * FRAME_SECONDS

    def wait_up(self, count: int = 1) -> None:
        """Until it is in so many calls."""
        wait_until(lambda: len(self.calls()) >= count, _ANSWER_SECONDS, f"a call at {self.extension}")

    def wait_ringing(self) -> None:
        wait_until(
            lambda: any(call.invitation for call in list(self._calls.values())),
            _ANSWER_SECONDS,
            f"{self.extension} to ring",
        )

    def answer(self) -> None:
        """What rings."""
        for call in list(self._calls.values()):
            if call.invitation:
                self._accept(call, call.invitation)

    def wait_idle(self) -> None:
        wait_until(lambda: not self._calls, _ANSWER_SECONDS, f"{self.extension} to be idle")

    def press(self, keys: str) -> None:
        """In all its calls."""
        for call in list(self._calls.values()):
            call.press(keys)

    def hold(self, is_held: bool = True) -> None:
        """Hold its call, or resume it: nothing is taken, and no tone is sent."""
        (call,) = list(self._calls.values())
        call.is_held = is_held
        self._invite_again(call)

    def change_codec(self) -> None:
        """Go on in A-law."""
        (call,) = list(self._calls.values())
        call.codec = A_LAW
        self._invite_again(call)

    def _invite_again(self, call: Call) -> None:
        self._request("INVITE", call, call.description())
        sent = call.number
        wait_until(
            lambda: call.agreed == sent, _ANSWER_SECONDS, f"the answer to {self.extension}'s invitation"
        )

    def transfer(self, number: str, is_patient: bool = False) -> None:
        """Send the other end of its call there, and be out of it; is_patient: only when that is done."""
        (call,) = list(self._calls.values())
        self._refer(call, f"sip:{number}@127.0.0.1:{self._port}", 200 if is_patient else 202)

    def join(self) -> None:
        """Put the other ends of its two calls together, and be out of both."""
        first, second = list(self._calls.values())
        self._refer(first, f"{second.target.partition(';')[0]}?Replaces={second.replaces}", 200)

    def _refer(self, call: Call, target: str, status: int) -> None:
        """Until it is told that status: 202 is the promise, 200 that it is done."""
        own = f"<sip:{self.extension}@127.0.0.1>"
        self._request("REFER", call, more=[f"Refer-To: <{target}>", f"Referred-By: {own}"])
        wait_until(
            lambda: status in call.referred,
            _ANSWER_SECONDS,
            f"the transfer to {target}",
            lambda: call.referred,
        )
        self.hang_up()

    def hang_up(self) -> None:
        for call in list(self._calls.values()):
            if call.invitation:
                self._reply(call.invitation, call.sender, status="486 Busy Here")
            else:
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
            for call in list(self._calls.values()) if self.sends else ():
                with contextlib.suppress(OSError):  # it has just ended
                    call.send(self._tones, self.first_sequence, self._frames)
            next_at += FRAME_SECONDS * self._frames
            self._is_over.wait(max(0.0, next_at - time.monotonic()))

    def _listen(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(OSError):  # nothing has come, or its call has just ended
                packet = self._socket.recv(65535)
                # Reports on audio go to the port after it (RFC 3550, 11), which may be this one.
                if packet[:1].isalpha():
                    self._take(Message(packet.decode()))

    def _take(self, message: Message) -> None:
        if message.status:
            self._take_answer(message)
        elif message.method == "INVITE":
            self._take_invitation(message)
        elif message.method != "ACK":
            self._reply(message, message.header("To"))
            self._take_request(message)

    def _take_request(self, message: Message) -> None:
        call = self._calls.get(message.header("Call-ID"))
        if call is None:
            return
        if message.method == "NOTIFY" and message.body.startswith("SIP/2.0 "):  # of a REFER: RFC 3515, 2.4.5
            call.referred.add(int(message.body.split()[1]))
        elif message.method == "BYE":
            self._forget(call.id)
        elif message.method == "CANCEL" and call.invitation:
            self._reply(call.invitation, call.sender, status="487 Request Terminated")
            self._forget(call.id)

    def _take_answer(self, message: Message) -> None:
        method = message.header("CSeq").split()[1]
        call = self._calls.get(message.header("Call-ID"))
        if method == "REFER" and call:
            call.referred.add(message.status)
        if message.status != 200:
            return
        if method == "REGISTER":
            self._is_registered.set()
        elif method == "INVITE" and call:
            call.to, call.target = message.header("To"), message.contact
            call.agreed = int(message.header("CSeq").split()[0])
            self._request("ACK", call)
            call.talk_to(message.body)

    def _take_invitation(self, message: Message) -> None:
        """A new call, or the same one with another description."""
        known = self._calls.get(message.header("Call-ID"))
        call = known or Call(message.header("Call-ID"), message.header("From"), message.contact)
        call.sender = call.sender or f"{message.header('To')};tag={new_id()}"
        self._calls[call.id] = call
        if not (self.answers or call.is_up):
            call.invitation = message
            self._reply(message, call.sender, status="180 Ringing")
            return
        self._accept(call, message)

    def _accept(self, call: Call, invitation: Message) -> None:
        call.invitation = None
        self._reply(invitation, call.sender, call.description())
        call.talk_to(invitation.body)

    def _request(self, method: str, call: Call, body: str = "", more: Sequence[str] = ()) -> None:
        call.sender = call.sender or f"<sip:{self.extension}@127.0.0.1>;tag={new_id()}"
        call.number += method != "ACK"
        number = call.agreed if method == "ACK" else call.number
        head = [
            f"{method} {call.target} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self._own_port};branch=z9hG4bK{new_id()};rport",
            "Max-Forwards: 70",
            f"From: {call.sender}",
            f"To: {call.to}",
            f"Call-ID: {call.id}",
            f"CSeq: {number} {method}",
            *more,
        ]
        self._send(head, body)

    def _reply(self, message: Message, to: str, body: str = "", status: str = "200 OK") -> None:
        head = [f"SIP/2.0 {status}", *(f"Via: {via}" for via in message.headers("Via")), f"To: {to}"]
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
