"""Asterisk's side of the manager interface, over real TCP, with the channels that a test gives it."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from noojee_agi.config import Config
from unit.fakes import WAV_HEADER

USER, SECRET, CHALLENGE = "noojee", "s3cret-of-the-manager", "161803398"
_LONGEST_LINE = 1024
_NO_CHANNEL = "No such channel"
_SEPARATOR = "\x1f"


@dataclass
class FakeChannel:
    """A channel, its variables, and the files that its MixMonitors write, by id."""

    name: str
    uniqueid: str
    fields: Mapping[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    mixmonitors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.variables.setdefault("CHANNEL(linkedid)", self.fields.get("Linkedid", self.uniqueid))

    def value(self, name: str) -> str | None:
        of_mixmonitor = re.fullmatch(r"MIXMONITOR\((.*),filename\)", name)
        if of_mixmonitor:
            return self.mixmonitors.get(of_mixmonitor[1], "")
        of_channel = {"UNIQUEID": self.uniqueid, "CHANNEL(state)": self._state}
        return of_channel.get(name) or self.variables.get(name)

    @property
    def _state(self) -> str:
        return "Up" if self.fields.get("ChannelState", "6") == "6" else "Ringing"


class FakeManager:
    """Runs while the block runs. It is strict: what manager.c would refuse or misread is a complaint.

    before: called with each action before it is obeyed; when it returns False, nothing is answered.
    """

    def __init__(self, *channels: FakeChannel) -> None:
        self.channels = list(channels)
        self.actions: list[dict[str, str]] = []
        self.complaints: list[str] = []
        self.connections = 0
        self.refused_actions: set[str] = set()
        self.creates_files = True
        self.has_parking = True
        self.parked: dict[str, dict[str, str]] = {}  # name -> what the event says besides
        self.greeting = b"Asterisk Call Manager/9.0.0\r\n"
        self.before: Callable[[dict[str, str]], bool] = lambda action: True
        self.raw_answers: dict[str, bytes] = {}  # action -> what is said in place of the truth
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def options(self) -> dict[str, object]:
        return {"manager_port": self.port, "manager_username": USER, "manager_secret": SECRET}

    @property
    def config(self) -> Config:
        return Config(manager_port=self.port, manager_username=USER, manager_secret=SECRET)

    def __enter__(self) -> FakeManager:
        self._start(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            thread.join()

    def drop_connections(self) -> None:
        """As an Asterisk that restarts."""
        while self._open:
            connection = self._open.pop()
            with contextlib.suppress(OSError):  # its other end was quicker
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def names(self, action: str) -> list[dict[str, str]]:
        """The actions of this name, without their ActionID."""
        return [
            {name: value for name, value in each.items() if name not in ("Action", "ActionID")}
            for each in self.actions
            if each["Action"] == action
        ]

    def channel(self, name: str) -> FakeChannel | None:
        """By name in any letter case, else by uniqueid (channel.c ast_channel_get_by_name)."""
        by_name = [each for each in self.channels if each.name.casefold() == name.casefold()]
        by_uniqueid = [each for each in self.channels if each.uniqueid == name]
        return next(iter(by_name + by_uniqueid), None)

    def _start(self, target: Callable[..., None], *words: object) -> None:
        thread = threading.Thread(target=target, args=words, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        try:
            while True:
                connection = self._listener.accept()[0]
                self.connections += 1
                self._open.append(connection)
                self._start(self._serve, connection)
        except OSError:
            pass  # it was shut down

    def _serve(self, connection: socket.socket) -> None:
        may: set[str] = set()
        try:
            connection.sendall(self.greeting)
            with connection.makefile("rb") as stream:
                lines: list[str] = []
                for line in stream:
                    if len(line) > _LONGEST_LINE:
                        self.complaints.append(f"a line of {len(line)} bytes is discarded")
                    lines.append(line.decode().removesuffix("\r\n"))
                    if not lines[-1]:
                        self._obey(connection, dict(each.split(": ", 1) for each in lines[:-1]), may)
                        lines = []
        except OSError:
            pass  # the client has gone

    def _obey(self, connection: socket.socket, action: dict[str, str], may: set[str]) -> None:
        self.actions.append(action)
        name = action["Action"]
        if not self.before(action):
            return
        if name in self.raw_answers:
            connection.sendall(self.raw_answers[name].replace(b"ACTIONID", action["ActionID"].encode()))
            return
        if name in ("Challenge", "Login"):
            answer = self._log_in(name, action, may)
        elif not may or name in self.refused_actions:
            answer = _error("Permission denied")
        else:
            answer = getattr(self, f"_{name.lower()}")(action)
        mark = {"ActionID": action["ActionID"]}
        texts = [_message({"Response": answer[0]["Response"], **mark, **answer[0]})]
        for event in answer[
            1:
        ]:  # a channel's event has its ActionID last (manager.c generate_status; seen for ParkedCall)
            is_channels = event["Event"] in ("Status", "ParkedCall")
            texts.append(_message({**event, **mark} if is_channels else {**mark, **event}))
        connection.sendall("".join(texts).encode())

    def _log_in(self, name: str, action: dict[str, str], may: set[str]) -> list[dict[str, str]]:
        if name == "Challenge":
            return [{"Response": "Success", "Challenge": CHALLENGE}]
        right = hashlib.md5(f"{CHALLENGE}{SECRET}".encode()).hexdigest()
        if (action["Username"], action["Key"]) != (USER, right):
            return _error("Authentication failed")
        may.add("everything")
        return [{"Response": "Success", "Message": "Authentication accepted"}]

    def _ping(self, action: dict[str, str]) -> list[dict[str, str]]:
        return [{"Response": "Success", "Ping": "Pong"}]

    def _status(self, action: dict[str, str]) -> list[dict[str, str]]:
        names = re.findall(r"[^,(]+(?:\([^)]*\))?", action["Variables"])
        events = [
            {
                "Event": "Status",
                "Channel": each.name,
                "ChannelState": "6",
                "Uniqueid": each.uniqueid,
                "Linkedid": each.uniqueid,
                "Seconds": "1",
                **each.fields,
                "Variables": _SEPARATOR.join(f"{name}={_shown(each.value(name))}" for name in names),
            }
            for each in self.channels
        ]
        answer = {"Response": "Success", "EventList": "start", "Message": "Channel status will follow"}
        return [answer, *events, {"Event": "StatusComplete", "EventList": "Complete"}]

    def _getvar(self, action: dict[str, str]) -> list[dict[str, str]]:
        channel = self.channel(action["Channel"])
        if not channel:
            return _error(_NO_CHANNEL)
        value = channel.value(action["Variable"])
        return [{"Response": "Success", "Variable": action["Variable"], "Value": value or ""}]

    def _setvar(self, action: dict[str, str]) -> list[dict[str, str]]:
        channel = self.channel(action["Channel"])
        if not channel:
            return _error(_NO_CHANNEL)
        channel.variables[action["Variable"]] = action.get("Value", "")
        return [{"Response": "Success", "Message": "Variable Set"}]

    def _mixmonitor(self, action: dict[str, str]) -> list[dict[str, str]]:
        channel = self.channel(action["Channel"])
        if not channel:
            return _error(_NO_CHANNEL)
        new_id = f"0x7f35{len(channel.mixmonitors) + 1:08x}"
        channel.mixmonitors[new_id] = action["File"]
        id_variable = re.search(r"i\((\w+)\)", action["Options"])
        if id_variable:
            channel.variables[id_variable[1]] = new_id
        if self.creates_files:
            Path(action["File"]).write_bytes(WAV_HEADER)
        return [{"Response": "Success"}]

    def _stopmixmonitor(self, action: dict[str, str]) -> list[dict[str, str]]:
        channel = self.channel(action["Channel"])
        if not channel:
            return _error(_NO_CHANNEL)
        if channel.mixmonitors.pop(action["MixMonitorID"], None) is None:
            return _error("Could not stop monitoring channel")
        return [{"Response": "Success"}]

    def _parkedcalls(self, action: dict[str, str]) -> list[dict[str, str]]:
        if not self.has_parking:
            return _error("Invalid/unknown command: ParkedCalls. Use Action: ListCommands to show them.")
        named = [(each, self.channel(each)) for each in self.parked]
        events = [
            {
                "Event": "ParkedCall",
                "ParkeeChannel": name,
                **self.parked[name],
                "ParkeeUniqueid": each.uniqueid,
            }
            for name, each in named
            if each
        ]
        return [{"Response": "Success", "EventList": "start"}, *events, {"Event": "ParkedCallsComplete"}]


def _error(message: str) -> list[dict[str, str]]:
    return [{"Response": "Error", "Message": message}]


def _shown(value: str | None) -> str:
    """manager.c generate_status() hands a missing value to printf."""
    return "(null)" if value is None else value


def _message(fields: Mapping[str, str]) -> str:
    lines = []
    for name, value in fields.items():
        if name == "Variables":
            lines += [f"Variable: {each}" for each in value.split(_SEPARATOR)]
        else:
            lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""])
