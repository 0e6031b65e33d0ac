"""pause_record: nothing of what follows is in a file of ours when it returns with status 200."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from noojee_agi import text
from noojee_agi.actions import calls, ending
from noojee_agi.actions.arguments import Request
from noojee_agi.actions.context import Context
from noojee_agi.actions.result import Result
from noojee_agi.asterisk import variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.marks import Mark
from noojee_agi.asterisk.target import CommandLine, Marked, Running, Target
from noojee_agi.errors import ManagerUnavailable, NotRecording
from noojee_agi.recordings import recording

_ENDS_WITHIN_SECONDS = 0.5
_POLL_SECONDS = 0.01
_LOOKS = 3


def pause_record(request: Request, channel: Channel | CommandLine, context: Context) -> Result:
    """End every leg of ours in the conversation, until resume_record begins the next one.

    Each MixMonitor is seen to have ended, and then no other one of ours is there. Where that cannot be known,
    all that can be reached has ended, and ManagerUnavailable says so. Raises the errors whose status the
    dialplan gets, and CallGone.
    """
    with calls.admitted(request.exten_or_uniqueid, channel, context, prefers_recorded=True) as target:
        target, login = calls.with_all_ends(target, channel, context), request.agent_login_name.strip()
        running = ending.running(target)
        legs = ending.legs(running, login, context.config) or ending.legs_of_marks(_between(target), login)
        if not legs and not target.unreachable:
            raise NotRecording(_why_not(target))
        ending.require_permission(login, legs, context.knowledge)
        ending.require_disk(running.values())
        doubts = _Doubts(target.unreachable)
        if not target.is_alone:
            doubts.add("somebody else acts on this call too, or the state directory cannot be written")
        if legs:
            _mark(target, Mark(legs[0].id, legs[0].file, is_paused=True), doubts)
        _end_all(target, [*running], doubts, context)
        if not doubts.reasons:
            ending.set_state(target, variables.PAUSED)
    troubles = ending.note(legs, recording.PAUSED, login, context.config)
    doubts.require_none()
    if not legs[0].id:
        troubles.append("which leg it was is known nowhere: start_record begins the next one")
    state = "" if target.is_other else variables.PAUSED
    message = calls.ok_message(target, [*troubles, *target.remarks])
    return Result(200, message, legs[0].id, legs[0].file, state=state)


class _Doubts:
    """What could not be done, or seen: the rest is done all the same."""

    def __init__(self, first: str) -> None:
        self.reasons = [first] if first else []

    def add(self, reason: str) -> None:
        self.reasons.append(reason)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """What fails in the block, unless its channel is gone, with which its recording has ended."""
        try:
            with ending.still_there():
                yield
        except ManagerUnavailable as exc:
            self.add(str(exc))

    def require_none(self) -> None:
        """Raises ManagerUnavailable."""
        if self.reasons:
            reason = self.reasons[0]
            raise ManagerUnavailable(f"what could be reached has ended, but something may go on: {reason}")


def _between(target: Target) -> list[Marked]:
    """Where the next leg would begin, as when the call is parked."""
    return [each for each in target.marked if not each.mark.is_paused]


def _why_not(target: Target) -> str:
    return f"{ending.which(target)} is paused already" if target.marked else ending.not_recording(target)


def _mark(target: Target, mark: Mark, doubts: _Doubts) -> None:
    """Before anything ends: whoever follows the call begins no other leg then."""
    marked, recorded = [each.channel for each in target.marked], [each.channel for each in target.running]
    known = [*target.ends, *marked, *recorded]
    channels = {each.uniqueid: each for each in known}
    for channel in (channels or {target.channel.uniqueid: target.channel}).values():
        with doubts.noted():
            channel.set(variables.PERSON_OF, str(mark))


def _end_all(target: Target, running: Sequence[Running], doubts: _Doubts, context: Context) -> None:
    """These, and what has begun meanwhile, such as by somebody who did not wait for the lock."""
    for _ in range(_LOOKS):
        for each in running:
            with doubts.noted():
                each.stop()
                _require_ended(each, context)
                each.forget()
        running = _running_now(target, doubts, context)
        if not running:
            return
    doubts.add(f"a recording of {ending.which(target)} begins again and again")


def _require_ended(running: Running, context: Context) -> None:
    """Raises ManagerUnavailable."""
    deadline = time.monotonic() + _ENDS_WITHIN_SECONDS
    while running.file():
        if time.monotonic() > deadline:
            name = text.plain(running.channel.name)
            raise ManagerUnavailable(f"Asterisk does not end the MixMonitor of {name}")
        context.pause(_POLL_SECONDS)


def _running_now(target: Target, doubts: _Doubts, context: Context) -> list[Running]:
    if not target.ends:
        return []
    with doubts.noted():
        return [*ending.running(context.find_other(target.channel.uniqueid, True))]
    return []
