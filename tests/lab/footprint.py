"""What a process holds: descriptors, threads, memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

WITH_DISK = 4  # threads of a process that looks at the disk now and then
_FIGURE = re.compile(r"^(Threads|RssAnon|RssFile|RssShmem):\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Footprint:
    """Of one process; kilobytes: resident memory that is no file's; shared_kilobytes: that which is."""

    descriptors: int
    threads: int
    kilobytes: int
    shared_kilobytes: int

    @property
    def countable(self) -> tuple[int, int]:
        """What must be the same again afterwards."""
        return self.descriptors, self.threads


def of(process: int) -> Footprint:
    folder = Path("/proc", str(process))
    figures = dict(_FIGURE.findall((folder / "status").read_text()))
    descriptors = sum(1 for _ in (folder / "fd").iterdir())
    shared = int(figures["RssFile"]) + int(figures["RssShmem"])
    return Footprint(descriptors, int(figures["Threads"]), int(figures["RssAnon"]), shared)


def of_all(processes: Iterable[int]) -> dict[int, Footprint]:
    return {process: of(process) for process in processes}


def countable(processes: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Descriptors and threads of each."""
    return {process: of(process).countable for process in processes}


def hold_no_more(processes: Iterable[int], before: dict[int, tuple[int, int]]) -> bool:
    """Whether the same processes hold what they held before, or less. Those for the disk are made at the
    first need, and anew only when they are needed again.
    """
    now = countable(processes)
    return now.keys() == before.keys() and all(
        each[0] <= before[process][0] and each[1] <= max(before[process][1], WITH_DISK)
        for process, each in now.items()
    )
