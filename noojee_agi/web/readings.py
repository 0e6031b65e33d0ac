"""What /metrics tells, as plain data: the server counts it, and needs no HTTP for that."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Histogram(NamedTuple):
    """How often it took so many seconds at most. counts: one for each bound, and one for what took longer."""

    bounds: Sequence[float]
    counts: Sequence[float]
    sum: float


class Counted(NamedTuple):
    """By all processes of the server, since it began. drained_at: in seconds of time.time(), 0 is never.

    sessions: by program and status. holds: by program, how long its caller was kept waiting.
    """

    sessions: Mapping[tuple[str, str], float]
    running: float
    holds: Mapping[str, Histogram]
    drains: Histogram
    drained_at: float


class Disk(NamedTuple):
    """The recordings' disk, and what waits on it. oldest_seconds: how long, 0 when nothing waits."""

    free_bytes: int
    bytes: int
    waiting: int
    oldest_seconds: float
    rejected: int


class Readings(NamedTuple):
    """disk and open_legs: None when what would tell them does not answer.

    manager_is_up: None when no [manager] is configured. certificate_days: None without TLS.
    """

    counted: Counted
    disk: Disk | None = None
    open_legs: int | None = None
    manager_is_up: bool | None = None
    certificate_days: float | None = None
