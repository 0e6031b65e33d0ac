"""`noojee-agi`, loaded once: each command is a fork of that process, which saves a second of imports.

What runs is what the program runs: our installed package, its main(), its arguments, environment, umask and
working directory, its three streams, its exit code. So are the drains of a site (loaded_drain.py) and its
server (lab.served).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from lab import processes
from lab.waiting import wait_until

START_SECONDS = 120.0
COMMAND_SECONDS = 120.0
SERVER = Path(__file__).with_name("command_server.py")
DRAIN = Path(__file__).with_name("loaded_drain.py")
# Python runs the lines of such a file in site-packages when it starts (manual, module site).
HOOK_NAME = "noojee-agi-lab.pth"
HOOK = (
    'import os, sys; "LAB_LOADED_DRAIN" in os.environ and sys.orig_argv[2:3] == ["-m"]'
    " and exec(open({path!r}).read(), {{}})\n"
)
_REQUEST_BYTES = 1 << 20


class LoadedCommand:
    """A process that has `program` loaded, for as long as ours runs. Beside a program lies its Python."""

    def __init__(self, program: Path) -> None:
        folder = tempfile.mkdtemp(prefix="lab-command-", dir="/tmp")
        atexit.register(_remove, folder, os.getpid())
        self._socket = os.path.join(folder, "socket")
        python = program.with_name("python")
        self._process = subprocess.Popen(
            [*processes.dies_with_us(), str(python), "-I", str(SERVER), str(program), self._socket],
            stdin=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        wait_until(lambda: os.path.exists(self._socket), START_SECONDS, "noojee-agi to be loaded")

    @property
    def of_drains(self) -> dict[str, str]:
        """The environment in which drains of our own test environment are forks of it, too."""
        return {"LAB_LOADED_DRAIN": self._socket}

    def run(
        self, words: Sequence[str], text: str, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """As subprocess.run(..., capture_output=True, text=True)."""
        with contextlib.ExitStack() as stack:
            streams: list[IO[str]] = [
                stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(3)
            ]
            streams[0].write(text)
            streams[0].seek(0)
            descriptors = [stream.fileno() for stream in streams]
            with LoadedProcess(self._ask(words, environment, descriptors)) as process:
                code = process.wait(COMMAND_SECONDS)
            if code == -signal.SIGKILL:
                raise RuntimeError(f"noojee-agi {' '.join(words)} was killed")
            for stream in streams[1:]:
                stream.seek(0)
            return subprocess.CompletedProcess([*words], code, streams[1].read(), streams[2].read())

    def start(
        self, words: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]
    ) -> LoadedProcess:
        """One that runs on, in a session of its own, with these as its standard streams."""
        return LoadedProcess(self._ask(words, environment, descriptors, is_session=True))

    def _ask(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        is_session: bool = False,
    ) -> socket.socket:
        umask = os.umask(0)
        os.umask(umask)
        request = {
            "words": [*words],
            "descriptors": [0, 1, 2],
            "environment": {**environment},
            "umask": umask,
            "folder": os.getcwd(),
            "is_session": is_session,
        }
        asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            asked.settimeout(COMMAND_SECONDS)
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST_BYTES)
            asked.connect(self._socket)
            socket.send_fds(asked, [json.dumps(request).encode()], descriptors)
        except BaseException:
            asked.close()
            raise
        return asked


def _remove(folder: str, owner: int) -> None:
    """At the end of the process that has made it, not of one that it has forked."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


class LoadedProcess:
    """A command that runs: as much of subprocess.Popen as the lab needs. Closing `asked` kills it."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self.pid = int(asked.recv(16))
        self.returncode: int | None = None

    def __enter__(self) -> LoadedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asked.close()

    def poll(self) -> int | None:
        """Its exit code, once it has ended; negative after a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, seconds: float | None = None) -> int:
        """The same. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._asked.settimeout(seconds)
            try:
                self.returncode = int(self._asked.recv(16) or -signal.SIGKILL)
            except (TimeoutError, BlockingIOError) as expired:
                raise subprocess.TimeoutExpired(f"process {self.pid}", seconds or 0) from expired
            self._asked.close()
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


_loaded: dict[Path, LoadedCommand] = {}


def loaded(program: Path) -> LoadedCommand:
    """The one of this test process."""
    if program not in _loaded:
        _install_hook()
        _loaded[program] = LoadedCommand(program)
    return _loaded[program]


def _install_hook() -> None:
    hook = Path(sysconfig.get_path("purelib"), HOOK_NAME)
    text = HOOK.format(path=str(DRAIN))
    if not hook.exists() or hook.read_text() != text:
        new = hook.with_name(f"{HOOK_NAME}.{os.getpid()}")
        new.write_text(text)
        new.replace(hook)
