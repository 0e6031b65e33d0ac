"""What ends a leg of the conversation: for all who stop or pause it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from noojee_agi import text
from noojee_agi.actions import new_leg
from noojee_agi.asterisk import variables
from noojee_agi.asterisk.marks import Mark
from noojee_agi.asterisk.target import Marked, Running, Target
from noojee_agi.config import Config
from noojee_agi.errors import CallGone, ManagerUnavailable, NoojeeError, NoSuchCall, NotAllowed
from noojee_agi.recordings import disk, people, recording
from noojee_agi.recordings.recording import Note
from noojee_agi.recordings.snapshot import Knowledge


class OurLeg(NamedTuple):
    """A leg of the conversation. owner: a login; empty when it is nobody's, None when not settled yet."""

    id: str
    file: str
    owner: str | None


def running(target: Target) -> dict[Running, str]:
    """What records the conversation for us, with its file. Raises CallGone and ManagerUnavailable."""
    files = {each: _file(each) for each in target.running}
    return {each: file for each, file in files.items() if file}


def _file(running: Running) -> str:
    """Empty when it has ended, if only with that end's call."""
    try:
        return running.file()
    except CallGone:
        raise
    except NoSuchCall:
        return ""


def legs(running: Mapping[Running, str], login: str, config: Config) -> list[OurLeg]:
    known = [_known(each.leg, file, login) for each, file in running.items()]
    return [leg if leg.id else leg._replace(id=_written_ahead(leg.file, config)) for leg in known]


def legs_of_marks(marked: Iterable[Marked], login: str) -> list[OurLeg]:
    """Those that have ended, and may go on: each once."""
    of_legs: dict[Mark, str] = {}
    for each in marked:
        of_legs[each.mark] = of_legs.get(each.mark) or each.leg
    return [_known(leg, mark.file, login)._replace(id=mark.leg_id) for mark, leg in of_legs.items()]


def which(target: Target) -> str:
    return target.call if target.is_other else "this call"


def not_recording(target: Target) -> str:
    remarks = "".join(f"; {remark}" for remark in target.remarks)
    return f"{which(target)} is not being recorded{remarks}; noojee-agi record list shows what is"


def require_permission(login: str, legs: Iterable[OurLeg], knowledge: Knowledge) -> None:
    """Whether who is named may act on these, as he may hear them; without a name the apiKey is enough.

    Where the snapshot does not tell of groups and teams, only its owner may. Raises NotAllowed.
    """
    known = knowledge.current() if login else None
    everybody = known.people() if known else None
    for leg in legs if login else ():
        may = everybody is not None and people.may_hear(login, leg.owner, recording.now(), everybody)
        if not may and leg.owner is None:
            raise NotAllowed(
                "whose recording it is has not come into the database yet: try again in a moment"
            )
        if not may and (everybody is not None or leg.owner != login):
            raise NotAllowed(f"the recording is not {text.plain(login)}'s: it stays as it is")


def require_disk(files: Iterable[str]) -> None:
    """Raises DiskSilent: Asterisk closes a file while the call waits (app_mixmonitor.c)."""
    for file in files:
        disk.exists(file)


def clear_marks(target: Target) -> None:
    """Nothing begins by itself any more. Raises CallGone and ManagerUnavailable."""
    for each in target.marked:
        with still_there():
            each.clear()


def end_pause(target: Target) -> list[str]:
    """A start is one: nothing that was paused, or has ended when somebody was sent away, begins again.

    Returns what went wrong.
    """
    try:
        clear_marks(target)
        set_state(target, variables.RECORDING)
    except ManagerUnavailable as exc:
        return [f"the former leg's marks are still there: {exc}"]
    return []


def note(legs: Iterable[OurLeg], what: str, login: str, config: Config) -> list[str]:
    """For the legs' story, which the database tells; returns what went wrong. login: empty for the apiKey."""
    now = recording.now()
    try:
        new_leg.note(*(Note(leg.id, now, what, login or None) for leg in legs if leg.id), config=config)
    except NoojeeError as exc:
        return [f"it is noted nowhere that it was {what}: {exc}"]
    return []


def set_state(target: Target, state: str) -> None:
    """For the dialplans of those who talk; the asking one is told anyway. Raises as clear_marks does."""
    for each in target.ends:
        with still_there():
            each.set(variables.STATE, state)


def end(running: Iterable[Running]) -> None:
    """Raises CallGone and ManagerUnavailable."""
    for each in running:
        with still_there():
            each.stop()
            each.forget()


@contextlib.contextmanager
def still_there() -> Iterator[None]:
    """With an end's call its recording has ended, too."""
    try:
        yield
    except CallGone:
        raise
    except NoSuchCall:
        pass


def _known(leg: str, file: str, login: str) -> OurLeg:
    """leg: what the start has left on the channel; else it is known from the side-car of the drain."""
    leg_id, _, owner = leg.partition(" ")
    if leg_id[:8] != recording.id_in(file):  # that of another leg: this one's start died before it said so
        leg_id, owner = "", ""
    if leg_id and (owner or not login):
        return OurLeg(leg_id, file, owner)
    known = _side_car(file)
    return OurLeg(str(known["id"]), file, str(known["owner"] or "")) if known else OurLeg(leg_id, file, None)


def _written_ahead(file: str, config: Config) -> str:
    """Its id: a dialplan's start says it at the channel only when it has let go of the call."""
    from noojee_agi.recordings import former

    found = former.find(config.spool_directory, file)
    return found[0] if found else ""


@disk.bounded()
def _side_car(file: str) -> Mapping[str, object]:
    from noojee_agi.recordings import sidecar  # 6 ms that no start has to wait for

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return sidecar.read(sidecar.path_for(file))
    return {}
