"""One session: what was asked for is done, and whatever happens there is a result."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from noojee_agi.actions import arguments
from noojee_agi.actions.attach_user import attach_user
from noojee_agi.actions.context import Context
from noojee_agi.actions.detach_user import detach_user
from noojee_agi.actions.pause_record import pause_record
from noojee_agi.actions.result import Report, Result
from noojee_agi.actions.resume_record import resume_record
from noojee_agi.actions.start_record import OK, start_record
from noojee_agi.actions.stop_record import stop_record
from noojee_agi.asterisk import variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.target import CommandLine, Target
from noojee_agi.config import Config
from noojee_agi.errors import CallGone, KeyRefused, NoojeeError
from noojee_agi.recordings import snapshot
from noojee_agi.recordings.snapshot import Knowledge, Snapshot

if TYPE_CHECKING:
    from noojee_agi.asterisk.manager import InThread, Manager

    Action = Callable[[arguments.Request, Channel | CommandLine, Context], Result]

_LOOK = "see noojee-agi.log in the state directory"
_CHECK = "the configuration could not be read; run noojee-agi check"

# By the name that the dialplan knows, with the names of its arguments in positional order.
ACTIONS: dict[str, tuple[Action, tuple[str, ...]]] = {
    "start_record": (start_record, arguments.START_RECORD),
    "stop_record": (stop_record, arguments.STOP_RECORD),
    "pause_record": (pause_record, arguments.PAUSE_RECORD),
    "resume_record": (resume_record, arguments.RESUME_RECORD),
    "attach_user": (attach_user, arguments.ATTACH_USER),
    "detach_user": (detach_user, arguments.DETACH_USER),
}


class Invocation(NamedTuple):
    """What the dialplan runs: words are arguments as written, pairs those of a FastAGI request's query."""

    program: str
    words: Sequence[str] = ()
    pairs: Sequence[tuple[str, str]] = ()


class Surroundings(NamedTuple):
    """What a session needs beside its channel. programs: the folder in which finish_record.py lies.

    pause: waits so many seconds. in_thread: does what may block, where others must not wait for it.
    sees_ends: whether somebody sees it now when a recording's file is closed on this machine. may_refuse:
    called before a wrong key is told so, and may wait; false when it shall not be told.
    """

    programs: str
    load_config: Callable[[], Config]
    read_database: Callable[[Config], None]
    load_snapshot: Callable[[str], Snapshot | None] = snapshot.load
    pause: Callable[[float], None] = time.sleep
    in_thread: InThread = lambda work: work()
    sees_ends: Callable[[], bool] = lambda: False
    may_refuse: Callable[[], bool] = lambda: True


def run(
    streams: tuple[io.TextIOBase, io.TextIOBase],
    find_invocation: Callable[[Channel], Invocation],
    surroundings: Surroundings,
    is_continued: bool = False,
    host: str = "",
    admit: Callable[[], None] = lambda: None,
) -> Report:
    """Run one program for one call. Raises nothing: no failure of ours may end or disturb the call.

    is_continued: somebody has begun this session, and died in the middle of it. host: see Channel. admit:
    called once the apiKey was found to be right.
    """

    def begin() -> tuple[Channel, Invocation]:
        known.channel = channel = Channel(*streams, host)
        if is_continued:
            channel.pass_over_old_replies()
        return channel, find_invocation(channel)

    known = _Known()
    report = _report(known, begin, surroundings, admit)
    is_refused = report.result.status == KeyRefused.status
    if known.channel is not None and (not is_refused or surroundings.may_refuse()):
        _tell(known.channel, report.result)
    return report


def run_from_command_line(invocation: Invocation, key: str, surroundings: Surroundings) -> Report:
    """The same for a call that somebody names at the command line; key: the apiKey. Raises nothing."""
    return _report(_Known(), lambda: (CommandLine(key), invocation), surroundings, lambda: None)


class _Known:
    """What a session has found out of itself when it fails."""

    def __init__(self) -> None:
        self.program = "-"
        self.channel: Channel | None = None
        self.config: Config | None = None


def _report(
    known: _Known,
    begin: Callable[[], tuple[Channel | CommandLine, Invocation]],
    surroundings: Surroundings,
    admit: Callable[[], None],
) -> Report:
    begun = time.monotonic()
    failure = None
    try:
        channel, invocation = begin()
        known.program = invocation.program
        known.config = surroundings.load_config()
        result = _act(invocation, channel, known.config, surroundings, admit)
    except NoojeeError as exc:
        result = Result(exc.status, str(exc))
    except Exception as exc:  # noqa: BLE001 - the only one: a call is never disturbed
        failure = exc
        result = Result(500, f"unexpected failure: {_LOOK if known.config else _CHECK}")
    uniqueid = known.channel.uniqueid if known.channel else ""
    return Report(known.program, uniqueid, result, (time.monotonic() - begun) * 1000, known.config, failure)


def _act(
    invocation: Invocation,
    channel: Channel | CommandLine,
    config: Config,
    surroundings: Surroundings,
    admit: Callable[[], None],
) -> Result:
    action, names = ACTIONS[invocation.program]
    request = arguments.parse(invocation.words, invocation.pairs, names)
    knowledge = Knowledge(
        config.snapshot_file, lambda: surroundings.read_database(config), surroundings.load_snapshot
    )
    with contextlib.closing(_OtherCalls(config, channel, surroundings.in_thread)) as others:
        context = Context(
            config,
            surroundings.programs,
            knowledge,
            others.find,
            surroundings.pause,
            admit,
            surroundings.sees_ends(),
        )
        return action(request, channel, context)


class _OtherCalls:
    """Reaches for the manager interface when another call is asked for, and not before."""

    def __init__(self, config: Config, channel: Channel | CommandLine, in_thread: InThread) -> None:
        self._config = config
        self._in_thread = in_thread
        self._channel = channel
        self._manager: Manager | None = None

    def find(self, asked: str, prefers_recorded: bool) -> Target:
        """Raises NoSuchCall and ManagerUnavailable."""
        # Only now: the import of socket takes longer than all the rest.
        from noojee_agi.asterisk import manager, other_calls

        self._manager = self._manager or manager.Manager(self._config, self._in_thread)
        return other_calls.find(self._manager, asked, self._channel, prefers_recorded)

    def close(self) -> None:
        if self._manager:
            self._manager.close()


def _tell(channel: Channel, result: Result) -> None:
    try:
        values = result.variables
        channel.set_all(values)
        told = f"noojee-agi: {result.status} {values[variables.MESSAGE]}"
        if result.status != OK:
            channel.warn(told)
        elif result.message != "OK":
            channel.verbose(told)  # each call may have the same remark, which must not fill the log
    except CallGone:
        pass  # nobody is left to be told; our log has it
