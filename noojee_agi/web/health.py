"""/health: what `noojee-agi check` says, for whoever looks at many hosts, such as a load balancer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from datetime import datetime
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any, NamedTuple

from noojee_agi.web import threads

_KEPT_SECONDS = 30.0
_TOO_OLD_SECONDS = 120.0  # nobody has asked for so long
_PATIENCE_SECONDS = 20.0
_LIMIT_SECONDS = 60.0
_HEALTHY, _ILL = 200, 503
_FAILED = "noojee-agi check says what to do"
_LATE = f"noojee-agi check has not come to its end within {_LIMIT_SECONDS:g} s"
_BROKEN = "noojee-agi check cannot be run: run it by hand"
_NOT_YET = "noojee-agi check is at work: ask again"

Stages = list[dict[str, str]]


class _Said(NamedTuple):
    """What a check came to, and when it began, by time.monotonic()."""

    begun: float
    answer: tuple[int, dict[str, Any]]


class Health:
    """One check at a time. programs: the folder of noojee-agi. configuration: the server's; empty: none."""

    def __init__(self, programs: str, configuration: str) -> None:
        self._command = (os.path.join(programs, "noojee-agi"), "check", "--json", "--passive")
        named = {"NOOJEE_AGI_CONF": configuration} if configuration else {}
        self._environment = {**os.environ, **named}
        self._said = _Said(-_TOO_OLD_SECONDS, (_ILL, _body(False, None, [], _NOT_YET)))
        self._work: asyncio.Future[None] | None = None
        self._lock = threading.Lock()
        self._process: Popen[bytes] | None = None
        self._is_closed = False

    async def answer(self) -> tuple[int, dict[str, Any]]:
        """Status and body, as of the last check; who comes first, or after a long time, waits for one."""
        before = self._said
        age = time.monotonic() - before.begun
        if age > _KEPT_SECONDS and (self._work is None or self._work.done()):
            self._work = threads.begin(self._check)
        if age > _TOO_OLD_SECONDS and self._work:
            await asyncio.wait([self._work], timeout=_PATIENCE_SECONDS)
        if age > _TOO_OLD_SECONDS and self._said is before:
            return _ILL, _body(False, None, [], _NOT_YET)
        return self._said.answer

    def close(self) -> None:
        """End the check that is at work, if any; none is begun any more."""
        with self._lock:
            self._is_closed = True
            if self._process:
                _end(self._process)

    def _check(self) -> None:
        begun, moment = time.monotonic(), datetime.now().astimezone()
        is_ok, stages, message = self._run()
        body = _body(is_ok, moment.isoformat(timespec="seconds"), stages, message)
        self._said = _Said(begun, (_HEALTHY if is_ok else _ILL, body))

    def _run(self) -> tuple[bool, Stages, str]:
        """Whether all is well, the stages, and a word."""
        try:
            with self._begun() as process:
                try:
                    said, _ = process.communicate(timeout=_LIMIT_SECONDS)
                finally:
                    _end(process)
            stages = _stages(said)
        except TimeoutExpired:
            return False, [], _LATE
        except (OSError, ValueError, KeyError, TypeError):
            return False, [], _BROKEN
        is_ok = process.returncode == 0
        return is_ok, stages, "OK" if is_ok else _FAILED

    def _begun(self) -> Popen[bytes]:
        """Raises OSError."""
        with self._lock:
            if self._is_closed:
                raise InterruptedError
            self._process = Popen(
                self._command,
                env=self._environment,
                start_new_session=True,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=DEVNULL,
            )
            return self._process


def _end(process: Popen[bytes]) -> None:
    """With all that it has started. It has the server's signals, which it would not hear: it is killed."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _stages(said: bytes) -> Stages:
    """Without what they say, which names files, logins and calls. Raises ValueError, KeyError, TypeError."""
    return [{"name": str(stage["name"]), "state": str(stage["state"])} for stage in json.loads(said)]


def _body(is_ok: bool, checked_at: str | None, stages: Stages, message: str) -> dict[str, Any]:
    return {"ok": is_ok, "checked_at": checked_at, "message": message, "stages": stages}
