"""stop_record: what we record of this call has ended when it returns with status 200."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from noojee_agi import text
from noojee_agi.actions import calls
from noojee_agi.actions.arguments import Request
from noojee_agi.actions.context import Context
from noojee_agi.actions.result import Result
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.target import CommandLine, Running, Target
from noojee_agi.errors import CallGone, ManagerUnavailable, NoSuchCall, NotAllowed, NotRecording
from noojee_agi.recordings import disk, recording


def stop_record(request: Request, channel: Channel | CommandLine, context: Context) -> Result:
    """End every leg of ours in the conversation. MixMonitor closes the file, and finish_record.py tells of
    the end.

    Raises the errors whose status the dialplan gets, and CallGone.
    """
    with calls.admitted(request.exten_or_uniqueid, channel, context, prefers_recorded=True) as target:
        return _stop(target, request.agent_login_name.strip())


def _stop(target: Target, login: str) -> Result:
    files = {running: _file(running) for running in target.running}
    running = {each: file for each, file in files.items() if file}
    if not running and not target.unreachable:
        raise NotRecording(_not_recording(target))
    legs = [_known(each, file, login) for each, file in running.items()]
    if login and legs:
        _require_owner(login, [owner for _, owner in legs])
    for file in running.values():
        disk.exists(file)  # else DiskSilent: Asterisk closes it while the call waits (app_mixmonitor.c)
    for each in running:
        with contextlib.suppress(NoSuchCall):  # with that end's call its recording has ended, too
            each.stop()
            each.forget()
    if target.unreachable:
        raise ManagerUnavailable(target.unreachable)
    return Result(200, calls.ok_message(target, target.remarks), legs[0][0], next(iter(running.values())))


def _file(running: Running) -> str:
    """Empty when it has ended, if only with that end's call. Raises CallGone and ManagerUnavailable."""
    try:
        return running.file()
    except CallGone:
        raise
    except NoSuchCall:
        return ""


def _not_recording(target: Target) -> str:
    which = target.call if target.is_other else "this call"
    remarks = "".join(f"; {remark}" for remark in target.remarks)
    return f"{which} is not being recorded{remarks}; noojee-agi record list shows what is"


def _require_owner(login: str, owners: list[str | None]) -> None:
    """For now, only its owner may stop a leg by name."""
    if None in owners:
        raise NotAllowed("whose recording it is has not come into the database yet: try again in a moment")
    if set(owners) != {login}:
        raise NotAllowed(f"the recording is not {text.plain(login)}'s: it goes on")


def _known(running: Running, file: str, login: str) -> tuple[str, str | None]:
    """The leg's id and its owner: empty when it has none, None when that is not settled yet.

    From what the start has left on the channel, else from the side-car that the drain has written.
    """
    leg_id, _, owner = running.leg.partition(" ")
    if leg_id[:8] != recording.id_in(file):  # that of another leg: this one's start died before it said so
        leg_id, owner = "", ""
    if leg_id and (owner or not login):
        return leg_id, owner
    leg = _side_car(file)
    return (str(leg["id"]), str(leg["owner"] or "")) if leg else (leg_id, None)


@disk.bounded()
def _side_car(file: str) -> Mapping[str, object]:
    from noojee_agi.recordings import sidecar  # 6 ms that no start has to wait for

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return sidecar.read(sidecar.path_for(file))
    return {}
