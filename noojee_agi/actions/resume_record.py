"""resume_record: a call that was paused is being recorded again when it returns with status 200."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noojee_agi.actions import calls, ending
from noojee_agi.actions.arguments import Request
from noojee_agi.actions.context import Context
from noojee_agi.actions.ending import OurLeg
from noojee_agi.actions.result import Result
from noojee_agi.actions.start_record import OK
from noojee_agi.asterisk import variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.target import CommandLine, Marked, Target
from noojee_agi.errors import ManagerUnavailable, NotRecording, NotStarted
from noojee_agi.recordings import recording

if TYPE_CHECKING:
    from noojee_agi.recordings.former import Former


def resume_record(request: Request, channel: Channel | CommandLine, context: Context) -> Result:
    """Begin the next leg: of the same call, with the same tag and owner, unless somebody else talks by now.

    It is at the channel that was recorded before, if that still is in the conversation. Raises the errors
    whose status the dialplan gets, and CallGone.
    """
    with calls.admitted(request.exten_or_uniqueid, channel, context, prefers_recorded=True) as target:
        target, login = calls.with_all_ends(target, channel, context), request.agent_login_name.strip()
        if ending.running(target):
            raise NotRecording(f"{ending.which(target)} is being recorded: it is not paused")
        paused = [each for each in target.marked if each.mark.is_paused]
        if not paused:
            _require_seen(target)
            raise NotRecording(f"{ending.which(target)} is not paused: start_record begins a recording")
        ending.require_permission(login, ending.legs_of_marks(paused, login), context.knowledge)
        result = _resume(target, paused, context)
        troubles = ending.end_pause(target) if result.status == OK else []
    if result.status != OK:
        return result
    new = OurLeg(result.leg_id, result.file, None)
    troubles += ending.note([new], recording.RESUMED, login, context.config)
    state = "" if target.is_other else variables.RECORDING
    leg = "" if target.is_other else result.leg
    return result._replace(
        message=calls.ok_message(target, [*troubles, *target.remarks]), state=state, leg=leg
    )


def _require_seen(target: Target) -> None:
    if target.unreachable:
        raise ManagerUnavailable(target.unreachable)


def _resume(target: Target, paused: list[Marked], context: Context) -> Result:
    # Only now: they take milliseconds, for which a start would wait.
    from noojee_agi.actions.next_leg import next_leg
    from noojee_agi.recordings import former

    mark = paused[0].mark
    found = former.find(context.config.spool_directory, mark.file)
    if found is None:
        raise NotStarted(f"neither side-car nor spool knows leg {mark.leg_id}: start_record begins a new one")
    recorded = next((each.channel for each in paused if each.leg), None)
    here = {end.uniqueid for end in target.ends} or {target.channel.uniqueid}
    is_here = recorded is not None and recorded.uniqueid in here
    if recorded and is_here and recorded.uniqueid != target.channel.uniqueid:
        target = context.find_other(recorded.uniqueid, True)
    is_same = is_here and _talks_with_the_same(target, found, here)
    return next_leg(found[1], target, is_here, context, is_same)


def _talks_with_the_same(target: Target, leg: tuple[str, Former], here: set[str]) -> bool:
    """As far as it is known with whom the recorded channel has talked in that leg."""
    of_leg, *persons = target.values[variables.PERSONS].split() or [""]
    if of_leg != leg[0]:
        persons = [leg[1].peer_uniqueid] if leg[1].peer_uniqueid else []
    return not persons or len(here) == 1 or not here.isdisjoint(persons)
