"""One recording leg: its file, and the events of its life that go through the spool."""

import json
import os
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import NamedTuple

from noojee_agi.recordings import wav

# The kinds of event in the spool.
STARTED, FINISHED, NOTED, ACCESSED, ATTACHED = "started", "finished", "noted", "accessed", "attached"
# What a note may say of a leg, and what somebody may have wanted of its audio.
STOPPED, PAUSED, RESUMED = "stopped", "paused", "resumed"
HELD, RELEASED, PURGED = "held", "released", "purged"
CONVERTED = "converted"
PLAYED, DOWNLOADED, EXPORTED = "played", "downloaded", "exported"
EMPTY_FILE_BYTES = 44  # a bare WAV header's length; what else is as short has no audio either
_OUR_FILE = re.compile(r"/\d{4}/\d\d/\d\d/[A-Za-z0-9._-]+-[0-9a-f]{8}\.\w+$")
_MIXMONITOR_ID = re.compile(r"0x[0-9a-f]+")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STORED_AS = {"wav49": "WAV"}  # app_mixmonitor.c mixmonitor_save_prep


class Leg(NamedTuple):
    """A recording leg as the call path knows it; owner and number are settled when it is stored.

    extension: the one that was asked for, if any. extensions: all on this call, that one first.
    agent_known: whether an enabled account of agent_login_name was known when the call came; None when
    nobody was named. peer_channel, peer_uniqueid: with whom the channel talked then; empty when with nobody,
    or with several.
    """

    id: str
    server: str
    call_uniqueid: str
    uniqueid: str
    channel: str
    extension: str
    extensions: tuple[str, ...]
    agent_login_name: str
    agent_known: bool | None
    tag: str
    source: str
    destination: str
    did: str
    file: str
    started_at: datetime
    peer_channel: str = ""
    peer_uniqueid: str = ""


class Ending(NamedTuple):
    """How a leg ended: status completed, empty, failed or interrupted; duration in seconds."""

    leg_id: str
    status: str
    ended_at: datetime
    bytes: int | None = None
    duration_seconds: float | int | None = None


class Note(NamedTuple):
    """Something that was done with a leg. login: who did it; None when the apiKey alone was the authority."""

    leg_id: str
    at: datetime
    what: str
    login: str | None = None
    reason: str = ""


class Access(NamedTuple):
    """Somebody wanted to hear a leg, or to have its audio; id: this access's own."""

    id: str
    leg_id: str
    at: datetime
    login: str
    what: str
    allowed: bool
    address: str


class Attachment(NamedTuple):
    """From then on the extension's recordings are the login's; empty: nobody's."""

    extension: str
    at: datetime
    login: str


Event = Leg | Ending | Note | Access | Attachment
_KINDS: dict[str, type[Event]] = {
    STARTED: Leg,
    FINISHED: Ending,
    NOTED: Note,
    ACCESSED: Access,
    ATTACHED: Attachment,
}
_NAMES = {kind_of_event: name for name, kind_of_event in _KINDS.items()}
_WHAT = {
    Note: (STOPPED, PAUSED, RESUMED, HELD, RELEASED, PURGED, CONVERTED),
    Access: (PLAYED, DOWNLOADED, EXPORTED),
}


class OpenLeg(NamedTuple):
    """A leg that the database believes to be recording."""

    id: str
    file: str
    started_at: datetime


def now() -> datetime:
    return datetime.now(timezone.utc)


def file_time(seconds: float) -> datetime:
    """The time of a file, as os.stat() tells it."""
    return datetime.fromtimestamp(seconds, timezone.utc)


def new_id() -> str:
    """A random UUID (RFC 9562, 5.4), without the import of uuid: up to Python 3.12 that costs the caller."""
    digits = os.urandom(16).hex()
    version, variant = "4", "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-{version}{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def is_id(value: str) -> bool:
    """Whether it is a leg's id, a UUID as new_id() writes it: it enters the names of files."""
    return _ID.fullmatch(value) is not None


def file_path(directory: str, uniqueid: str, leg_id: str, file_format: str, started_at: datetime) -> str:
    """Where the leg's audio lies: only what we made and a filtered uniqueid enter the name."""
    safe_uniqueid = _UNSAFE.sub("_", uniqueid)[:64].lstrip(".") or "call"
    suffix = _STORED_AS.get(file_format, file_format)
    day = f"{started_at.year:04}/{started_at.month:02}/{started_at.day:02}"
    return os.path.join(directory, f"{day}/{safe_uniqueid}-{leg_id[:8]}.{suffix}")


def id_in(file: str) -> str:
    """The first eight digits of the leg's id, with which the name of its file ends."""
    return os.path.splitext(os.path.basename(file))[0].rpartition("-")[2]


def is_ours(file: str) -> bool:
    """Whether a recording has a name as file_path() makes them."""
    return bool(_OUR_FILE.search(file))


def mixmonitor_id(value: str) -> str:
    """The value, if it is an id as Asterisk makes them (app_mixmonitor.c, "%p"), else empty."""
    return value if _MIXMONITOR_ID.fullmatch(value) else ""


def ending(leg_id: str, file: str, now: datetime) -> Ending:
    """What the closed file says of the leg, which ended when it was last written to; without it, now.

    So whoever tells of the end says the same. Duration None when it is no WAV file. Raises OSError.
    """
    try:
        about = os.stat(file)
        header = wav.read(file)
    except FileNotFoundError:
        return Ending(leg_id, "failed", now)
    return ending_by_header(leg_id, header, about.st_size, file_time(about.st_mtime))


def ending_by_header(leg_id: str, header: wav.Header | None, size: int, ended_at: datetime) -> Ending:
    """Of a closed file of that size; header: None when it is no WAV file."""
    if size <= (header.data_at if header else EMPTY_FILE_BYTES):
        return Ending(leg_id, "empty", ended_at, size, 0.0)
    return Ending(leg_id, "completed", ended_at, size, header.seconds if header else None)


def to_json(event: Event) -> str:
    """The event as the spool says it, in one line."""
    return _JSON.encode({"event": kind(event), **event._asdict()})


def _of_time(value: datetime) -> str:
    return value.isoformat(timespec="microseconds")


_JSON = json.JSONEncoder(ensure_ascii=False, default=_of_time)


def leg_id(event: Event) -> str:
    """Of the leg that it is about; empty when it is about none."""
    if isinstance(event, Attachment):
        return ""
    return event.id if isinstance(event, Leg) else event.leg_id


def leg_ids(events: Iterable[Event]) -> set[str]:
    """Of all legs that they are about."""
    return {leg_id(event) for event in events} - {""}


def kind(event: Event) -> str:
    return _NAMES[type(event)]


def moment(event: Event) -> datetime:
    """When it came to pass."""
    if isinstance(event, Leg):
        return event.started_at
    return event.ended_at if isinstance(event, Ending) else event.at


def from_json(text: str) -> Event:
    """The event in the spool. Raises ValueError, KeyError or TypeError when it is not one of ours."""
    content = dict(json.loads(text))
    event_kind = content.pop("event")
    if event_kind not in _NAMES.values():
        raise ValueError(f"unknown event {event_kind!r}")
    for name in ("started_at", "ended_at", "at"):
        if name in content:
            content[name] = datetime.fromisoformat(content[name])
    if "extensions" in content:
        content["extensions"] = tuple(content["extensions"])
    return _checked(_KINDS[event_kind](**content))


def _checked(event: Event) -> Event:
    """The event, whose file somebody may have touched. Raises TypeError and ValueError."""
    for name, kind_of_value in type(event).__annotations__.items():
        value = getattr(event, name)
        if name == "extensions":
            is_right = all(isinstance(one, str) for one in value)
        else:
            is_right = isinstance(value, kind_of_value)
        if not is_right or (isinstance(value, datetime) and value.tzinfo is None):
            raise TypeError(f"{name} = {value!r}")
        if isinstance(value, str) and "\0" in value:
            raise TypeError(f"{name} holds a NUL")
    if isinstance(event, Note | Access) and event.what not in _WHAT[type(event)]:
        raise ValueError(f"{event.what!r} is nothing that a {kind(event)} event says")
    for each in () if isinstance(event, Attachment) else (leg_id(event), getattr(event, "id", leg_id(event))):
        if not is_id(each):
            raise ValueError(f"{each!r} is no leg's id")
    return event
