"""What the sessions of a process have around them, on its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from noojee_agi.config import Config
from noojee_agi.recordings import snapshot
from noojee_agi.server import reports
from noojee_agi.server.admission import Refusals
from noojee_agi.server.counters import Counters
from noojee_agi.server.snapshot_renewal import SnapshotRenewal
from noojee_agi.server.waiting import Sessions
from noojee_agi.session.session import Surroundings


def make(
    loop: asyncio.AbstractEventLoop,
    sessions: Sessions,
    programs: str,
    config: Callable[[], Config],
    questions: int,
    counters: Counters,
) -> Surroundings:
    """programs: the folder of finish_record.py. questions: the pipe that asks for a newer snapshot."""
    load = snapshot.Cached()
    return Surroundings(
        programs,
        config,
        SnapshotRenewal(loop, load, partial(reports.tell, questions)),
        load,
        sessions.pause,
        sessions.in_thread,
        counters.sees_ends,
        Refusals(sessions.pause).wait,
    )
