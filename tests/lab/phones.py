"""Real SIP telephones: each plays its own tone into its calls, keeps what it hears, is gone with the test.

Each is a baresip 1.0.0 out of Debian's package baresip-core, which registers at the private Asterisk over UDP
on 127.0.0.1. baresip, not sipp: one process takes any number of calls, is told to dial, answer and hang up
while it runs, says what becomes of its calls, and has the tone (module ausine) and the recording (sndfile)
without a sound card. sipp plays one scenario and keeps nothing of what it hears.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import debian, processes
from lab.postgresql import free_port
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until

START_SECONDS = 60.0
STOP_SECONDS = 1.0  # it takes leave of Asterisk, which may be gone already
ANSWER_SECONDS = 30.0
SUITE = "bookworm"  # not the machine's own: the configuration below is that of baresip 1.0.0

# What PrivateAsterisk shall load for telephones: calls, registration, audio and transfers.
MODULES = (
    "chan_pjsip", "res_pjproject", "res_pjsip", "res_pjsip_caller_id", "res_pjsip_endpoint_identifier_user",
    "res_pjsip_pubsub", "res_pjsip_refer", "res_pjsip_registrar", "res_pjsip_rfc3326", "res_pjsip_sdp_rtp",
    "res_pjsip_session", "res_rtp_asterisk",
)  # fmt: skip

TRANSPORT = """\
[transport]
type = transport
protocol = udp
bind = 127.0.0.1:{port}
"""
LINE = """\
[{extension}]
type = endpoint
context = {context}
disallow = all
allow = ulaw,alaw
direct_media = no
aors = {extension}
{variables}
[{extension}]
type = aor
max_contacts = 1
"""

# ausine knows no other rate and channels. No jitter buffer: when Asterisk bridges two channels it changes its
# SSRC, and the buffer would take all that comes from then on for late and drop it.
CONFIGURATION = """\
sip_listen 127.0.0.1:0
net_interface 127.0.0.1
audio_source ausine,{frequency}
ausrc_srate 48000
ausrc_channels 2
jitter_buffer_delay 0-0
statmode_default off
snd_path {heard}
ctrl_tcp_listen 127.0.0.1:{control_port}
module_path {modules}
module g711.so
module ausine.so
module sndfile.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
"""
ACCOUNT = "<sip:{extension}@127.0.0.1:{port}>;regint=600;answermode={mode};audio_codecs=PCMU,PCMA\n"

# What becomes of a call by baresip's events; CALL_CLOSED ends it.
STATES = {
    "CALL_INCOMING": "ringing",
    "CALL_RINGING": "ringing",
    "CALL_PROGRESS": "ringing",
    "CALL_ESTABLISHED": "up",
}


class PhoneFailed(Exception):
    """A telephone did not start, or did not do what it was told."""


def find() -> Path:
    """Return the root folder that holds baresip. Raises LabUnavailable."""
    root = debian.unpack("baresip-core", SUITE)
    if not (root / "usr/bin/baresip").is_file():
        raise LabUnavailable(f"no baresip in {root}: delete that folder, it is made again")
    return root


@dataclass(frozen=True)
class Lines:
    """The telephone lines of one Asterisk; their channels are PJSIP/<extension>-<number>.

    What a telephone dials is looked up in `context`; `variables` are set on every channel of every line.
    """

    extensions: Sequence[str]
    context: str = "test"
    variables: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    def configuration(self) -> str:
        """Return the text of pjsip.conf."""
        variables = "\n".join(f"set_var = {name}={value}" for name, value in self.variables.items())
        lines = [
            LINE.format(extension=extension, context=self.context, variables=variables)
            for extension in self.extensions
        ]
        return TRANSPORT.format(port=self.port) + "".join(lines)


@dataclass(frozen=True)
class Call:
    """One call of a telephone: with the number `peer`, `ringing` (here or at the other end) or `up`."""

    id: str
    peer: str
    state: str


class Phone:
    """The telephone of one line, with a folder of its own; a context manager, inside that of its Asterisk.

    It plays `frequency` (Hz) into each of its calls as long as that is up, also into two at once: the second
    does not hold the first. It answers by itself, or, without `answers`, rings until answer() or hang_up().
    """

    def __init__(
        self, lines: Lines, extension: str, frequency: int, folder: Path, answers: bool = True
    ) -> None:
        self.extension = extension
        self.folder = folder.absolute()
        self._lines = lines
        self._frequency = frequency
        self._answers = answers
        self._root = find()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Control | None = None
        self._calls: dict[str, Call] = {}

    def __enter__(self) -> Phone:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        """The process id of the running telephone."""
        if self._process is None:
            raise PhoneFailed(f"telephone {self.extension} is not started")
        return self._process.pid

    def dial(self, number: str) -> None:
        """Call a number; wait_up() tells when it has been answered."""
        self.command("dial", number)

    def answer(self) -> None:
        """Take the call that rings."""
        self.command("accept")

    def hang_up(self, peer: str | None = None) -> None:
        """End, refuse or give up the call with that number, or else the newest."""
        if peer is not None:
            self.command("callfind", self._call_with(peer).id)
        self.command("hangup")

    def calls(self) -> list[Call]:
        """Return the calls there are now, the oldest first."""
        for event in self._connected().events():
            self._note(event)
        return list(self._calls.values())

    def wait_ringing(self, limit: float = 60.0) -> None:
        """Wait until a call rings, here or at the other end."""
        self._wait_for("ringing", 1, limit)

    def wait_up(self, count: int = 1, limit: float = 60.0) -> None:
        """Wait until so many calls are answered."""
        self._wait_for("up", count, limit)

    def wait_idle(self, limit: float = 60.0) -> None:
        """Wait until there is no call; what was heard in the last one is then in its file."""
        wait_until(lambda: not self.calls(), limit, f"the end of the calls of telephone {self.extension}")
        self.command("listcalls")  # it closes the file after it has told of the end, before the next command

    def heard(self) -> list[Path]:
        """Return the WAV files of what came from the other end, one for each call that is over.

        The oldest is the first. They are named by the second: of two calls that are answered in the same one,
        only the newer is kept.
        """
        return sorted(self._heard.glob("*-dec.wav"))

    def command(self, name: str, params: str = "") -> str:
        """Return baresip's answer to one of its own commands: hold, resume, mute, transfer, help."""
        answer = self._connected().command(name, params)
        if not answer["ok"]:
            raise PhoneFailed(f"telephone {self.extension}, {name} {params}: {answer['data']}")
        return str(answer["data"])

    def log(self) -> str:
        """Return what baresip has said."""
        return self._log.read_text(errors="replace")

    @property
    def _heard(self) -> Path:
        return self.folder / "heard"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _connected(self) -> Control:
        if self._control is None:
            raise PhoneFailed(f"telephone {self.extension} is not started")
        return self._control

    def _call_with(self, peer: str) -> Call:
        for call in self.calls():
            if call.peer == peer:
                return call
        raise PhoneFailed(f"telephone {self.extension} has no call with {peer}, only {self.calls()}")

    def _wait_for(self, state: str, count: int, limit: float) -> None:
        def reached() -> bool:
            return [call.state for call in self.calls()].count(state) >= count

        wait_until(reached, limit, f"{count} calls {state} at telephone {self.extension}")

    def _note(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind in STATES:
            peer = re.sub(r"^sips?:|@.*", "", event["peeruri"])
            self._calls[event["id"]] = Call(event["id"], peer, STATES[kind])
        elif kind == "CALL_CLOSED":
            self._calls.pop(event.get("id", ""), None)

    def _start(self) -> None:
        self._heard.mkdir(parents=True, exist_ok=True)
        control_port = free_port()
        self._write_configuration(control_port)
        words = [*processes.dies_with_us(), *debian.loader_command(self._root)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*words, str(self._root / "usr/bin/baresip"), "-f", str(self.folder)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._control = wait_until(lambda: self._connect(control_port), START_SECONDS, "a telephone's start")
        wait_until(self._is_registered, START_SECONDS, f"telephone {self.extension} to be registered")

    def _stop(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close()
        process, self._process = self._process, None
        if process is not None:
            processes.end(process, STOP_SECONDS)

    def _write_configuration(self, control_port: int) -> None:
        configuration = CONFIGURATION.format(
            frequency=self._frequency,
            heard=self._heard,
            control_port=control_port,
            modules=self._root / "usr/lib/baresip/modules",
        )
        mode = "auto" if self._answers else "manual"
        account = ACCOUNT.format(extension=self.extension, port=self._lines.port, mode=mode)
        (self.folder / "config").write_text(configuration)
        (self.folder / "accounts").write_text(account)

    def _connect(self, port: int) -> Control | None:
        if self._process is None or self._process.poll() is not None:
            raise PhoneFailed(f"telephone {self.extension} ended while it started:\n{self.log()[-2000:]}")
        try:
            return Control(port)
        except ConnectionRefusedError:
            return None

    def _is_registered(self) -> bool:
        ours = f"sip:{self.extension}@127.0.0.1:{self._lines.port}"
        return any(ours in line and "OK" in line for line in self.command("reginfo").splitlines())


class Control:
    """The connection to a running baresip, its module ctrl_tcp: commands and events as JSON in netstrings."""

    def __init__(self, port: int) -> None:
        """Raises ConnectionRefusedError as long as baresip does not listen."""
        self._socket = socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS)
        self._received = b""
        self._events: list[dict[str, Any]] = []
        self._commands = 0

    def close(self) -> None:
        """Close the connection; baresip goes on."""
        self._socket.close()

    def events(self) -> list[dict[str, Any]]:
        """Return the events since the last time, without waiting for more."""
        self._receive(0.0)
        self._take_messages()
        events, self._events = self._events, []
        return events

    def command(self, name: str, params: str) -> dict[str, Any]:
        """Return the answer to a command. Raises PhoneFailed when there is none in time."""
        self._commands += 1
        token = str(self._commands)
        text = json.dumps({"command": name, "params": params, "token": token}).encode()
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.sendall(b"%d:%s," % (len(text), text))
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            self._receive(ANSWER_SECONDS)
            for answer in self._take_messages():
                if answer.get("token") == token:
                    return answer
        raise PhoneFailed(f"no answer in {ANSWER_SECONDS:g} seconds to {name} {params}")

    def _receive(self, seconds: float) -> None:
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(65536)
        except (BlockingIOError, TimeoutError):
            return
        except ConnectionResetError:
            data = b""
        if not data:
            raise PhoneFailed("the telephone has ended")
        self._received += data

    def _take_messages(self) -> list[dict[str, Any]]:
        """Take the complete messages off what was received: keep the events, return the answers."""
        answers: list[dict[str, Any]] = []
        while (netstring := re.match(rb"(\d+):", self._received)) is not None:
            end = netstring.end() + int(netstring[1])
            if len(self._received) <= end:
                break
            message = json.loads(self._received[netstring.end() : end])
            self._received = self._received[end + 1 :]
            (self._events if message.get("event") else answers).append(message)
        return answers
