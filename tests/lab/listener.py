"""Hears of Asterisk's bridges over the manager interface, and says who talked with whom, and when."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import NamedTuple

from lab import manager
from lab.waiting import wait_until

_END = b"\r\n\r\n"
_PAIR = 2
_MOVING_SECONDS = 0.5  # on a busy machine; a call that is parked too long comes back after one second


class Talk(NamedTuple):
    """Two telephones that hear each other; times as of time.time(), until is 0.0 while they still do."""

    pair: frozenset[str]
    since: float
    until: float = 0.0


class Listener:
    """A connection of the manager interface; a context manager. Its events have Asterisk's own times."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.settimeout(None)
        self._events: list[dict[str, str]] = []
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Listener:
        self._thread.start()
        self.act(Action="Login", Username=manager.USER, Secret=manager.SECRET, Events="call")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def act(self, **fields: str) -> None:
        """An action, and no waiting for what comes of it."""
        text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._socket.sendall(f"{text}\r\n".encode())

    def forget(self) -> None:
        """What has been until now; only while there are no channels."""
        self._events.clear()

    def seen(self, kind: str) -> list[Mapping[str, str]]:
        return [event for event in [*self._events] if event.get("Event") == kind]

    def wait_talking(self, *extensions: str) -> None:
        pair = frozenset(extensions)

        def are_talking() -> bool:
            return any(talk.pair == pair and not talk.until for talk in self.talks())

        wait_until(are_talking, 60, f"{' and '.join(extensions)} to talk", self.talks)

    def talks(self) -> list[Talk]:
        """All talks of two telephones, in the order of their beginnings.

        It is the same talk when both are put into another bridge, as when a Local channel is optimised away.
        """
        bridges: dict[str, str] = {}
        done: list[Talk] = []
        open_: dict[frozenset[str], Talk] = {}
        for event in [*self._events]:
            if event.get("Event") not in ("BridgeEnter", "BridgeLeave", "Rename"):
                continue
            _follow(event, bridges)
            pairs, now = set(_pairs(bridges)), _time(event)
            done += [open_.pop(pair)._replace(until=now) for pair in open_.keys() - pairs]
            open_ |= {pair: Talk(pair, now) for pair in pairs - open_.keys()}
        return _joined(sorted([*done, *open_.values()], key=lambda talk: talk.since))

    def _listen(self) -> None:
        received = b""
        with contextlib.suppress(ConnectionResetError):  # we close while Asterisk still sends
            while read := self._socket.recv(65536):
                *events, received = (received + read).split(_END)
                self._events += [_fields(event.decode(errors="replace")) for event in events]


def _joined(talks: list[Talk]) -> list[Talk]:
    found: list[Talk] = []
    for talk in talks:
        if found and found[-1].pair == talk.pair and talk.since - found[-1].until < _MOVING_SECONDS:
            found[-1] = found[-1]._replace(until=talk.until)
        else:
            found.append(talk)
    return found


def _fields(text: str) -> dict[str, str]:
    fields = dict(line.split(": ", 1) for line in text.split("\r\n") if ": " in line)
    return {"Timestamp": f"{time.time():.6f}", **fields}


def _time(event: Mapping[str, str]) -> float:
    return float(event["Timestamp"])


def _follow(event: Mapping[str, str], bridges: dict[str, str]) -> None:
    """bridges: that of each channel."""
    if event["Event"] == "BridgeEnter":
        bridges[event["Channel"]] = event["BridgeUniqueid"]
    elif event["Event"] == "BridgeLeave":
        bridges.pop(event["Channel"], None)
    elif event["Channel"] in bridges:
        bridges[event["Newname"]] = bridges.pop(event["Channel"])


def _pairs(bridges: Mapping[str, str]) -> Iterator[frozenset[str]]:
    """The telephones that are together in a bridge, also through Local channels, where they are two."""
    left = set(bridges)
    while left:
        group, waiting = set(), [left.pop()]
        while waiting:
            name = waiting.pop()
            group.add(name)
            near = {other for other in left if bridges[other] == bridges[name] or _are_halves(other, name)}
            left -= near
            waiting += near
        extensions = frozenset(_extension(name) for name in group if name.startswith("PJSIP/"))
        if len(extensions) == _PAIR:
            yield extensions


def _are_halves(one: str, other: str) -> bool:
    return one.startswith("Local/") and one[:-1] == other[:-1]


def _extension(channel: str) -> str:
    return channel.partition("/")[2].rpartition("-")[0]
