"""`check --call`: a call of our own through Asterisk, and what becomes of it, down to the side-car.

It rings nobody: both ends are in a context of its own, which is taken out of the dialplan again.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from noojee_agi.asterisk import variables
from noojee_agi.cli.check import asterisk, database, stage
from noojee_agi.cli.check.running import Running
from noojee_agi.cli.check.stage import Stage, look, look_behind
from noojee_agi.config import Config
from noojee_agi.database import queries
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import recording, sidecar

T = TypeVar("T")

TAG = "noojee-agi check"
_TALK_SECONDS = 2
_ANSWER_SECONDS = 20.0
_STORED_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_OK, _NO_KEY = "200", "401"


class _Outcome(NamedTuple):
    """What the dialplan had after its AGI line."""

    status: str
    message: str
    leg_id: str
    file: str
    agi_status: str


def stages(running: Running, config: Config) -> Iterator[Stage]:
    """Place it, and look at each step; what was recorded stays on record, with a tag that tells why."""
    found: list[_Outcome] = []
    called = look("call", lambda: _called(running, found))
    yield called
    yield (audio := look_behind(called, "its file", lambda: _audio(found[0])))
    yield (row := look_behind(audio, "its row", lambda: _row(config, found[0])))
    yield look_behind(row, "its side-car", lambda: _side_car(found[0]))


def _called(running: Running, found: list[_Outcome]) -> str:
    outcome = _place(running)
    if outcome.status == _NO_KEY and not asterisk.has_global(running):
        raise stage.NotSeen(
            "no global apiKey, and the test call comes by no endpoint whose set_var gives it one"
        )
    if outcome.status != _OK:
        raise _refused(outcome)
    found.append(outcome)
    return f"{outcome.status} {outcome.message}: leg {outcome.leg_id}, which stays on record with tag {TAG}"


def _place(running: Running) -> _Outcome:
    """Raises NotSeen, and NoojeeError when the call does not come to its end."""
    context = f"noojee-agi-check-{os.urandom(4).hex()}"
    try:
        for line in (
            "s,1,Answer",
            f"s,2,AGI(start_record.py,,{TAG})",
            f"s,3,Wait({_TALK_SECONDS})",
            "t,1,Answer",
            "t,2,Milliwatt",
        ):
            said = running.ask(f'dialplan add extension "{line}" into {context}')
            if " added into " not in said:
                raise NoojeeError(f"Asterisk takes no test extension: {said.strip()}")
        running.ask(f"channel originate Local/t@{context}/n extension s@{context}")
        outcome = _waited_for(lambda: _outcome(running, context), _ANSWER_SECONDS)
        _waited_for(lambda: not _channel(running, context), _ANSWER_SECONDS)
    finally:
        with contextlib.suppress(stage.NotSeen):
            running.ask(f"dialplan remove context {context}")
    if not outcome:
        raise NoojeeError(f"the test call has not come behind its AGI line in {_ANSWER_SECONDS:g} s")
    return outcome


def _waited_for(look: Callable[[], T | None], seconds: float) -> T | None:
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return found


def _channel(running: Running, context: str) -> str:
    """The one that is recorded; empty when the call is over, or has not begun."""
    for line in running.ask("core show channels concise").splitlines():
        name, *where = line.split("!")
        if where[:2] == [context, "s"]:
            return name
    return ""


def _outcome(running: Running, context: str) -> _Outcome | None:
    """None before the dialplan is behind its AGI line."""
    channel = _channel(running, context)
    said = running.ask(f"core show channel {channel}") if channel else ""
    values = dict(re.findall(r"^(RECORDING_\w+|AGISTATUS)=(.*)$", said, re.MULTILINE))
    if "AGISTATUS" not in values:
        return None
    names = (variables.STATUS, variables.MESSAGE, variables.LEG_ID, variables.FILE, "AGISTATUS")
    return _Outcome(*(values.get(name, "").strip() for name in names))


def _refused(outcome: _Outcome) -> NoojeeError:
    if outcome.status:
        return NoojeeError(f"the test call was told {outcome.status}: {outcome.message}")
    return NoojeeError(
        f"the program was not run for the test call (AGISTATUS {outcome.agi_status}):"
        " the stages links and programs say why, or Asterisk's log does"
    )


def _audio(outcome: _Outcome) -> str:
    try:
        size = os.stat(outcome.file).st_size
    except OSError as exc:
        raise NoojeeError(f"{outcome.file}: {exc.strerror}, although the status was {_OK}") from exc
    if size <= recording.EMPTY_FILE_BYTES:
        raise NoojeeError(f"{outcome.file} holds no audio: see the log of Asterisk")
    return f"{outcome.file}, {size} bytes"


def _row(config: Config, outcome: _Outcome) -> str:
    store = database.opened(config)

    def ended() -> dict[str, Any] | None:
        with store.reading() as connection:
            legs = queries.legs_by_id(connection, [outcome.leg_id])
        return next((leg for leg in legs if leg["status"] != "recording"), None)

    leg = _waited_for(ended, _STORED_SECONDS)
    if not leg:
        raise NoojeeError(
            f"leg {outcome.leg_id} has not come to its end in the database in {_STORED_SECONDS:g} s:"
            f" see {config.log_file}"
        )
    if leg["status"] != "completed":
        raise NoojeeError(f"leg {outcome.leg_id} is {leg['status']}: see {config.log_file}")
    return f"leg {leg['leg']} of call {leg['call_uniqueid']}, {leg['duration_seconds']:g} s"


def _side_car(outcome: _Outcome) -> str:
    path = sidecar.path_for(outcome.file)
    if not _waited_for(lambda: os.path.exists(path), _ANSWER_SECONDS):
        raise NoojeeError(f"{path} is not there: the next drain writes it, if it can")
    return path
