"""Another process of the lab, at work as long as a block runs: python -m lab.MODULE WORDS…"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lab import processes

READY = "ready"
_TESTS = Path(__file__).parents[1]


@contextlib.contextmanager
def running(module: str, *words: str) -> Iterator[None]:
    """From when it has printed READY; it must not end by itself."""
    command = [*processes.dies_with_us(), sys.executable, "-m", module, *words]
    with subprocess.Popen(command, cwd=_TESTS, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{READY}\n"
            yield
            assert process.poll() is None, f"{module} has ended by itself"
        finally:
            process.kill()
