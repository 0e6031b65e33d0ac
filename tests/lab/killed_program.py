#!python -IS
"""Stands where a program of ours is started, and becomes it; when a plan waits, the program is killed.

The plan lies beside this file, in `<this file>.plan/` (lab/killing.py writes it): `program` links to the
program, each file of `waiting/` is one kill, and what it met is left in `met/` under the same name.

    NUMBER-time   SECONDS program     kill the program after so many seconds
                  SECONDS all         and whatever it has forked that is still there
    NUMBER-line   program PLACE       kill the program when it comes to that line
                  background PLACE    or its fork
    NUMBER-watch                      kill nobody: tell how many seconds the program ran, and its fork
    NUMBER-trace                      kill nobody: tell who comes to which line
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from types import FrameType
from typing import Any

PLAN = f"{os.path.realpath(__file__)}.plan"
MARK = "LAB_KILLED_PROGRAM"  # in the environment of the program and all that it becomes
OF_OURS = f"{os.sep}noojee_agi{os.sep}"
IN_FUNCTION = 1  # inspect.CO_OPTIMIZED: neither a module's nor a class's body
WATCHED_SECONDS = 60.0
PATIENCE = 4  # as lab/waiting.py has it


def main() -> None:
    program = os.readlink(f"{PLAN}/program")
    name = _next_of_plan()
    if not name:
        os.execv(program, [program, *sys.argv[1:]])
    environment = {**os.environ, MARK: name}
    if name.endswith(("-line", "-trace")):
        ourselves = [sys.executable, __file__, program, *sys.argv[1:]]
        os.execve(sys.executable, ourselves, environment)
    target = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        _detach()
        _watch(name, target) if name.endswith("-watch") else _kill_in_time(name, target)
        os._exit(0)
    os.execve(program, [program, *sys.argv[1:]], environment)


def _next_of_plan() -> str:
    """Take the first kill that waits; several of us may try that at once."""
    for name in sorted(os.listdir(f"{PLAN}/waiting")):
        try:
            os.rename(f"{PLAN}/waiting/{name}", f"{PLAN}/taken/{name}")
        except FileNotFoundError:
            continue
        return name
    return ""


def _detach() -> None:
    """Asterisk waits for its script's pipes to close, and the program may be in another session soon."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _kill_in_time(name: str, target: int) -> None:
    seconds, whom = _planned(name).split()
    time.sleep(float(seconds))
    met = []
    try:
        signal.pidfd_send_signal(target, signal.SIGKILL)
        met.append("program")
    except ProcessLookupError:
        pass
    if whom == "all" and _kill_marked(name):
        met.append("background")
    _tell(name, " and ".join(met))


def _planned(name: str) -> str:
    with open(f"{PLAN}/taken/{name}") as file:
        return file.read()


def _watch(name: str, target: int) -> None:
    begun = time.monotonic()
    poll = select.poll()
    poll.register(target, select.POLLIN)
    poll.poll(WATCHED_SECONDS * 1000)
    program = time.monotonic() - begun
    asked = time.monotonic()
    while _marked(name) and asked - begun < WATCHED_SECONDS:
        # It reads what each process of the machine has: the processor is for those that are watched.
        time.sleep(max(0.005, PATIENCE * (time.monotonic() - asked)))
        asked = time.monotonic()
    _tell(name, f"{program} {time.monotonic() - begun}")


def _kill_marked(name: str) -> bool:
    """Kill until there are none: one may have forked while we looked."""
    met = False
    while found := _marked(name):
        met = True
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
    return met


def _marked(name: str) -> list[int]:
    mark = f"{MARK}={name}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:
                continue  # it has ended, or is somebody else's
    return found


def _tell(name: str, text: str) -> None:
    with open(f"{PLAN}/{name}.unfinished", "w") as file:
        file.write(text)
    os.rename(f"{PLAN}/{name}.unfinished", f"{PLAN}/met/{name}")


# --- in the program's own process ---


def run_traced(name: str, program: str) -> None:
    """Run the program in this process, line by line."""
    sys.argv = [program, *sys.argv[2:]]
    sys.path[0] = os.path.dirname(os.path.realpath(program))
    with open(program, encoding="utf-8") as file:
        code = compile(file.read(), program, "exec")
    sys.settrace(Lines(name, _planned(name)).trace)
    exec(code, {"__name__": "__main__", "__file__": program})


class Lines:
    """Follows our functions line by line, also in a forked child; kills before the planned line."""

    def __init__(self, name: str, last: str) -> None:
        self._last = last
        self._program = os.getpid()
        self._told = os.open(f"{PLAN}/met/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if OF_OURS not in code.co_filename or not code.co_flags & IN_FUNCTION:
            return None
        if event == "line":
            who = "program" if os.getpid() == self._program else "background"
            self._come_to(f"{who} {code.co_filename.rpartition(OF_OURS)[2]}:{frame.f_lineno}")
        return self.trace

    def _come_to(self, place: str) -> None:
        if not self._last or place == self._last:
            os.write(self._told, f"{place}\n".encode())
        if place == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if MARK in os.environ:
        run_traced(os.environ[MARK], sys.argv[1])
    else:
        main()
