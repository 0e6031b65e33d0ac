"""The client of the load table: Asterisk played in C, built once; without a C compiler, in Python.

It shares the machine with the server that it measures, so the less it needs itself the better.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab import debian

from bench import call
from bench.callers import BROKEN, SILENT, SILENT_SECONDS, Callers, Outcome

SOURCES = Path(__file__).parent
COMPILER = "cc"
# In the order of load_client.c.
_FAILURES = (call.KEY_NOT_ASKED, call.NOT_RECORDED, call.NOT_TOLD, BROKEN, SILENT)


class Client(Protocol):
    """All who call one server. No two of their calls are the same."""

    def place(self, count: int, connections: int) -> Outcome:
        """So many calls, counted as failed when the server says no word for long, with all that are left."""


class CompiledCallers:
    """As callers.Callers, by the program `command`."""

    def __init__(self, command: Path, port: int, key: str, silent_seconds: float = SILENT_SECONDS) -> None:
        self._command = command
        self._port = port
        self._key = key
        self._silent_milliseconds = int(silent_seconds * 1000)
        self._day = int(time.time())
        self._next = 1

    def place(self, count: int, connections: int) -> Outcome:
        """As Callers.place()."""
        numbers = (self._day, self._next, count, connections, self._silent_milliseconds)
        self._next += count
        words = [str(self._command), str(self._port), self._key, *map(str, numbers)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{self._command.name}: {done.stderr}"
        told = json.loads(done.stdout)
        failures = Counter({why: many for why, many in zip(_FAILURES, told["failures"], strict=True) if many})
        return Outcome(told["milliseconds"], failures, told["seconds"], told["own_cpu_seconds"])


@dataclass(frozen=True)
class Kind:
    """What plays Asterisk in a measurement."""

    name: str
    calling: Callable[[int, str], Client]


def build(name: str) -> Path | None:
    """The program of the source `name`.c, made once and kept; None when there is no C compiler."""
    compiler = shutil.which(COMPILER)
    if compiler is None:
        return None
    source = SOURCES / f"{name}.c"
    program = debian.cache() / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        new = program.with_name(f"{program.name}.{os.getpid()}")
        subprocess.run([compiler, "-O2", "-o", str(new), str(source)], check=True)
        new.replace(program)
    return program


def choose() -> Kind:
    """C's; without a compiler Python's, which takes a good part of what it measures."""
    program = build("load_client")
    if program is None:
        warnings.warn(
            f"there is no C compiler ({COMPILER}): Python plays Asterisk, and takes its share of the"
            " processor from every server. These figures are not those of tests/README.md: install gcc",
            stacklevel=2,
        )
        return Kind("Python, for there is no C compiler", Callers)
    return Kind("C", lambda port, key: CompiledCallers(program, port, key))
