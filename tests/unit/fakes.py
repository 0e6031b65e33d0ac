"""The neighbours of one call, in memory: Asterisk's side of AGI, the database, and the machine's folders."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from lab import spooled

from noojee_agi.actions import access
from noojee_agi.actions.result import Report
from noojee_agi.config import Config
from noojee_agi.recordings import recording, snapshot
from noojee_agi.recordings.recording import Ending, Event, Leg
from noojee_agi.recordings.snapshot import Snapshot
from noojee_agi.session import session

KEY = "f863246a-Key-973e"
PROGRAMS = str(Path(sys.executable).parent)
# Of a file that Asterisk has just opened, or closed without any audio (formats/format_wav.c).
WAV_HEADER = struct.pack(
    "<4sI8sIHHIIHH4sI", *(b"RIFF", 36, b"WAVEfmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 0)
)

# How a call ends under a running AGI program.
DEAD_CHANNEL = "every command is answered 511"
END_OF_FILE = "Asterisk closes its end without a word"
HANGUP_THEN_END = "FastAGI's line HANGUP, then the end"
HANGUP_THEN_ON = "FastAGI's line HANGUP in front of the reply, and answers as before"
HANG_UPS = (DEAD_CHANNEL, END_OF_FILE, HANGUP_THEN_END, HANGUP_THEN_ON)

# fgets() into res_agi.c's buffer: the line's end counts, and what is over is a line of its own.
_LONGEST_READ = 2047
_ENVIRONMENT = {
    "agi_request": "start_record.py",
    "agi_channel": "PJSIP/trunk-a-0000001f",
    "agi_uniqueid": "1762420501.77",
    "agi_callerid": "0301234567",
    "agi_calleridname": "unknown",
    "agi_dnid": "4930800",
    "agi_context": "inbound",
    "agi_extension": "800",
}


@dataclass
class MixMonitor:
    """One MixMonitor on the channel; file as Asterisk stores it."""

    id: str
    file: str
    options: str
    command: str
    is_running: bool = True
    audio: BinaryIO | None = None

    def end(self) -> None:
        """It closes its file, then it runs its command, if it has one: that is the caller's."""
        self.is_running = False
        if self.audio:
            self.audio.close()


class FakeAsterisk:
    """Asterisk's side of AGI on one channel, as res_agi.c speaks it. Its state outlives a session.

    It is strict: what real Asterisk would refuse or misread is a complaint, and check() fails for it.
    """

    def __init__(self, environment: Mapping[str, str] = _ENVIRONMENT, /, **variables: str) -> None:
        self.environment = dict(environment)
        self.variables = {"apiKey": KEY, "CHANNEL(linkedid)": "1762420501.76", **variables}
        self.others: dict[str, dict[str, str]] = {}  # other channels of this Asterisk: name -> what they have
        self.lines: list[str] = []  # every line of every session
        self.console: list[str] = []
        self.log: list[str] = []  # lines of Log()
        self.has_log = True
        self.mixmonitors: list[MixMonitor] = []
        self.complaints: list[str] = []
        self.creates_files = True
        self.has_mixmonitor = True
        self.next_id = ""  # of the next MixMonitor, when it matters
        self.before_mixmonitor: Callable[[MixMonitor], None] = lambda mixmonitor: None
        self.raw_replies: dict[str, str] = {}  # literal line -> what is answered in place of the truth
        self.hang_up_at = 0  # the n-th command of the session
        self.ignores_stops = False
        self.hang_up_style = DEAD_CHANNEL
        self.obeys_the_last = True  # whether the n-th command is carried out before the end
        self.left_unread = ""  # replies to a program that died before this session's
        self.count = 0
        self._unread = ""
        self._unfinished = b""
        self._is_closed = False

    def streams(self) -> tuple[io.TextIOBase, io.TextIOBase]:
        """A new session of this channel: what its program reads from, and what it writes to."""
        self.count, self._unfinished, self._is_closed = 0, b"", False
        self._unread = "".join(f"{name}: {value}\n" for name, value in self.environment.items()) + "\n"
        self._unread += self.left_unread
        return _Reader(self), _Writer(self)

    def check(self) -> None:
        """Fail for whatever the program did wrong."""
        if self._unread and not self._is_closed:
            self.complaints.append(f"nobody read the reply {self._unread!r}")
        assert self.complaints == []

    def running(self) -> list[str]:
        return [mixmonitor.file for mixmonitor in self.mixmonitors if mixmonitor.is_running]

    def executed(self, application: str) -> list[str]:
        """The literal EXEC lines of this application."""
        return [line for line in self.lines if words_of(line)[:2] == ["EXEC", application]]

    def answers(self) -> dict[str, str]:
        """What the dialplan was told."""
        return {name: value for name, value in self.variables.items() if name.startswith("RECORDING_")}

    def read(self, limit: int) -> str:
        if not self._unread and not self._is_closed:
            self.complaints.append("the program waits for a reply to nothing: it would wait for ever")
        line = self._unread[: self._unread.find("\n") + 1 or None]
        line = line if limit < 0 else line[:limit]
        self._unread = self._unread[len(line) :]
        return line

    def pending(self) -> str:
        """Take all that the program may read now: for a program that reads from a real pipe."""
        unread, self._unread = self._unread, ""
        return unread

    def receive(self, text: str) -> None:
        if self._is_closed:
            raise BrokenPipeError(32, "Broken pipe")
        self._unfinished += text.encode("utf-8", "replace")
        while b"\n" in self._unfinished or len(self._unfinished) >= _LONGEST_READ:
            end = (self._unfinished.find(b"\n") + 1) or _LONGEST_READ
            end = min(end, _LONGEST_READ)
            line, self._unfinished = self._unfinished[:end], self._unfinished[end:]
            self._take(line.decode("utf-8", "replace").removesuffix("\n"))

    def _take(self, line: str) -> None:
        self.lines.append(line)
        self.count += 1
        is_last = self.count == self.hang_up_at
        if not self.hang_up_at or self.count < self.hang_up_at:
            self._unread += self._reply(line)
        elif self.hang_up_style == DEAD_CHANNEL:
            self._unread += "511 Command Not Permitted on a dead channel or intercept routine\n"
        elif self.hang_up_style == HANGUP_THEN_ON:
            self._unread += ("HANGUP\n" if is_last else "") + self._reply(line)
        else:
            if self.obeys_the_last:
                self._reply(line)
            self._unread += "HANGUP\n" if self.hang_up_style == HANGUP_THEN_END else ""
            self._is_closed = True

    def _reply(self, line: str) -> str:
        if line in self.raw_replies:
            return self.raw_replies[line]
        words = words_of(line)
        if words[:2] == ["GET", "VARIABLE"] and len(words) == 3:
            return self._get(words[2])
        if words[:3] == ["GET", "FULL", "VARIABLE"] and len(words) == 4:
            return f"200 result=1 ({self._expanded(words[3])})\n"
        if words[:2] == ["EXEC", "MSet"] and len(words) == 3:
            return self._set_all(words[2])
        if words[:2] == ["SET", "VARIABLE"] and len(words) == 4:
            self.variables[words[2]] = words[3]
            return "200 result=1\n"
        if words[:1] == ["VERBOSE"] and len(words) == 3:
            self.console.append(words[1])
            return "200 result=1\n"
        if words[:2] == ["EXEC", "Log"] and len(words) == 3:
            return self._log(words[2])
        if words[:2] == ["EXEC", "MixMonitor"] and len(words) == 3:
            return self._start(words[2])
        if words[:2] == ["EXEC", "StopMixMonitor"] and len(words) == 3:
            return self._stop(words[2])
        self.complaints.append(f"unknown command: {line}")
        return "510 Invalid or unknown command\n"

    def _get(self, name: str) -> str:
        if name not in self.variables:
            return "200 result=0\n"
        return f"200 result=1 ({self.variables[name]})\n"

    def _expanded(self, expression: str) -> str:
        """Each ${name}, values as they are, into a buffer of 4096 bytes (handle_getvariablefull)."""
        text = re.sub(r"\$\{([^}]*)\}", lambda found: self._value(found[1]), expression)
        return text.encode("utf-8", "replace")[:4095].decode("utf-8", "replace")

    def add(self, name: str, uniqueid: str, **variables: str) -> None:
        """Another channel, of this call unless it has a CHANNEL(linkedid) of its own."""
        own = {"CHANNEL(name)": name, "UNIQUEID": uniqueid}
        self.others[name] = {**own, "CHANNEL(linkedid)": self.variables["CHANNEL(linkedid)"], **variables}

    def _imported(self, channel: str, name: str) -> str:
        """func_logic.c import_helper(): by name or uniqueid."""
        found = [
            each for each in self.others.values() if channel in (each["CHANNEL(name)"], each["UNIQUEID"])
        ]
        return found[0].get(name, "") if found else ""

    def _value(self, name: str) -> str:
        of_channel = re.fullmatch(r"IMPORT\(([^,]*),(.*)\)", name)
        if of_channel:
            return self._imported(of_channel[1], of_channel[2])
        of_all = re.fullmatch(r"CHANNELS\((.*)\)", name)
        if of_all:
            names = [self.environment["agi_channel"], *self.others]
            return " ".join(each for each in names if re.search(of_all[1], each))
        of_mixmonitor = re.fullmatch(r"MIXMONITOR\((.*),filename\)", name)
        if not of_mixmonitor:
            return self.variables.get(name, "")
        running = (each for each in self.mixmonitors if each.is_running and each.id == of_mixmonitor[1])
        return next((each.file for each in running), "")

    def _set_all(self, arguments: str) -> str:
        """pbx_variables.c pbx_builtin_setvar_multiple(): two parsers in a row."""
        for pair in application_arguments(arguments, 24):
            name, equals, value = application_arguments(pair, 1)[0].partition("=")
            if not equals or re.search(r"[^\w]", name):
                self.complaints.append(f"MSet of {pair}")
            self.variables[name] = value
        return "200 result=0\n"

    def _log(self, arguments: str) -> str:
        """app_verbose.c log_exec(), of which AGIEXECFULL=yes would expand the arguments first."""
        if not self.has_log:
            return "200 result=-2\n"
        level, message = (*application_arguments(arguments, 2), "")[:2]
        if level not in ("ERROR", "WARNING", "NOTICE", "DEBUG", "VERBOSE", "DTMF"):
            self.complaints.append(f"Log of the unknown level {level}")
        if re.search(r'[$"\\]', arguments):
            self.complaints.append(f"Log would act on a part of {arguments}")
        self.log.append(f"{level} {message}")
        return "200 result=0\n"

    def _start(self, arguments: str) -> str:
        """app_mixmonitor.c mixmonitor_exec(): the answer is the same whether it records or not."""
        if not self.has_mixmonitor:
            return "200 result=-2\n"
        file, options, command = (*application_arguments(arguments, 3), "", "")[:3]
        if not os.path.isabs(file) or not os.path.isdir(os.path.dirname(file)):
            self.complaints.append(f"MixMonitor's file is in no folder of ours: {file}")
        new_id = self.next_id or f"0x7f3500{len(self.mixmonitors) + 1:06x}"
        mixmonitor = MixMonitor(new_id, re.sub(r"\.wav49$", ".WAV", file), options, command)
        self.before_mixmonitor(mixmonitor)
        self.mixmonitors.append(mixmonitor)
        id_variable = re.search(r"i\((\w+)\)", options)
        if id_variable:
            self.variables[id_variable[1]] = new_id
        self.variables["MIXMONITOR_FILENAME"] = file
        if self.creates_files:
            mixmonitor.audio = open(mixmonitor.file, "wb", buffering=0)  # noqa: SIM115
            mixmonitor.audio.write(WAV_HEADER)
        return "200 result=0\n"

    def _stop(self, mixmonitor_id: str) -> str:
        if not mixmonitor_id:
            self.complaints.append("StopMixMonitor without an id: stops somebody else's")
        for mixmonitor in self.mixmonitors:
            if mixmonitor.id == mixmonitor_id and not self.ignores_stops:
                mixmonitor.end()
        return "200 result=0\n"


class _Reader(io.TextIOBase):
    def __init__(self, asterisk: FakeAsterisk) -> None:
        self._asterisk = asterisk

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        return self._asterisk.read(size)


class _Writer(io.TextIOBase):
    """Text reaches Asterisk when it is flushed, not before: Asterisk waits for what lies in a buffer."""

    def __init__(self, asterisk: FakeAsterisk) -> None:
        self._asterisk = asterisk
        self._buffer = ""

    def write(self, text: str, /) -> int:
        self._buffer += text
        return len(text)

    def flush(self) -> None:
        buffer, self._buffer = self._buffer, ""
        if buffer:
            self._asterisk.receive(buffer)


def words_of(line: str) -> list[str]:
    """The words of an AGI command by res_agi.c parse_args()."""
    words: list[str] = []
    is_quoted, is_escaped, is_between = False, False, True
    for character in line:
        if character == "\\" and not is_escaped:
            is_escaped = True
            continue
        starts_quote = character == '"' and not is_escaped
        is_blank = character in " \t" and not is_quoted and not is_escaped
        is_escaped = False
        if is_blank:
            is_between = True
            continue
        is_quoted = is_quoted != starts_quote
        if is_between and (not starts_quote or is_quoted):
            words.append("")
            is_between = False
        if not starts_quote:
            words[-1] += character
    return words


def application_arguments(text: str, limit: int) -> list[str]:
    """A dialplan application's arguments by app.c __ast_app_separate_args(); the last takes all the rest."""
    found, depth, is_quoted, is_escaped = [""], 0, False, False
    for character in text:
        if is_escaped:
            found[-1] += character
            is_escaped = False
        elif character == "\\":
            is_escaped = True
        elif character == '"':
            is_quoted = not is_quoted
        elif character == "," and not depth and not is_quoted and len(found) < limit:
            found.append("")
        else:
            depth += (character in "([") - (character in ")]" and depth > 0)
            found[-1] += character
    return found


class FakeDatabase:
    """What a session may ask the database for: has it read, and the snapshot written."""

    def __init__(self, key: str = KEY, logins: tuple[str, ...] = ("Fred",)) -> None:
        self.key_digest = access.digest(key) if key else ""
        self.logins = frozenset(logins)
        self.attached: frozenset[str] | None = None
        self.hear_all: frozenset[str] | None = None
        self.teams: list[dict[str, object]] | None = None
        self.is_up = True
        self.times_read = 0

    def __call__(self, config: Config) -> None:
        self.times_read += 1
        if self.is_up:
            known = (self.logins, recording.now(), self.attached, self.hear_all, self.teams)
            snapshot.save(config.snapshot_file, Snapshot(self.key_digest, *known))


def age_snapshot(config: Config, seconds: float) -> None:
    """Make the snapshot that many seconds older."""
    path = Path(config.snapshot_file)
    content = json.loads(path.read_text())
    read_at = datetime.fromisoformat(content["read_at"]) - timedelta(seconds=seconds)
    path.write_text(json.dumps({**content, "read_at": read_at.isoformat()}))


class Site:
    """One machine: its folders and configuration, its database, and what its spool and disk hold."""

    def __init__(self, directory: Path, database: FakeDatabase | None = None) -> None:
        self.recordings = directory / "recordings"
        self.state = directory / "state"
        self.recordings.mkdir(parents=True)
        self.state.mkdir()
        self.config = Config(
            recordings_directory=str(self.recordings),
            recordings_min_free_percent=0.0,
            state_directory=str(self.state),
            server_name="pbx1",
        )
        self.database = database or FakeDatabase()
        self.database(self.config)
        self.database.times_read = 0

    def configure(self, **options: object) -> None:
        self.config = self.config._replace(**options)  # type: ignore[arg-type]

    @property
    def surroundings(self) -> session.Surroundings:
        return session.Surroundings(PROGRAMS, lambda: self.config, self.database)

    def run(self, asterisk: FakeAsterisk, *words: str, program: str = "start_record") -> Report:
        """One AGI(program.py,words) on this channel, start to end."""
        call = session.Invocation(program, words)
        report = session.run(asterisk.streams(), lambda channel: call, self.surroundings)
        asterisk.check()
        return report

    def events(self) -> list[Event]:
        return spooled.events(Path(self.config.recordings_directory))

    def legs(self) -> list[Leg]:
        return [event for event in self.events() if isinstance(event, Leg)]

    def endings(self) -> list[Ending]:
        return [event for event in self.events() if isinstance(event, Ending)]

    def audio_files(self) -> list[str]:
        return [str(path) for path in sorted(self.recordings.rglob("*")) if path.suffix in (".wav", ".WAV")]

    def texts(self) -> str:
        """Everything that was written into our folders, audio apart."""
        files = [path for folder in (self.recordings, self.state) for path in folder.rglob("*")]
        return "\n".join(path.read_text() for path in files if path.is_file() and path.suffix != ".wav")


def leg(**fields: object) -> Leg:
    """A leg with ordinary values where the test names none."""
    ordinary = Leg(
        id="0e5f6b1c-6a57-4a6e-8f5e-0123456789ab",
        server="pbx1",
        call_uniqueid="1762420501.76",
        uniqueid="1762420501.77",
        channel="PJSIP/trunk-a-0000001f",
        extension="410",
        extensions=("410", "800"),
        agent_login_name="Fred",
        agent_known=True,
        tag="INV-22",
        source="0301234567",
        destination="800",
        did="4930800",
        file="/var/spool/asterisk/noojee/2025/11/06/1762420501.77-0e5f6b1c.wav",
        started_at=recording.now(),
        peer_channel="PJSIP/410-00000020",
        peer_uniqueid="1762420501.78",
    )
    return ordinary._replace(**fields)  # type: ignore[arg-type]
