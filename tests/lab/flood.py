"""Calls without a pause, from a process of their own: python -m lab.flood PORT KEY CONNECTIONS."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.callers import Callers

from lab import processes

_TESTS = Path(__file__).parents[1]
_WITHOUT_END = 10**9


@contextlib.contextmanager
def flood(port: int, key: str, connections: int) -> Iterator[None]:
    """As long as the block runs, from its first call on."""
    command = [sys.executable, "-m", "lab.flood", str(port), key, str(connections)]
    words = [*processes.dies_with_us(), *command]
    with subprocess.Popen(words, cwd=_TESTS, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"calls\n"
            yield
            assert process.poll() is None, "the flood has ended by itself"
        finally:
            process.kill()


if __name__ == "__main__":
    print("calls", flush=True)
    Callers(int(sys.argv[1]), sys.argv[2]).place(_WITHOUT_END, int(sys.argv[3]))
