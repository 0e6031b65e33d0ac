"""start_record: this call is being recorded when it returns with status 200."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from noojee_agi import text
from noojee_agi.actions import calls, ending, frame, new_leg
from noojee_agi.actions.arguments import Request
from noojee_agi.actions.context import Context
from noojee_agi.actions.result import Result
from noojee_agi.asterisk import variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.target import CommandLine, Recordable, Running, Target
from noojee_agi.config import SAFE_PATH, Config
from noojee_agi.errors import (
    BadArgument,
    CallGone,
    DiskSilent,
    ManagerUnavailable,
    NoojeeError,
    NoSuchCall,
    NotStarted,
)
from noojee_agi.recordings import disk, wav
from noojee_agi.recordings.recording import Leg
from noojee_agi.recordings.snapshot import Knowledge

# Among 200 calls that begin together Asterisk took 1 s to open a file.
FILE_SEEN_WITHIN_SECONDS = 3.0
OK = 200
_FINISH_PROGRAM = "finish_record.py"


def start_record(request: Request, channel: Channel | CommandLine, context: Context) -> Result:
    """Check, spool, start, see the file. channel: the one that asks, which is meant unless another is named.

    Raises the errors whose status the dialplan gets, and CallGone.
    """
    with calls.admitted(request.exten_or_uniqueid, channel, context) as target:
        agent_known = check_agent(request.agent_login_name, context.config, context.knowledge)
        _check_finish_program(context.programs)
        leg = new_leg.make(request, target, context.config, agent_known)

        new_leg.write_ahead(leg, context.config)
        result, troubles = replace_running(leg, target, context)
        if result.status != OK:
            return result
        troubles += ending.end_pause(target)
        remarks = _remarks(leg, target, context)
        if target.channel is not channel and not troubles:
            troubles = tell_recorded(target, result._replace(message=calls.ok_message(target, remarks)))
    if target.channel is not channel:
        # What the asking channel knows of its own leg stays.
        result = result._replace(leg="", state="" if target.is_other else result.state)
    message = calls.ok_message(target, [*troubles, *remarks])
    return result if message == result.message else result._replace(message=message)


def replace_running(
    leg: Leg, target: Target, context: Context, has_ended: bool = False
) -> tuple[Result, list[str]]:
    """What records this conversation for us ends, then the new recording begins; and what went wrong.

    has_ended: what recorded this channel has ended already, maybe just now.

    In this order: a MixMonitor that is begun beside another one takes over its translators, and Asterisk 22
    may then leave the partner out of the file; one frame without any makes them anew.
    """
    troubles = [target.unreachable] if target.unreachable else []
    try:
        if target.running:
            target.channel.require_start(leg.file)
        for running in target.running:
            has_ended |= _end(running, troubles)
        if has_ended:
            frame.let_one_pass(target, context.pause)
    except CallGone:
        return _never_began(leg, context.config), []
    except NoSuchCall:
        pass  # the start says so, too
    except NotStarted as exc:
        new_leg.note_failed(leg, context.config)
        return Result(exc.status, str(exc), leg.id), []
    result, more = _start(leg, target.channel, context)
    if result.status != OK:
        troubles += ["the former leg has ended, nothing records this call now"] if has_ended else []
        result = result._replace(message="; ".join([result.message, *troubles]))
    return result, [*troubles, *more]


def _end(running: Running, troubles: list[str]) -> bool:
    """End a former leg; whether it was still going on."""
    try:
        was_going_on = bool(running.file())
        if was_going_on:
            running.stop()
        running.forget()
    except CallGone:
        raise
    except NoSuchCall:
        return False  # with that end's call its leg has ended, too
    except ManagerUnavailable as exc:
        troubles.append(f"the former leg may go on, or may have ended: {exc}")
        return False
    return was_going_on


def _start(leg: Leg, channel: Recordable, context: Context) -> tuple[Result, list[str]]:
    """MixMonitor begins, and its file is seen."""
    config = context.config
    owner = leg.agent_login_name.strip() if leg.agent_known else ""
    known = f"{leg.id} {owner}".strip()
    result = Result(OK, leg_id=leg.id, file=leg.file, leg=known, state=variables.RECORDING)
    name = f"{leg.file.rpartition('.')[0]}.{config.recordings_format}"  # the suffix is the format
    options = f"{config.recordings_mixmonitor_options}i({variables.MIXMONITOR_ID})"
    try:
        channel.mixmonitor(name, options, _end_command(leg, channel, context))
        if not _appears(leg.file, channel, context.pause):
            raise NotStarted(
                f"Asterisk did not create {leg.file} within {FILE_SEEN_WITHIN_SECONDS:g} s:"
                " look for app_mixmonitor and file.c in its log; [recordings] format must be one it knows"
            )
    except CallGone:
        return _hung_up(leg, channel, context)
    except DiskSilent as exc:  # StopMixMonitor would make Asterisk, and so the call, wait for the disk
        return Result(exc.status, f"{exc}; then this recording may begin", leg.id), []
    except NoojeeError as exc:
        if isinstance(exc, ManagerUnavailable) and _is_there(leg.file, channel):
            return result, [str(exc)]
        _undo(leg, channel, config)
        return Result(exc.status, str(exc), leg.id), []
    return result, []


def check_agent(login: str, config: Config, knowledge: Knowledge) -> bool | None:
    """Whether the login is an enabled account; None when nobody is named."""
    if not login:
        return None
    snapshot = knowledge.current()
    if snapshot is not None and login.strip() in snapshot.logins:
        return True
    if config.recordings_unknown_agent == "record":
        return False
    snapshot = knowledge.renewed()
    if snapshot is not None and login.strip() in snapshot.logins:
        return True
    raise BadArgument(f"no enabled account {text.plain(login)}: run noojee-agi account add, or list")


def _check_finish_program(programs: str) -> None:
    """Without it no leg would end; and MixMonitor hands its path to a shell."""
    program = f"{programs}/{_FINISH_PROGRAM}"
    if not SAFE_PATH.fullmatch(program) or not os.access(program, os.X_OK):
        raise NotStarted(
            f"{program} cannot be run: install in a path of letters, digits and . _ - that Asterisk's user"
            " can enter, then run noojee-agi install-agi (it links, a copy does not do)"
        )


def _end_command(leg: Leg, channel: Recordable, context: Context) -> str:
    """Empty where the end is seen without one, and the file's header tells of it: Asterisk forks for each.

    It runs without AGI's environment, so the configuration's path goes with it; '-' is none.
    """
    config = context.config
    if context.sees_ends and not channel.host and config.recordings_format in wav.FORMATS:
        return ""
    return f"{context.programs}/{_FINISH_PROGRAM} {config.path or '-'} {leg.id} {leg.file}"


def _appears(file: str, channel: Recordable, pause: Callable[[float], None]) -> bool:
    """Wait for the file, MixMonitor's only proof. It opens it at once, in a thread of its own."""
    deadline = time.monotonic() + FILE_SEEN_WITHIN_SECONDS
    seconds = 0.0001
    while not _is_there(file, channel):
        if time.monotonic() > deadline:
            return False
        pause(seconds)
        seconds = min(seconds * 2, 0.02)
    return True


def _is_there(file: str, channel: Recordable) -> bool:
    return channel.sees_file(file) if channel.host else disk.exists(file)


def _undo(leg: Leg, channel: Recordable, config: Config) -> None:
    """Nothing was seen: make sure that nothing of this leg records, and close it."""
    # A channel that is gone records nothing any more; a manager interface that is, cannot be asked.
    with contextlib.suppress(NoSuchCall, ManagerUnavailable):
        started = channel.mixmonitor_id()
        if started:
            channel.stop_mixmonitor(started)
            channel.set(variables.MIXMONITOR_ID, "")
    new_leg.note_failed(leg, config)


def _hung_up(leg: Leg, channel: Recordable, context: Context) -> tuple[Result, list[str]]:
    """When there is a file, finish_record.py will close the leg, else we do."""
    if channel.host:
        message = f"the caller hung up: noojee-agi sync on {leg.server} finds out"
        return Result(NotStarted.status, message, leg.id), []
    if _appears(leg.file, channel, context.pause):
        return Result(OK, leg_id=leg.id, file=leg.file), ["the caller hung up at once"]
    return _never_began(leg, context.config), []


def _never_began(leg: Leg, config: Config) -> Result:
    new_leg.note_failed(leg, config)
    return Result(NotStarted.status, "the caller hung up before the recording began", leg.id)


def tell_recorded(target: Target, result: Result) -> list[str]:
    """The dialplan of the recorded call, which did not ask, can see it too."""
    try:
        target.channel.set_all(result.variables)
    except NoSuchCall:
        pass  # it has just hung up
    except ManagerUnavailable as exc:
        return [f"that call's variables could not be set: {exc}"]
    return []


def _remarks(leg: Leg, target: Target, context: Context) -> list[str]:
    remarks = []
    if leg.agent_known is False:
        remarks.append(
            f"there is no enabled account {text.plain(leg.agent_login_name)}:"
            " only the group Recording Manager may hear it; run noojee-agi account list"
        )
    if leg.agent_known is None and leg.extension and context.knowledge.knows_nobody_at(leg.extension):
        named = text.plain(leg.extension)
        remarks.append(
            f"nobody is attached to {named}: only the group Recording Manager may hear it;"
            f" run noojee-agi attach LOGIN {named}"
        )
    return [*remarks, *target.remarks]
