"""One AGI session: channel in, action run, and whatever happens the dialplan gets an answer."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from noojee_agi import arguments, snapshot, variables
from noojee_agi.actions.start_record import start_record
from noojee_agi.answer import Answer
from noojee_agi.channel import Channel
from noojee_agi.config import Config
from noojee_agi.errors import CallGone, NoojeeError
from noojee_agi.snapshot import Knowledge, Snapshot

_MESSAGE_LIMIT = 400  # characters, so that the line stays below Asterisk's limit in any language

ACTIONS = {"start_record": start_record}


@dataclass(frozen=True)
class Call:
    """What the dialplan runs: words are arguments as written, pairs those of a FastAGI request's query."""

    program: str
    words: Sequence[str] = ()
    pairs: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Surroundings:
    """What a session needs beside its channel. programs: the folder in which finish_record.py lies."""

    programs: str
    load_config: Callable[[], Config]
    read_database: Callable[[Config], None]
    load_snapshot: Callable[[str], Snapshot | None] = snapshot.load


@dataclass(frozen=True)
class Report:
    """One session for our log. failure: an exception that nobody foresaw."""

    program: str
    uniqueid: str
    answer: Answer
    milliseconds: float
    config: Config | None = None
    failure: Exception | None = None


def run(
    streams: tuple[io.TextIOBase, io.TextIOBase],
    find_call: Callable[[Channel], Call],
    surroundings: Surroundings,
    is_continued: bool = False,
    host: str = "",
) -> Report:
    """Run one program for one call. Raises nothing: no failure of ours may end or disturb the call.

    is_continued: somebody has begun this session, and died in the middle of it. host: as Channel has it.
    """
    begun = time.monotonic()
    channel, config, failure, program = None, None, None, "-"
    try:
        channel = Channel(*streams, host)
        if is_continued:
            channel.pass_over_old_replies()
        call = find_call(channel)
        program = call.program
        config = known = surroundings.load_config()
        request = arguments.parse(call.words, call.pairs)
        knowledge = Knowledge(
            config.snapshot_file, lambda: surroundings.read_database(known), surroundings.load_snapshot
        )
        answer = ACTIONS[program](request, channel, config, surroundings.programs, knowledge)
    except NoojeeError as exc:
        answer = Answer(exc.status, str(exc))
    except Exception as exc:  # noqa: BLE001 - the only one: a call is never disturbed
        failure = exc
        answer = Answer(500, "unexpected failure: see noojee-agi.log in the state directory")
    if channel is not None:
        _tell(channel, answer)
    uniqueid = channel.uniqueid if channel is not None else ""
    return Report(program, uniqueid, answer, (time.monotonic() - begun) * 1000, config, failure)


def _tell(channel: Channel, answer: Answer) -> None:
    try:
        message = answer.message[:_MESSAGE_LIMIT]
        told = {
            variables.STATUS: str(answer.status),
            variables.MESSAGE: message,
            variables.LEG_ID: answer.leg_id,
            variables.FILE: answer.file,
        }
        channel.set_all(told)
        if answer.message != "OK":
            channel.verbose(f"noojee-agi: {answer.status} {message}")
    except CallGone:
        pass  # nobody is left to be told; our log has it
