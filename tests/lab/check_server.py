"""The program behind lab.checked: has `noojee-agi check` loaded, and forks itself for each look.

A line of JSON says what to look at, and a line has the stages: a fork of pytest costs three times as much.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

# What a look loads when it needs it.
import sqlalchemy.dialects.postgresql.psycopg2
import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401

from noojee_agi.cli import install
from noojee_agi.cli.check import command, programs, running


class Look(NamedTuple):
    """is_real: the programs are run, too. folder: where they are."""

    environment: Mapping[str, str]
    folder: str
    asterisk_conf: str
    is_real: bool


def stages(look: Look) -> list[Any]:
    """What check says; whoever asks becomes whom it becomes."""
    os.umask(0o027)
    os.environ.update(look.environment)
    install.programs_folder = lambda: look.folder
    if not look.is_real:
        programs.check = lambda *_: "not run"
    return list(command.stages(running.of(look.asterisk_conf, os.environ)))


def end_with(tells: int, look: Look, patched: Callable[[], object] | None = None) -> NoReturn:
    """In a process of its own: write the stages, or nothing, and why to standard error."""
    try:
        if patched:
            patched()
        os.write(tells, json.dumps(stages(look)).encode())
    except BaseException:  # noqa: BLE001 - or we would go on as who has forked us
        traceback.print_exc()
    finally:
        os._exit(0)


if __name__ == "__main__":
    gc.freeze()  # or the collections of each look would have it copy all our memory
    for line in sys.stdin:
        if not (child := os.fork()):
            end_with(1, Look(*json.loads(line)))
        os.waitpid(child, 0)
        os.write(1, b"\n")
