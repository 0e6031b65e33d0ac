"""stop_record: what we record of this call has ended when it returns with status 200."""

from __future__ import annotations

import contextlib

from noojee_agi import arguments, calls, recording, spool, variables
from noojee_agi.answer import Answer
from noojee_agi.arguments import Request
from noojee_agi.calls import Target
from noojee_agi.errors import NotAllowed, NotRecording
from noojee_agi.means import Means
from noojee_agi.recording import Leg

TYPE_CHECKING = False  # importing typing for it would cost the caller 5 ms
if TYPE_CHECKING:
    from noojee_agi.calls import CommandLine
    from noojee_agi.channel import Channel


def stop_record(request: Request, channel: Channel | CommandLine, means: Means) -> Answer:
    """End the leg. MixMonitor closes the file, and finish_record.py tells of the end.

    Raises the errors whose status the dialplan gets, and CallGone.
    """
    with calls.admitted(request.exten_or_uniqueid, channel, means, prefers_recorded=True) as target:
        return _stop(target, request, means)


def _stop(target: Target, request: Request, means: Means) -> Answer:
    remark = f", but {target.remark}" if target.remark else ""
    running = recording.mixmonitor_id(target.values[variables.MIXMONITOR_ID])
    file = target.channel.mixmonitor_file(running) if running else ""
    if not file:
        raise NotRecording(f"this call is not being recorded{remark}; noojee-agi record list shows what is")
    leg_id, owner = _known(file, means.config.spool_directory)
    if request.agent_login_name:
        _require_owner(request.agent_login_name.strip(), owner)

    forgotten = recording.mixmonitor_id(target.values[variables.REPLACED_ID])
    for mixmonitor_id in {running, forgotten} - {""}:
        target.channel.stop_mixmonitor(mixmonitor_id)
    target.channel.set(variables.MIXMONITOR_ID, "")
    return Answer(200, f"OK{remark}", leg_id, file)


def _require_owner(login: str, owner: str | None) -> None:
    """For now, only its owner may stop a leg by name."""
    if owner is None:
        raise NotAllowed("whose recording it is has not come into the database yet: try again in a moment")
    if owner != login:
        raise NotAllowed(f"the recording is not {arguments.plain(login)}'s: it goes on")


def _known(file: str, spool_directory: str) -> tuple[str, str | None]:
    """The leg's id and its owner: empty when it has none, None when that is not settled yet.

    From the side-car that the drain has written, else from the event that still waits for it.
    """
    from noojee_agi import sidecar  # 6 ms that no start has to wait for

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        leg = sidecar.read(sidecar.path_for(file))
        return leg["id"], leg["owner"] or ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        for path in spool.waiting(spool_directory):
            event = spool.read(path) if _mark(file) in path else None
            if isinstance(event, Leg):
                return event.id, _named_owner(event)
    return "", None


def _mark(file: str) -> str:
    """What the name of a leg's `started` event and that of its file have in common."""
    return f"-{recording.STARTED}-{recording.id_in(file)}"


def _named_owner(leg: Leg) -> str | None:
    if not leg.agent_login_name:
        return None  # whoever was attached to the extension: the database knows
    return leg.agent_login_name.strip() if leg.agent_known else None
