"""Ends a leg whose persons have changed, and begins the next one, by what Asterisk says of its channels."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from noojee_agi.actions import channel_lock, start_record
from noojee_agi.actions.context import Context
from noojee_agi.actions.next_leg import next_leg
from noojee_agi.asterisk import other_calls, target, variables
from noojee_agi.asterisk.live import Switchboard
from noojee_agi.asterisk.live_channel import LiveChannel
from noojee_agi.asterisk.manager import Manager
from noojee_agi.asterisk.other_calls import OtherChannel
from noojee_agi.asterisk.target import CommandLine, Running, Target
from noojee_agi.config import Config
from noojee_agi.errors import DiskSilent, ManagerUnavailable, NoojeeError, NoSuchCall, NotStarted
from noojee_agi.recordings import disk, former, recording, snapshot
from noojee_agi.recordings.snapshot import Knowledge
from noojee_agi.server.following import Following, Step
from noojee_agi.server.marking import Marking

logger = logging.getLogger(__name__)

_TRIES = 3
_MANY = 12  # asked for one by one; for more than these all are listed, in one go


class Legs:
    """Over one connection of the manager interface. Each method raises ManagerUnavailable.

    programs: the folder of finish_record.py; sees_ends: see Context. marking: for marks.
    """

    def __init__(
        self, manager: Manager, config: Config, programs: str, sees_ends: Callable[[], bool]
    ) -> None:
        self.marking = Marking(manager)
        self._manager = manager
        self._config = config
        self._asker = CommandLine("")
        self._sees_ends = sees_ends
        self._load_snapshot = snapshot.Cached()
        self._programs = programs

    def channels(self, names: Iterable[str] | None) -> list[LiveChannel]:
        """Those of these names or uniqueids, each once; all of them for None."""
        self._manager.renew_patience()  # for all that is done with these
        wanted = None if names is None else {*names}
        is_list = wanted is None or len(wanted) > _MANY
        listed = other_calls.channels(self._manager, None if is_list else wanted, target.READ)
        found = {channel.uniqueid: channel for channel in listed}
        return [
            each
            for each in found.values()
            if wanted is None or not wanted.isdisjoint((each.name, each.uniqueid))
        ]

    def leg_id(self, channel: LiveChannel, file: str) -> str:
        """Of the leg that has this file; empty where it is not known.

        Whoever has begun it and was killed then has not said so at the channel.
        """
        said = channel.values[variables.LEG].partition(" ")[0]
        if said[:8] == recording.id_in(file):
            return said
        found = former.find(self._config.spool_directory, file)
        return found[0] if found else ""

    def file(self, channel: LiveChannel) -> str:
        """Empty when it does not record any more, or elsewhere, where no next one would be seen."""
        with contextlib.suppress(NoSuchCall):
            file = self._manager.get(channel.name, variables.mixmonitor_file(channel.mixmonitor_id))
            return file if file and disk.exists(file) else ""
        return ""

    def still_records(self, followed: Following) -> bool:
        """By its file: an id is an address, which the next MixMonitor may have again (app_mixmonitor.c)."""
        with contextlib.suppress(NoSuchCall):
            file = variables.mixmonitor_file(followed.mixmonitor_id)
            return self._manager.get(followed.name, file) == followed.file
        return False

    def form(self, followed: Following, at: LiveChannel, listed: Sequence[LiveChannel]) -> Following:
        """The persons of the leg that records there are known now; the same leg when they are no more."""
        with self.locked(at, [*followed.uniqueids, *(channel.uniqueid for channel in listed)]) as listed:
            decision = followed.decide(Switchboard(listed))
            if decision.step is not Step.FORMED or not self.still_records(followed):
                return followed
            formed = followed._replace(persons=decision.persons)
            self.marking.set_all(formed, followed.leg_id, listed)
        return formed

    def forget(self, followed: Following) -> list[LiveChannel]:
        """Nobody follows it any more: the channels of those who talked in it, as they are then."""
        for at in self.channels(followed.uniqueids)[:1]:
            with self.locked(at, followed.uniqueids) as listed:
                self.marking.clear_all(followed.leg_id, listed)
                return listed
        return []

    def end(
        self, followed: Following, at: LiveChannel | None, listed: Sequence[LiveChannel]
    ) -> Following | None:
        """The leg as it is then: ended, or the same if things have changed meanwhile; None when it is over.

        at: the channel that it records; None when that is gone, and the leg has ended with it.
        """
        ended = followed._replace(mixmonitor_id="")
        if at is None:
            return ended
        with self.locked(at, [*followed.uniqueids, *(channel.uniqueid for channel in listed)]) as listed:
            if not self.still_records(followed):
                return None
            if followed.decide(Switchboard(listed)).step is not Step.END:
                return followed
            self.marking.set_ended(followed)
            self._stop(followed, listed)
        return ended

    @contextlib.contextmanager
    def locked(self, at: LiveChannel, uniqueids: Sequence[str]) -> Iterator[list[LiveChannel]]:
        """These channels as they are under the lock of the conversation of that one.

        Whose lock it is may change until it is had: with another bridge a channel has another linkedid.
        """
        linkedid = at.linkedid
        for tries_left in reversed(range(_TRIES)):
            with channel_lock.of(self._config.state_directory, linkedid, time.sleep, is_patient=True):
                listed = self.channels(uniqueids)
                now = next((each.linkedid for each in listed if each.uniqueid == at.uniqueid), linkedid)
                if now == linkedid or not tries_left:
                    yield listed
                    return
                linkedid = now

    def _stop(self, followed: Following, listed: Sequence[LiveChannel]) -> None:
        """Where it records, if it still does."""
        for running in self._running(followed, listed) if self.still_records(followed) else ():
            with contextlib.suppress(NoSuchCall):
                running.stop()
                running.forget()
                logger.info("leg %s ends: its call goes on elsewhere", followed.leg_id)

    def is_of_another(self, followed: Following, at: LiveChannel, listed: Sequence[LiveChannel]) -> bool:
        """Whether it was begun for an extension, and somebody of another has answered, as after a pickup.

        If that one is known: an extension may have another telephone, or be none.
        """
        known = self._former(followed)
        if known is None or known.agent_login_name or not known.extension:
            return False
        talking = [end.own_extension for end in Switchboard(listed).conversation(at)]
        now = self._knowledge().current()
        attached = now.attached if now else None
        return known.extension not in talking and not {*(attached or ())}.isdisjoint(talking)

    def _former(self, followed: Following) -> former.Former | None:
        found = former.find(self._config.spool_directory, followed.file)
        return found[1] if found else None

    def next(self, followed: Following, at: LiveChannel, listed: Sequence[LiveChannel]) -> Following | None:
        """The next leg, under the conversation's lock; the same leg when nothing is to be done any more, and
        None when it is over. at: where it is to begin, if that is still so then.

        Raises NoojeeError when there is none; the former one has ended then. DiskSilent: all is as it was.
        """
        known_of = [*followed.uniqueids, *(channel.uniqueid for channel in listed)]
        with self.locked(at, known_of) as listed:
            decision = followed.decide(Switchboard(listed))
            if decision.step is Step.OVER or (followed.mixmonitor_id and not self.still_records(followed)):
                return None
            if decision.at is None or decision.at.uniqueid != at.uniqueid:
                return followed  # it has changed meanwhile, which an event will tell
            at = decision.at
            try:
                known = self._former(followed)
                if known is None:
                    raise NotStarted(f"neither side-car nor spool knows leg {followed.leg_id}")
                target = self._target(at, listed)
                self.marking.set_ended(followed)
                was_recorded = followed.channel == at.uniqueid
                result = next_leg(known, target, was_recorded, self._context(known.server))
                if result.status != start_record.OK:
                    raise NotStarted(result.message)
            except (DiskSilent, NoSuchCall):  # to stop would hold the call; or it has changed meanwhile
                raise
            except NoojeeError:
                self._stop(followed, self.channels(followed.uniqueids))
                self.marking.clear(followed.name)
                raise
            started = self._manager.get(at.name, variables.MIXMONITOR_ID)
            after = Following(result.leg_id, result.file, at.uniqueid, at.name, started, decision.persons)
            self.marking.set_all(after, followed.leg_id, listed)
        logger.info("leg %s follows %s at %s: %s", result.leg_id, followed.leg_id, at.name, result.message)
        return after

    def _target(self, at: LiveChannel, listed: Sequence[LiveChannel]) -> Target:
        found = other_calls.target_of(self._manager, listed, at.uniqueid, self._asker)
        if found.channel.uniqueid != at.uniqueid:
            raise NoSuchCall(f"{at.name} is recorded at its other end")
        return found

    def _running(self, followed: Following, listed: Sequence[LiveChannel]) -> list[Running]:
        return [
            Running(
                OtherChannel(self._manager, each, each, self._asker),
                each.mixmonitor_id,
                each.values[variables.LEG],
            )
            for each in listed
            if each.uniqueid == followed.channel and followed.is_recorded_at(each)
        ]

    def _knowledge(self) -> Knowledge:
        return Knowledge(self._config.snapshot_file, lambda: None, self._load_snapshot)

    def _context(self, server: str) -> Context:
        """server: whose leg it is. The end of one that began under another name is not looked for here."""

        def nobody(asked: str, prefers_recorded: bool) -> Target:
            raise ManagerUnavailable("no other call is asked for")

        return Context(
            self._config,
            self._programs,
            self._knowledge(),
            nobody,
            time.sleep,
            lambda: None,
            self._sees_ends() and server == self._config.server_name,
        )
