"""What the next leg of a call must know of the former one: from its side-car, or from the spool."""

import contextlib
from typing import NamedTuple

from noojee_agi.recordings import disk, recording, sidecar, spool
from noojee_agi.recordings.recording import Leg


class Former(NamedTuple):
    """extension: the one whose owner the leg has, as far as it is known. extensions: all of which one may
    say that. peer_uniqueid: see Leg.
    """

    server: str
    call_uniqueid: str
    tag: str
    agent_login_name: str
    extension: str
    peer_uniqueid: str
    extensions: tuple[str, ...]


@disk.bounded()
def find(spool_directory: str, file: str) -> tuple[str, Former] | None:
    """The id of the leg that has this file, and what is known of it. None when nothing is."""
    # A drain writes the side-car, and then removes the event: it may do both between the two looks.
    return _in_side_car(file) or _in_spool(spool_directory, file) or _in_side_car(file)


def _in_side_car(file: str) -> tuple[str, Former] | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        leg = sidecar.read(sidecar.path_for(file))
        known = {name: leg[name] for name in Former._fields}
        known["extensions"] = tuple(leg["extensions"] or [leg["extension"]])
        return str(leg["id"]), Former(**known)
    return None


def _in_spool(directory: str, file: str) -> tuple[str, Former] | None:
    mark = recording.id_in(file).encode()
    with contextlib.suppress(OSError):
        for line in spool.waiting(directory):
            if mark in line:
                with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                    event = recording.from_json(line.decode())
                    if isinstance(event, Leg) and event.file == file:
                        named = event.extension or next(iter(event.extensions), "")
                        return event.id, Former(
                            event.server,
                            event.call_uniqueid,
                            event.tag,
                            event.agent_login_name,
                            named,
                            event.peer_uniqueid,
                            event.extensions,
                        )
    return None
