"""start_record: this call is being recorded when it returns with status 200."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable

from noojee_agi import text
from noojee_agi.actions import calls
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
    TooLittleSpace,
)
from noojee_agi.recordings import disk, files, recording, spool, wav
from noojee_agi.recordings.recording import Ending, Leg
from noojee_agi.recordings.snapshot import Knowledge

Pause = Callable[[float], None]

# Among 200 calls that begin together Asterisk took 1 s to open a file.
FILE_SEEN_WITHIN_SECONDS = 3.0
# A frame of a telephone is 20 ms long (RFC 3551, 4.2), with some settings up to 60.
_FRAME_SECONDS = 0.08
OK = 200
_FINISH_PROGRAM = "finish_record.py"


def start_record(request: Request, channel: Channel | CommandLine, context: Context) -> Result:
    """Check, spool, start, see the file. channel: the one that asks, which is meant unless another is named.

    Raises the errors whose status the dialplan gets, and CallGone.
    """
    with calls.admitted(request.exten_or_uniqueid, channel, context) as target:
        agent_known = _check_agent(request.agent_login_name, context.config, context.knowledge)
        _check_finish_program(context.programs)
        leg = _new_leg(request, target, context.config, agent_known)

        _write_ahead(leg, context.config)
        result, troubles = _replace_running(leg, target, context)
    if result.status != OK:
        return result
    remarks = _remarks(leg, target, context)
    if target.channel is not channel:
        if not troubles:
            troubles = _tell_recorded(target, result._replace(message=_message(target, remarks)))
        result = result._replace(leg="")  # what the asking channel knows of its own leg stays
    message = _message(target, [*troubles, *remarks])
    return result if message == result.message else result._replace(message=message)


def _replace_running(leg: Leg, target: Target, context: Context) -> tuple[Result, list[str]]:
    """What records this conversation for us ends, then the new recording begins; and what went wrong.

    In this order: a MixMonitor that is begun beside another one takes over its translators, and Asterisk 22
    may then leave the partner out of the file; one frame without any makes them anew.
    """
    troubles = [target.unreachable] if target.unreachable else []
    has_ended = False
    try:
        if target.running:
            target.channel.require_start(leg.file)
        for running in target.running:
            has_ended |= _end(running, troubles)
        if has_ended:
            context.pause(_FRAME_SECONDS)
    except CallGone:
        return _never_began(leg, context.config), []
    except NoSuchCall:
        pass  # the start says so, too
    except (NotStarted, ManagerUnavailable) as exc:
        _close_failed(leg, context.config)
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
    result = Result(OK, leg_id=leg.id, file=leg.file, leg=f"{leg.id} {owner}".strip())
    try:
        channel.mixmonitor(_asterisk_name(leg, config), _options(config), _end_command(leg, channel, context))
        _see(leg.file, channel, context.pause)
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


def _check_agent(login: str, config: Config, knowledge: Knowledge) -> bool | None:
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


def _check_free_space(config: Config) -> None:
    directory = config.recordings_directory
    try:
        percent = disk.free_percent(directory)
    except OSError as exc:
        raise _unusable(directory, exc) from exc
    if percent < config.recordings_min_free_percent:
        raise TooLittleSpace(
            f"the disk of {directory} has {percent:.1f} % free, below min_free_percent"
            f" = {config.recordings_min_free_percent:g}: free some space"
        )


def _check_finish_program(programs: str) -> None:
    """Without it no leg would end; and MixMonitor hands its path to a shell."""
    program = f"{programs}/{_FINISH_PROGRAM}"
    if not SAFE_PATH.fullmatch(program) or not os.access(program, os.X_OK):
        raise NotStarted(
            f"{program} cannot be run: install in a path of letters, digits and . _ - that Asterisk's user"
            " can enter, then run noojee-agi install-agi (it links, a copy does not do)"
        )


def _new_leg(request: Request, target: Target, config: Config, agent_known: bool | None) -> Leg:
    channel, values = target.channel, target.values
    leg_id, started_at = recording.new_id(), recording.now()
    return Leg(
        id=leg_id,
        server=_server(channel.host, values[variables.SYSTEMNAME], config),
        call_uniqueid=values[variables.LINKEDID] or channel.uniqueid,
        uniqueid=channel.uniqueid,
        channel=channel.name,
        extension=target.extension,
        extensions=target.extensions,
        agent_login_name=request.agent_login_name,
        agent_known=agent_known,
        tag=request.tag,
        source=channel.caller,
        destination=channel.extension,
        did=channel.did,
        file=recording.file_path(
            config.recordings_directory, channel.uniqueid, leg_id, config.recordings_format, started_at
        ),
        started_at=started_at,
        peer_channel=target.peer.name,
        peer_uniqueid=target.peer.uniqueid,
    )


def _server(host: str, system_name: str, config: Config) -> str:
    """Whose call it is: an Asterisk elsewhere closes its legs itself, since only it sees its files."""
    return (system_name or host)[:255] if host else config.server_name


def _is_not_begun(leg: Leg, config: Config) -> None:
    _spool(Ending(leg.id, "failed", recording.now()), config)


@disk.bounded(if_late=_is_not_begun)
def _write_ahead(leg: Leg, config: Config) -> None:
    """If there is space, make the leg's folder and spool its start: from here on it cannot be forgotten."""
    _check_free_space(config)
    try:
        if not _can_write_in(os.path.dirname(leg.file)):
            _make_folders(config.recordings_directory, leg.file)
    except OSError as exc:
        raise _unusable(os.path.dirname(exc.filename), exc) from exc
    _spool(leg, config)


def _make_folders(directory: str, file: str) -> None:
    """Make each folder between the two. Raises OSError when we, as Asterisk's user, cannot write there."""
    folder = os.path.dirname(file)
    for name in folder[len(directory) :].strip("/").split("/"):
        directory = os.path.join(directory, name)
        files.make_folder(directory)
    if not _can_write_in(folder):  # MixMonitor would say nothing, and its file never come
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)


def _can_write_in(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


@disk.bounded()
def _spool(event: recording.Event, config: Config) -> None:
    try:
        spool.put(config.spool_directory, event)
    except OSError as exc:
        raise _unusable(config.spool_directory, exc) from exc


def _unusable(directory: str, exc: OSError) -> NoojeeError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return TooLittleSpace(f"the disk of {directory} is full: free some space")
    return NotStarted(
        f"nothing can be written in {directory} ({exc.strerror}):"
        " it must be there, belong to Asterisk's user and have mode 0750; run noojee-agi check"
    )


def _asterisk_name(leg: Leg, config: Config) -> str:
    """The file as MixMonitor must be told it: the format is the suffix."""
    return f"{leg.file.rpartition('.')[0]}.{config.recordings_format}"


def _options(config: Config) -> str:
    return f"{config.recordings_mixmonitor_options}i({variables.MIXMONITOR_ID})"


def _end_command(leg: Leg, channel: Recordable, context: Context) -> str:
    """Empty where the end is seen without one, and the file's header tells of it: Asterisk forks for each.

    It runs without AGI's environment, so the configuration's path goes with it; '-' is none.
    """
    config = context.config
    if context.sees_ends and not channel.host and config.recordings_format in wav.FORMATS:
        return ""
    return f"{context.programs}/{_FINISH_PROGRAM} {config.path or '-'} {leg.id} {leg.file}"


def _see(file: str, channel: Recordable, pause: Pause) -> None:
    """Wait for the file, MixMonitor's only proof. It opens it at once, in a thread of its own."""
    if not _appears(file, channel, pause):
        raise NotStarted(
            f"Asterisk did not create {file} within {FILE_SEEN_WITHIN_SECONDS:g} s:"
            " look for app_mixmonitor and file.c in its log; [recordings] format must be one it knows"
        )


def _appears(file: str, channel: Recordable, pause: Pause) -> bool:
    return _is_seen(lambda: _is_there(file, channel), pause)


def _is_seen(looks: Callable[[], bool], pause: Pause) -> bool:
    deadline = time.monotonic() + FILE_SEEN_WITHIN_SECONDS
    seconds = 0.0001
    while not looks():
        if time.monotonic() > deadline:
            return False
        pause(seconds)
        seconds = min(seconds * 2, 0.02)
    return True


def _is_there(file: str, channel: Recordable) -> bool:
    return channel.sees_file(file) if channel.host else _exists(file)


@disk.bounded()
def _exists(file: str) -> bool:
    return os.path.exists(file)


def _undo(leg: Leg, channel: Recordable, config: Config) -> None:
    """Nothing was seen: make sure that nothing of this leg records, and close it."""
    # A channel that is gone records nothing any more; a manager interface that is, cannot be asked.
    with contextlib.suppress(NoSuchCall, ManagerUnavailable):
        started = channel.mixmonitor_id()
        if started:
            channel.stop_mixmonitor(started)
            channel.set(variables.MIXMONITOR_ID, "")
    _close_failed(leg, config)


def _close_failed(leg: Leg, config: Config) -> None:
    """Where that cannot be noted now, such as on a full disk, sync finds out."""
    with contextlib.suppress(NoojeeError):
        _spool(Ending(leg.id, "failed", recording.now()), config)


def _hung_up(leg: Leg, channel: Recordable, context: Context) -> tuple[Result, list[str]]:
    """When there is a file, finish_record.py will close the leg, else we do."""
    if channel.host:
        text = f"the caller hung up: noojee-agi sync on {leg.server} finds out"
        return Result(NotStarted.status, text, leg.id), []
    if _appears(leg.file, channel, context.pause):
        return Result(OK, leg_id=leg.id, file=leg.file), ["the caller hung up at once"]
    return _never_began(leg, context.config), []


def _never_began(leg: Leg, config: Config) -> Result:
    _close_failed(leg, config)
    return Result(NotStarted.status, "the caller hung up before the recording began", leg.id)


def _tell_recorded(target: Target, result: Result) -> list[str]:
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


def _message(target: Target, remarks: list[str]) -> str:
    which = f", {target.call}" if target.is_other else ""
    return f"OK{which}, but {'; '.join(remarks)}" if remarks else f"OK{which}"
