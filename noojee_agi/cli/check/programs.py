"""The programs that calls start: each is run as Asterisk runs it, until it asks for the key."""

import os
import select
import subprocess
import time
from collections.abc import Mapping
from typing import NamedTuple

from noojee_agi.cli import install
from noojee_agi.cli.check import cures, folders, stage
from noojee_agi.config import SAFE_PATH
from noojee_agi.errors import NoojeeError

FINISH_PROGRAM = "finish_record.py"
_RUN_SECONDS = 15.0
_READ_BYTES = 65536
_SESSION = b"agi_request: start_record.py\nagi_channel: noojee-agi/check\nagi_uniqueid: noojee-agi-check\n\n"
_KEY = b"apiKey"  # what a program asks for when all that it needs has been found
_DRAIN = "import noojee_agi.sync.__main__"


class _Run(NamedTuple):
    """One that was started. what: for a person."""

    what: str
    process: subprocess.Popen[bytes]
    is_session: bool


def check(programs: str, environment: Mapping[str, str]) -> str:
    """environment: as Asterisk gives it to its programs. Raises NoojeeError."""
    for name in (*install.AGI_PROGRAMS, FINISH_PROGRAM):
        _require_runnable(os.path.join(programs, name), programs)
    with open(os.path.join(programs, FINISH_PROGRAM), encoding="utf-8") as file:
        interpreter = _interpreter(file.readline())
    runs = [
        _start(os.path.join(programs, name), [os.path.join(programs, name)], environment, True)
        for name in install.AGI_PROGRAMS
    ]
    runs.append(_start("the drain", [interpreter, "-I", "-c", _DRAIN], environment, False))
    for problem in [_problem(run, programs) for run in runs]:  # all of them come to their end
        if problem:
            raise problem
    return programs


def _require_runnable(path: str, programs: str) -> None:
    """Raises NoojeeError."""
    if not SAFE_PATH.fullmatch(path):
        raise NoojeeError(
            f"{path} is no path of letters, digits and . _ - only, which a shell gets",
            cures.install_elsewhere(),
        )
    if part := folders.closed_part(path):
        raise NoojeeError(
            f"{path} cannot be run by user {stage.user()}, who cannot enter {part}", _opened(part)
        )
    if not os.path.exists(path):
        raise NoojeeError(f"{path} is not there", cures.install_again(programs))
    if not os.access(path, os.R_OK | os.X_OK):
        raise NoojeeError(f"{path} cannot be run by user {stage.user()}", stage.quoted("chmod", "a+rx", path))
    with open(path, encoding="utf-8", errors="replace") as file:
        _require_interpreter(path, _interpreter(file.readline()), programs)


def _interpreter(line: str) -> str:
    return (line.removeprefix("#!").split() or [""])[0]


def _require_interpreter(path: str, interpreter: str, programs: str) -> None:
    """Raises NoojeeError."""
    if os.access(interpreter, os.X_OK):
        return
    real = os.path.realpath(interpreter)
    if part := folders.closed_part(interpreter) or folders.closed_part(real):
        raise NoojeeError(
            f"{path} cannot be run by user {stage.user()}: its Python {interpreter} lies below {part},"
            " which that user cannot enter",
            _opened(part),
        )
    ours = os.path.join(programs, "python3")
    what = f"{path} cannot be run: its Python {interpreter} is not there"
    if os.access(ours, os.X_OK):  # the virtual environment was moved
        names = [*install.AGI_PROGRAMS, FINISH_PROGRAM, "noojee-agi"]
        files = stage.quoted(*(os.path.join(programs, name) for name in names))
        raise NoojeeError(what, f"sed -i '1s|^#!.*|#!{ours}|' {files}")
    raise NoojeeError(what, cures.install_elsewhere())


def _opened(part: str) -> str:
    return cures.install_elsewhere() if cures.is_home(part) else stage.quoted("chmod", "a+rx", part)


def _start(what: str, words: list[str], environment: Mapping[str, str], is_session: bool) -> _Run:
    """Raises NoojeeError."""
    try:
        process = subprocess.Popen(
            words,
            cwd="/",
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as exc:
        raise NoojeeError(f"{what} cannot be run by user {stage.user()} ({exc.strerror})") from exc
    return _Run(what, process, is_session)


def _problem(run: _Run, programs: str) -> NoojeeError | None:
    """What has kept it from the point of the key; it ends there, as if the caller had hung up."""
    process = run.process
    with process:
        try:
            if run.is_session and _asks_for_key(process):
                return None
            said = process.communicate(timeout=_RUN_SECONDS)[1].decode("utf-8", "replace").strip()
        except subprocess.TimeoutExpired:
            return NoojeeError(f"{run.what} has done nothing for {_RUN_SECONDS:g} s")
        finally:
            process.kill()
    if not run.is_session and process.returncode == 0:
        return None
    return _failure(run.what, said.splitlines()[-1:], programs)


def _asks_for_key(process: subprocess.Popen[bytes]) -> bool:
    """Whether it gets so far; it ends or closes its output before, or takes too long."""
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(_SESSION)
        process.stdin.flush()
    except OSError:
        return False
    said, deadline = b"", time.monotonic() + _RUN_SECONDS
    while _KEY not in said:
        ready = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))[0]
        read = os.read(process.stdout.fileno(), _READ_BYTES) if ready else b""
        if not read:
            return False
        said += read
        if b"\n" in said and _KEY not in said:  # what it sets when its configuration is wrong
            process.stdin.write(b"200 result=1\n")
            process.stdin.flush()
    return True


def _failure(what: str, last_line: list[str], programs: str) -> NoojeeError:
    reason = last_line[0] if last_line else "it says nothing"
    folder = os.path.dirname(programs)
    is_closed = "Permission" in reason or "ModuleNotFound" in reason or "ImportError" in reason
    if is_closed and (part := _closed_below(folder)):
        return NoojeeError(
            f"{what} cannot be run by user {stage.user()}, who cannot read {part}",
            stage.quoted("chmod", "-R", "a+rX", folder),
        )
    return NoojeeError(
        f"{what} cannot be run by user {stage.user()} ({reason})", cures.install_again(programs)
    )


def _closed_below(folder: str) -> str:
    """Something in the installation that we cannot read; empty when there is nothing."""
    for place, names, files in os.walk(folder):
        for name in names + files:
            path = os.path.join(place, name)
            needed = os.R_OK | (os.X_OK if name in names else 0)
            if os.path.exists(path) and not os.access(path, needed):
                return path
    return ""
