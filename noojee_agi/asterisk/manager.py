"""Other live calls, over Asterisk's manager interface (AMI): the only one who speaks it.

A client of our own: the README says what those of others do when Asterisk does not answer, or when a value
holds a line end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

from noojee_agi import text
from noojee_agi.asterisk import live, target, variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.live import LiveChannel
from noojee_agi.asterisk.peers import NOBODY, Peer
from noojee_agi.asterisk.target import CommandLine, Running, Target
from noojee_agi.config import Config
from noojee_agi.errors import ManagerUnavailable, NoojeeError, NoSuchCall
from noojee_agi.recordings import recording

T = TypeVar("T")


class InThread(Protocol):
    """Does some work, and returns what it returns, or raises what it raises."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


# That a session waits for all answers together, so that a call hears of a dead manager interface within 3 s,
# whenever it died. Asterisk takes one second to refuse a wrong secret (manager.c authenticate).
PATIENCE_SECONDS = 2.5

_READ_BYTES = 65536
_MAX_MESSAGE = 1 << 20
_MAX_LINE_BYTES = 1000  # manager.c discards what is longer than its inbuf, 1025 bytes
_UNSET = "(null)"  # manager.c generate_status() prints this for what is not there
_NO_SUCH_CHANNEL = "No such channel"
# Errors that are none: a MixMonitor that has ended already, an Asterisk without res_parking.
_TOLERATED = {"StopMixMonitor": "Could not stop monitoring", "ParkedCalls": "Invalid/unknown command"}
_SEVERAL = ("ChanVariable", "")  # of manager.conf's channelvars; and what stands after the last line
_NOT_ALLOWED = ("Permission denied", "Access Forbidden")
_END = b"\r\n\r\n"


class Message(NamedTuple):
    """One message of Asterisk's. variables: those of a channel that a Status event tells.

    marks: its ActionIDs. Asterisk prints names and values as they are, and chan_pjsip decodes %0d%0a in a
    caller's number: so anybody may write further lines into the event of his channel. is_doubtful: he has.
    """

    fields: Mapping[str, str]
    variables: Mapping[str, str] = MappingProxyType({})
    marks: frozenset[str] = frozenset()
    is_doubtful: bool = False

    def get(self, name: str) -> str:
        return self.fields.get(name, "")


def _here(work: Callable[[], T]) -> T:
    return work()


class Manager:
    """One connection, made by the first action and made again when it broke; close() ends it.

    Every method raises ManagerUnavailable: not reachable, wrong secret, rights missing, or no answer in time;
    after that nothing more is tried.
    """

    def __init__(self, config: Config, in_thread: InThread = _here) -> None:
        """in_thread: where the waiting for Asterisk is done."""
        self._config = config
        self._in_thread = in_thread
        self._place = f"manager interface at {config.manager_host}:{config.manager_port}"
        self._connection: socket.socket | None = None
        self._received = b""
        self._failure = ""
        self._patience = PATIENCE_SECONDS

    @property
    def is_configured(self) -> bool:
        return bool(self._config.manager_username)

    def close(self) -> None:
        connection, self._connection, self._received = self._connection, None, b""
        if connection:
            connection.close()

    def channels(self) -> list[LiveChannel]:
        """All channels of this Asterisk, as they are now."""
        # By name, which stands before all that a caller can write into the event (res_parking,
        # parking_manager.c: ParkeeChannel, then its state, then ParkeeCallerIDNum).
        parked = {
            event.get("ParkeeChannel") for event in self._exchange("ParkedCalls", {}, "ParkedCallsComplete")
        }
        messages = self._exchange("Status", {"Variables": ",".join(target.READ)}, "StatusComplete")
        events = [message for message in messages if message.get("Event") == "Status"]
        doubtful = [self._ask_singly(event.get("Channel"), parked) for event in events if event.is_doubtful]
        told = [_live_channel(event, parked) for event in events if not event.is_doubtful]
        bridges = {channel.name: channel.bridge for channel in told}
        return [*told, *(_with_bridge(channel, bridges) for channel in doubtful if channel)]

    def _ask_singly(self, name: str, parked: set[str]) -> LiveChannel | None:
        """A channel whose event cannot be believed beyond its name; None once it is gone."""
        with contextlib.suppress(NoSuchCall):
            uniqueid = self.get(name, "UNIQUEID")
            values = {variable: self.get(name, variable) for variable in target.READ}
            is_up = self.get(name, "CHANNEL(state)") == "Up"
            return LiveChannel(
                name,
                uniqueid,
                values[variables.LINKEDID],
                live.UP if is_up else 0,
                is_parked=name in parked,
                values=values,
            )
        return None

    def require_right_to_record(self) -> None:
        """Whether the user may start a MixMonitor, tried at a channel that is not there."""
        with contextlib.suppress(NoSuchCall):
            self.act("MixMonitor", {"Channel": os.urandom(8).hex(), "File": "/dev/null"})

    def require_rights(self) -> None:
        """The same for all that is needed."""
        self.require_right_to_record()
        channel = {"Channel": os.urandom(8).hex()}
        for action, fields in (
            ("StopMixMonitor", {}),
            ("Setvar", {"Variable": variables.LEG}),
            ("Getvar", {"Variable": variables.LEG}),
        ):
            with contextlib.suppress(NoSuchCall):
                self.act(action, {**channel, **fields})

    def get(self, channel: str, name: str) -> str:
        """A variable or function of the channel; empty when it is unset. Raises NoSuchCall."""
        return self.act("Getvar", {"Channel": channel, "Variable": name}).get("Value")

    def set(self, channel: str, name: str, value: str) -> None:
        """Set a variable of the channel; control characters in value become blanks. Raises NoSuchCall."""
        self.act("Setvar", {"Channel": channel, "Variable": name, "Value": value})

    def act(self, action: str, fields: Mapping[str, str], is_repeatable: bool = True) -> Message:
        """Asterisk's answer. is_repeatable: once more on a new connection, if this one breaks meanwhile.

        Raises NoSuchCall when there is no such channel (any more).
        """
        return self._exchange(action, fields, "", is_repeatable)[0]

    def _exchange(
        self, action: str, fields: Mapping[str, str], last: str, is_repeatable: bool = True
    ) -> list[Message]:
        return self._in_thread(lambda: self._exchange_here(action, fields, last, is_repeatable))

    def _exchange_here(
        self, action: str, fields: Mapping[str, str], last: str, is_repeatable: bool
    ) -> list[Message]:
        """The answer, and the events that follow it up to `last`, if that is not empty."""
        if self._failure:
            raise ManagerUnavailable(self._failure)
        try:
            is_connected = self._connection is not None
            try:
                return self._once(action, fields, last)
            except ConnectionError:
                if not is_repeatable or not is_connected:
                    raise
                self.close()
                return self._once(action, fields, last)
        except OSError as exc:
            raise self._failed(f"{self._place}: {_reason(exc)}; see [manager], and manager.conf") from exc
        except ManagerUnavailable as exc:
            raise self._failed(str(exc)) from exc

    def _once(self, action: str, fields: Mapping[str, str], last: str) -> list[Message]:
        if not self._connection:
            self._log_in()
        mark = self._send(action, fields)
        answer = self._answer(mark)
        if answer.get("Response") == "Success":
            return [answer, *(self._events(mark, last) if last else ())]
        said = answer.get("Message")
        if action in _TOLERATED and said.startswith(_TOLERATED[action]):
            return [answer]
        raise self._refused(action, said)

    def _events(self, mark: str, last: str) -> Iterator[Message]:
        """Those of a list, `last` included.

        An empty line in somebody's text cuts his event in pieces: the first is yielded, as doubtful, the
        others are his words. The ActionID, which he cannot know, stands in the last one.
        """
        is_cut, name = False, ""
        while name != last:
            event = self._message()
            is_end = mark in event.marks
            if not is_cut:
                name = event.get("Event") if is_end else ""
                yield event if is_end else event._replace(is_doubtful=True)
            is_cut = not is_end

    def _failed(self, reason: str) -> ManagerUnavailable:
        """From now on every action fails with this at once."""
        self._failure = reason
        self.close()
        return ManagerUnavailable(reason)

    def _log_in(self) -> None:
        address = (self._config.manager_host, self._config.manager_port)
        with self._waiting() as seconds:
            self._connection = socket.create_connection(address, seconds)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read_until(b"\r\n")  # the greeting
        challenge = self._answer(self._send("Challenge", {"AuthType": "MD5"})).get("Challenge")
        secret = challenge + self._config.manager_secret
        key = hashlib.md5(secret.encode(), usedforsecurity=False).hexdigest()
        name = self._config.manager_username
        mark = self._send("Login", {"AuthType": "MD5", "Username": name, "Key": key, "Events": "off"})
        if self._answer(mark).get("Response") != "Success":
            raise ManagerUnavailable(
                f"{self._place} refuses user {text.plain(name)}:"
                " compare username and secret with manager.conf, and its permit lines"
            )

    def _refused(self, action: str, said: str) -> NoojeeError:
        if said == _NO_SUCH_CHANNEL:
            return NoSuchCall("that call has just ended")
        if any(words in said for words in _NOT_ALLOWED):
            return ManagerUnavailable(
                f"{self._place}: user {text.plain(self._config.manager_username)} may not {action}:"
                " give it write = system,call in manager.conf"
            )
        return ManagerUnavailable(f"{self._place} refuses {action}: {text.plain(said)}")

    def _send(self, action: str, fields: Mapping[str, str]) -> str:
        """Returns the ActionID, which nobody can guess: what a channel is called may be anybody's text."""
        mark = os.urandom(8).hex()
        lines = [_line(*pair) for pair in {"Action": action, "ActionID": mark, **fields}.items()]
        assert self._connection is not None
        with self._waiting() as seconds:
            self._connection.settimeout(seconds)
            self._connection.sendall(b"\r\n".join([*lines, b"", b""]))
        return mark

    def _answer(self, mark: str) -> Message:
        """The next message with this ActionID; events that nobody asked for are passed over."""
        while mark not in (message := self._message()).marks:
            pass
        return message

    def _message(self) -> Message:
        return _parse(self._read_until(_END))

    def _read_until(self, end: bytes) -> bytes:
        """Raises TimeoutError and ConnectionError."""
        assert self._connection is not None
        searched = 0
        while (at := self._received.find(end, searched)) < 0:
            if len(self._received) > _MAX_MESSAGE:
                raise ManagerUnavailable(f"{self._place} says what no Asterisk says: look at [manager] port")
            searched = max(0, len(self._received) - len(end) + 1)
            with self._waiting() as seconds:
                self._connection.settimeout(seconds)
                read = self._connection.recv(_READ_BYTES)
            if not read:
                raise ConnectionResetError("it closes the connection")
            self._received += read
        message, self._received = self._received[:at], self._received[at + len(end) :]
        return message

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[float]:
        """For so many seconds at most; what it takes is taken off. Raises TimeoutError when none is left."""
        if self._patience <= 0:
            raise TimeoutError
        begun = time.monotonic()
        try:
            yield self._patience
        finally:
            self._patience -= time.monotonic() - begun


class OtherChannel:
    """Another channel of the same Asterisk, with the methods that `channel.Channel` has for our own.

    Each raises NoSuchCall once that channel is gone, and ManagerUnavailable. origin: the call's first one.
    """

    def __init__(
        self, manager: Manager, meant: LiveChannel, origin: LiveChannel, asker: Channel | CommandLine
    ) -> None:
        self._manager = manager
        self.host = asker.host
        self.sees_file = asker.sees_file
        self.name = meant.name
        self.uniqueid = meant.uniqueid
        self.extension = origin.extension
        self.did = origin.did
        self.caller = origin.caller

    def set(self, name: str, value: str) -> None:
        self._manager.set(self.name, name, value)

    def set_all(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self.set(name, value)

    def mixmonitor(self, file: str, options: str, end_command: str) -> None:
        """Start MixMonitor there; the answer is the same whether it records or not."""
        fields = {"Channel": self.name, "File": file, "Options": options}
        if end_command:
            fields["Command"] = end_command
        self._manager.act("MixMonitor", fields, is_repeatable=False)

    def require_start(self, file: str) -> None:
        """Raises what a start would, as far as that can be known before; file: where it would record."""
        self._manager.require_right_to_record()
        if self.host:
            self.sees_file(file)

    def stop_mixmonitor(self, mixmonitor_id: str) -> None:
        """End this one MixMonitor, unless it has ended already."""
        self._manager.act("StopMixMonitor", {"Channel": self.name, "MixMonitorID": mixmonitor_id})

    def get_all(self, *names: str) -> dict[str, str]:
        return {name: self._manager.get(self.name, name) for name in names}

    def mixmonitor_id(self) -> str:
        return recording.mixmonitor_id(self._manager.get(self.name, variables.MIXMONITOR_ID))

    def mixmonitor_file(self, mixmonitor_id: str) -> str:
        return self._manager.get(self.name, variables.mixmonitor_file(mixmonitor_id))


def find(
    manager: Manager, asked: str, asker: Channel | CommandLine, prefers_recorded: bool = False
) -> Target:
    """Another live call than the asking one; prefers_recorded: see live.Switchboard.

    Raises NoSuchCall and ManagerUnavailable.
    """
    if not manager.is_configured:
        kind = NoSuchCall if asker.uniqueid else ManagerUnavailable
        raise kind(
            f"the live call {text.plain(asked)} cannot be looked for:"
            " set [manager] username in noojee_agi.conf"
        )
    channels = manager.channels()
    if asker.uniqueid and asker.uniqueid not in {channel.uniqueid for channel in channels}:
        raise ManagerUnavailable(
            "[manager] leads to another Asterisk than this call's, which does not know it: see host and port"
        )
    found = live.Switchboard(channels).find(asked, prefers_recorded)
    meant = found.channel
    origin = next((channel for channel in channels if channel.uniqueid == meant.linkedid), meant)
    remark = f"there are {found.others + 1} live calls: name a uniqueid for another"
    return Target(
        OtherChannel(manager, meant, origin, asker),
        meant.values,
        found.extension,
        found.extensions,
        tuple(
            Running(OtherChannel(manager, end, origin, asker), end.mixmonitor_id, end.values[variables.LEG])
            for end in found.recorded
        ),
        Peer(found.peer.name, found.peer.uniqueid) if found.peer else NOBODY,
        (remark,) if found.others else (),
    )


def _live_channel(event: Message, parked: set[str]) -> LiveChannel:
    return LiveChannel(
        event.get("Channel"),
        event.get("Uniqueid"),
        event.get("Linkedid"),
        _number(event.get("ChannelState")),
        _number(event.get("Seconds")),
        event.get("BridgeID"),
        event.get("Application"),
        _known(event.get("CallerIDNum")),
        _known(event.get("ConnectedLineNum")),
        event.get("Exten"),
        event.get("DNID"),
        event.get("Channel") in parked,
        {name: event.variables.get(name, "") for name in target.READ},
    )


def _with_bridge(channel: LiveChannel, bridges: Mapping[str, str]) -> LiveChannel:
    """A channel that was asked singly, with the bridge of the one that it is bridged with: no variable says
    which. Else a caller could make his conversation look as if it were none.
    """
    peer = channel.values[variables.BRIDGEPEER].partition(",")[0]
    pair = " and ".join(sorted([channel.name, peer])) if peer else ""
    return channel._replace(bridge=bridges.get(peer) or pair)


def _parse(text: bytes) -> Message:
    """A message's lines; of a field that comes twice, the first."""
    fields: dict[str, str] = {}
    values: dict[str, str] = {}
    marks: list[str] = []
    is_doubtful = False
    for line in text.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "Variable" and "=" in value:
            variable, _, content = value.partition("=")
            is_doubtful |= variable in values
            values.setdefault(variable, "" if content == _UNSET else content)
        else:
            is_doubtful |= name in fields and name not in _SEVERAL
            fields.setdefault(name, "" if value == _UNSET else value)
            marks += [value] if name == "ActionID" else []
    return Message(fields, values, frozenset(marks), is_doubtful)


def _line(name: str, value: str) -> bytes:
    line = f"{name}: {text.without_controls(value)}".encode("utf-8", "replace")
    if len(line) > _MAX_LINE_BYTES:
        raise NoojeeError(f"{name} exceeds the manager interface's limit of {_MAX_LINE_BYTES} bytes")
    return line


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _known(value: str) -> str:
    return "" if value == "<unknown>" else value  # manager_channels.c writes this for "not there"


def _reason(exc: OSError) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return exc.strerror or str(exc)
