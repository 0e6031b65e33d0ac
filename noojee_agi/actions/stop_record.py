"""stop_record: what we record of this call has ended when it returns with status 200."""

from __future__ import annotations

from noojee_agi.actions import calls, ending
from noojee_agi.actions.arguments import Request
from noojee_agi.actions.context import Context
from noojee_agi.actions.result import Result
from noojee_agi.asterisk import variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.target import CommandLine, Target
from noojee_agi.errors import ManagerUnavailable, NotRecording
from noojee_agi.recordings import recording


def stop_record(request: Request, channel: Channel | CommandLine, context: Context) -> Result:
    """End every leg of ours in the conversation. MixMonitor closes the file, and finish_record.py tells of
    the end.

    Raises the errors whose status the dialplan gets, and CallGone.
    """
    with calls.admitted(request.exten_or_uniqueid, channel, context, prefers_recorded=True) as target:
        target = calls.with_all_ends(target, channel, context) if target.marked else target
        return _stop(target, request.agent_login_name.strip(), context)


def _stop(target: Target, login: str, context: Context) -> Result:
    running = ending.running(target)
    legs = ending.legs(running, login, context.config) or ending.legs_of_marks(target.marked, login)
    if not legs and not target.unreachable:
        raise NotRecording(ending.not_recording(target))
    ending.require_permission(login, legs, context.knowledge)
    ending.require_disk(running.values())
    ending.clear_marks(target)
    ending.end(running)
    ending.set_state(target, variables.STOPPED)
    if target.unreachable:
        raise ManagerUnavailable(target.unreachable)
    troubles = ending.note(legs, recording.STOPPED, login, context.config)
    state = "" if target.is_other else variables.STOPPED
    message = calls.ok_message(target, [*troubles, *target.remarks])
    return Result(200, message, legs[0].id, legs[0].file, state=state)
