"""Calls without a pause, from a process of their own: python -m lab.flood PORT KEY CONNECTIONS."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager

from bench.callers import Callers

from lab import beside

_WITHOUT_END = 10**9


def flood(port: int, key: str, connections: int) -> AbstractContextManager[None]:
    """As long as the block runs, from its first call on."""
    return beside.running("lab.flood", str(port), key, str(connections))


if __name__ == "__main__":
    print(beside.READY, flush=True)
    Callers(int(sys.argv[1]), sys.argv[2]).place(_WITHOUT_END, int(sys.argv[3]))
