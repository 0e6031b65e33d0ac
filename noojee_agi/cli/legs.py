"""One leg: its whole story, and holds on it."""

import contextlib
import os
import pwd
import re
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from noojee_agi.cli import output
from noojee_agi.config import Config
from noojee_agi.database import hearing, queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.errors import BadArgument, NoojeeError, NotAllowed
from noojee_agi.recordings import recording, sidecar, spool
from noojee_agi.recordings.recording import HELD, RELEASED, Note
from noojee_agi.sync import drain, opening

_EIGHT = re.compile(r"[0-9a-f]{8}")
_INSTANT = timedelta(microseconds=1)
_PATIENCE_SECONDS = 20.0  # another drain may be at work
_LOOK_SECONDS = 0.1
_OF_CALL = (
    "call_uniqueid",
    "server",
    "source",
    "destination",
    "did",
    "external_reference",
    "call_started_at",
)
_OF_LEG = (
    *("id", "leg", "uniqueid", "channel", "peer_channel", "peer_uniqueid", "extension", "owner"),
    *("agent_login_name", "tag", "status", "started_at", "ended_at", "duration_seconds", "bytes", "file"),
    *("held", "purged_at"),
)
_EVENT = ("at", "what", "login", "reason")
_ACCESS = ("at", "what", "login", "allowed", "address")


def find(store: Store, asked: str) -> dict[str, Any]:
    """The leg of this id, or of its first eight digits, with all that was done with it.

    Raises BadArgument when there is none, or several, and StoreUnavailable.
    """
    wanted = asked.strip().lower()
    if not recording.is_id(wanted) and not _EIGHT.fullmatch(wanted):
        raise BadArgument(f"{asked} is no leg's id: take RECORDING_ID, or its first eight digits")
    with store.reading() as connection:
        rows = queries.legs_whose_id_begins(connection, wanted[:8])
        found = queries.whole_legs(connection, [row["id"] for row in rows if row["id"].startswith(wanted)])
    if not found:
        raise BadArgument(f"there is no leg {asked}: noojee-agi recordings lists them")
    if len(found) > 1:
        raise BadArgument(f"{asked} may be {' or '.join(sorted(leg['id'] for leg in found))}: give all of it")
    return found[0]


@click.command()
@click.argument("leg_id", metavar="ID")
@click.option("--as", "heard_by", metavar="LOGIN", help="Only if this account may hear it.")
@click.option("--json", "as_json", is_flag=True, help="One object, with lists of events and accesses.")
@click.pass_obj
def show(config: Config, leg_id: str, heard_by: str | None, as_json: bool) -> None:
    """Show all of the leg ID: its call, what was done with it, who heard it or was refused."""
    store = opening.open_database(config)
    leg = find(store, leg_id)
    if heard_by is not None:
        _require_hearing(store, leg["id"], heard_by)
    if as_json:
        output.say_json(leg)
        return
    _show_values("call", leg, _OF_CALL)
    _show_values("leg", leg, _OF_LEG)
    _show_rows("events", leg, _EVENT)
    _show_rows("accesses", leg, _ACCESS)


def _require_hearing(store: Store, leg_id: str, login: str) -> None:
    """Raises NotAllowed, and StoreUnavailable."""
    with store.reading() as connection:
        hearing.owners(connection, login)  # or it is said why there are none
        if not [*queries.legs(connection, Filter(leg_id=leg_id, heard_by=login))]:
            raise NotAllowed(f"{login} may not hear {leg_id}")


def _show_values(title: str, leg: dict[str, Any], names: Sequence[str]) -> None:
    output.say(title)
    for name in names:
        output.say(f"  {name.removeprefix('call_'):<19}{output.cell(leg[name])}")


def _show_rows(title: str, leg: dict[str, Any], names: Sequence[str]) -> None:
    output.say(title if leg[title] else f"{title}: none")
    if leg[title]:
        output.table(names, [[output.cell(row[name]) for name in names] for row in leg[title]])


@click.command()
@click.argument("leg_id", metavar="ID")
@click.option("--reason", required=True, help="Why; it stands in the leg's story, with who ran this.")
@click.pass_obj
def hold(config: Config, leg_id: str, reason: str) -> None:
    """Never purge the leg ID, until it is released."""
    store = opening.open_database(config)
    leg = find(store, leg_id)
    if leg["purged_at"]:
        raise BadArgument(f"the audio of {leg['id']} was purged at {output.cell(leg['purged_at'])}")
    _note(store, config, leg, HELD, reason)
    output.say(f"{leg['id']} is held")


@click.command()
@click.argument("leg_id", metavar="ID")
@click.option("--reason", required=True, help="Why; it stands in the leg's story, with who ran this.")
@click.pass_obj
def release(config: Config, leg_id: str, reason: str) -> None:
    """End the hold on the leg ID: it may be purged again."""
    store = opening.open_database(config)
    leg = find(store, leg_id)
    if not leg["held"]:
        raise BadArgument(f"{leg['id']} is not held")
    _note(store, config, leg, RELEASED, reason)
    output.say(f"{leg['id']} is released")


def _note(store: Store, config: Config, leg: dict[str, Any], what: str, reason: str) -> None:
    """Through the spool; done when the side-car says so, from which a lost database is made again."""
    if not reason.strip():
        raise BadArgument("--reason is empty")
    if not sidecar.is_here(leg):
        raise BadArgument(f"{sidecar.path_of(leg)} is not on this machine: do it on {leg['server']}")
    before = [event["at"] for event in leg["events"] if event["what"] in (HELD, RELEASED)]
    # Behind what was said last, even by a host whose clock is ahead of ours.
    moment = max([recording.now(), *(at + _INSTANT for at in before)])
    note = Note(leg["id"], moment, what, None, f"{reason.strip()} (by {person()})")
    spool.put(config.spool_directory, note)
    drain.run_own(store, config)
    told = _side_car_with(sidecar.path_of(leg), note)
    if told["purged_at"]:
        raise NoojeeError(f"it came too late: the audio was purged at {output.cell(told['purged_at'])}")


def _side_car_with(path: str, note: Note) -> dict[str, Any]:
    """The side-car, once it says so; another drain may be at work. Raises NoojeeError."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            leg = sidecar.read(path)
            if any((event["at"], event["what"]) == (note.at, note.what) for event in leg["events"]):
                return leg
        time.sleep(_LOOK_SECONDS)
    raise NoojeeError(
        f"it is noted, but {path} does not say so yet: until a drain has done that, nothing has changed;"
        f" noojee-agi check says why, then look with noojee-agi recordings show {note.leg_id[:8]}"
    )


def person() -> str:
    """Who runs this; root acts as Asterisk's user, so that is not he."""
    for name in ("SUDO_USER", "LOGNAME"):
        if os.environ.get(name):
            return os.environ[name]
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
