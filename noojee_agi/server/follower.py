"""The server's process that follows recordings: when the persons of one change, its next leg begins.

The manager interface tells of each channel that enters or leaves a bridge. Of these events only the names
count, and only as a hint: what is done is decided by what Asterisk answers when it is asked.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable, Sequence

from noojee_agi.asterisk import events, variables
from noojee_agi.asterisk.bridges import Bridges
from noojee_agi.asterisk.events import Listener
from noojee_agi.asterisk.live import Switchboard
from noojee_agi.asterisk.live_channel import LiveChannel
from noojee_agi.asterisk.manager import Manager
from noojee_agi.asterisk.message import Message
from noojee_agi.config import Config
from noojee_agi.errors import DiskSilent, ManagerUnavailable, NoojeeError, NoSuchCall
from noojee_agi.recordings import recording
from noojee_agi.server import following, reports, sighup
from noojee_agi.server.counters import Counters
from noojee_agi.server.following import Decision, Following, Step
from noojee_agi.server.legs import Legs
from noojee_agi.server.pauses import Pauses
from noojee_agi.server.waiting_list import WaitingList

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_WAIT_SECONDS = 1.0  # after which another configuration is seen
_NAME_CHARACTERS = 80  # channel.h AST_CHANNEL_NAME: what is longer is forged
_STEPS = 4
_LOOK_SECONDS = 10.0  # at all channels: no event is relied on
_AGAIN_SECONDS = 5.0
# Asterisk does not send what a user may not read, and says nothing of that (manager.c).
_DEAF = "the manager interface tells of no call: give [manager] username read = call in manager.conf"


class Follower:
    """programs: the folder of finish_record.py. events: a pipe in which each byte tells of new events."""

    def __init__(
        self,
        load_config: Callable[[], Config],
        config: Config,
        programs: str,
        counters: Counters,
        events: int,
        listeners: Sequence[socket.socket],
    ) -> None:
        self._load_config = load_config
        self._config = config
        self._programs = programs
        self._counters = counters
        self._events = events
        self._listeners = listeners
        self._followed: dict[str, Following] = {}  # by the leg's id
        self._waiting = WaitingList()
        self._pauses = Pauses()
        self._bridges = Bridges()
        self._failure = ""

    @property
    def is_needed(self) -> bool:
        return bool(self._config.manager_username) and self._config.recordings_follow == "yes"

    def run(self, lifeline: int) -> None:
        """Until the other end of lifeline is closed."""
        for listener in self._listeners:
            listener.close()
        sighup.on_sighup(self._load_config, self.use)
        while True:
            config, seconds = self._config, _AGAIN_SECONDS
            try:
                if self.is_needed:
                    self._follow(config, lifeline)
                    seconds = 0
            except NoojeeError as exc:
                self._complain(str(exc))
            if _wait([lifeline], seconds):
                return

    def use(self, config: Config) -> None:
        self._config = config

    def _complain(self, reason: str) -> None:
        """Once for the same trouble."""
        if reason != self._failure:
            logger.error("recordings are not followed at once: %s", reason)
        self._failure = reason

    def _follow(self, config: Config, lifeline: int) -> None:
        """Until the lifeline is closed or the configuration changes. Raises ManagerUnavailable."""
        with contextlib.closing(Listener(config)) as listener, contextlib.closing(Manager(config)) as manager:
            legs = Legs(manager, config, self._programs, self._counters.sees_ends)
            self._look_at_all(legs)
            look_at = time.monotonic() + _LOOK_SECONDS
            self._failure = ""
            while self._config is config and not _wait([lifeline], 0):
                _wait([listener.fileno(), lifeline], _POLL_SECONDS if self._waiting else _WAIT_SECONDS)
                self._take(listener.read(), legs)
                self._look_later(legs)
                if time.monotonic() > look_at:
                    before = self._bridges
                    self._look_at_all(legs)
                    if self._bridges != before and not listener.has_heard:
                        self._complain(_DEAF)
                    look_at = time.monotonic() + _LOOK_SECONDS

    # ---- What has changed

    def _take(self, messages: Sequence[Message], legs: Legs) -> None:
        """Look at the recordings whose channels, or somebody in a bridge with them, an event names."""
        names = {name for message in messages if (name := self._note(message))}
        ended = {each.get("Channel") for each in messages if each.get("Event") == events.MIXMONITOR_STOP}
        for followed in [each for each in self._followed.values() if each.name in ended]:
            if followed.mixmonitor_id and not legs.still_records(followed):
                self._forget(followed, legs)
        if begun := {name for name in names if name in self._waiting}:
            self._adopt(legs.channels(begun), legs)
        if names and (self._followed or self._pauses.names):
            around = self._bridges.around(names)
            if not around.isdisjoint(self._pauses.names):
                self._pauses.look(legs.channels(around), legs)
            self._look_among(around | {message.get("Uniqueid") for message in messages}, legs)

    def _note(self, message: Message) -> str:
        """The channel that an event of bridges names."""
        kind, name = message.get("Event"), message.get("Channel")[:_NAME_CHARACTERS]
        if kind == events.BRIDGE_ENTER:
            self._bridges.enter(message.get("BridgeUniqueid"), name)
        elif kind == events.BRIDGE_LEAVE:
            self._bridges.leave(name)
        elif kind == events.MIXMONITOR_START:
            self._waiting.add(name)
            return ""
        return name

    def _look_among(self, names: set[str], legs: Legs) -> None:
        """At recordings of these channels; names, or uniqueids."""
        for followed in [each for each in self._followed.values() if each.is_among(names)]:
            listed = self._around(followed, legs)
            if following.is_with_a_stranger(listed):
                listed = legs.channels(None)
            self._act(followed, legs, listed)

    def _around(self, followed: Following, legs: Legs) -> list[LiveChannel]:
        """Its channels, and all that an event has brought together with them."""
        others = self._bridges.around(followed.names) - {*followed.names}
        return legs.channels([*followed.uniqueids, *others])

    def _look_later(self, legs: Legs) -> None:
        """At channels where a MixMonitor has begun."""
        if due := self._waiting.due():
            listed = legs.channels(due)
            self._adopt(listed, legs)
            self._look_among(due, legs)

    def _look_at_all(self, legs: Legs) -> None:
        listed = legs.channels(None)
        self._bridges = Bridges({channel.name: channel.bridge for channel in listed if channel.bridge})
        self._adopt(listed, legs)
        self._pauses = Pauses()
        self._pauses.look(listed, legs)
        for ended in following.that_ended(listed):
            self._followed.setdefault(ended.leg_id, ended)
        board = Switchboard(listed)
        for followed in [*self._followed.values()]:
            if followed.with_names_of(board).decide(board).step is not Step.NOTHING:
                self._act(followed, legs, listed)

    # ---- What is followed

    def _adopt(self, listed: Sequence[LiveChannel], legs: Legs) -> None:
        """Those that are recorded by us, and of which leg."""
        names = {channel.uniqueid: channel.name for channel in listed}
        known = {each.mixmonitor_id for each in self._followed.values()}
        for channel in listed:
            if channel.mixmonitor_id and channel.mixmonitor_id not in known:
                file = legs.file(channel)
                if recording.is_ours(file) and (leg_id := legs.leg_id(channel, file)):
                    of_leg, *talked = channel.values[variables.PERSONS].split() or [""]
                    persons = {each: names.get(each, "") for each in talked if of_leg == leg_id}
                    self._followed[leg_id] = Following(
                        leg_id, file, channel.uniqueid, channel.name, channel.mixmonitor_id, persons
                    )

    def _forget(self, followed: Following, legs: Legs) -> None:
        """As when somebody has stopped or paused it, or another start has replaced it."""
        del self._followed[followed.leg_id]
        self._pauses.look(legs.forget(followed), legs)

    def _act(self, followed: Following, legs: Legs, listed: Sequence[LiveChannel]) -> None:
        """Do what is to be done, until that is nothing. Raises ManagerUnavailable."""
        for _ in range(_STEPS):
            board = Switchboard(listed)
            followed = self._followed[followed.leg_id] = followed.with_names_of(board)
            decision = followed.decide(board)
            if decision.step is Step.NOTHING:
                return
            try:
                after = self._do(decision, followed, legs, listed)
            except (ManagerUnavailable, DiskSilent):  # tried again
                raise
            except NoSuchCall:  # it has just left
                listed = self._around(followed, legs)
                continue
            except NoojeeError as exc:
                logger.error("leg %s ends, and none follows: %s", followed.leg_id, exc)
                after = None
            if after is None:
                self._forget(followed, legs)
                return
            del self._followed[followed.leg_id]
            self._followed[after.leg_id] = after
            if decision.step is Step.FORMED and after.leg_id == followed.leg_id and after.persons:
                return  # as they were under the lock: what has changed since, an event tells
            followed = after
            listed = self._around(followed, legs)

    def _do(
        self, decision: Decision, followed: Following, legs: Legs, listed: Sequence[LiveChannel]
    ) -> Following | None:
        """What is followed then, if anything."""
        if decision.step is Step.END:
            at = next((each for each in listed if each.uniqueid == followed.channel), None)
            return legs.end(followed, at, listed)
        if decision.at is None:
            return None
        if decision.step is not Step.NEXT and not legs.is_of_another(followed, decision.at, listed):
            return legs.form(followed, decision.at, listed)
        after = legs.next(followed, decision.at, listed)
        if after is not followed:
            reports.tell(self._events)
        return after


def _wait(descriptors: Sequence[int], seconds: float) -> bool:
    """Whether one of them can be read, within so many seconds."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
