"""A `noojee-agi serve` for one site: started, asked how it is, stopped, killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from lab import processes
from lab.loaded_command import LoadedProcess, loaded
from lab.postgresql import free_port
from lab.site import Site
from lab.waiting import wait_until
from noojee_agi.session import handoff

START_SECONDS = 60.0  # a Python that begins takes 20 of them on a busy machine
STOP_SECONDS = 60.0
SOCKET_PATH_BYTES = 107
DRAIN_NICENESS, HTTP_NICENESS = 19, 5  # beyond the server's own
_SERVES = re.compile(
    r"^serves agi://[\d.]+:(\d+) and (?:(https?://\S+) and )?(.+): .*start_record", re.MULTILINE
)


class Served:
    """Runs while the block runs, and may be stopped and started again: the port stays the same.

    It writes the site's configuration: a test that changes that calls `configure` here, not the site's.
    `address` is where it listens; `enter` are the words before its command, such as lab.hosts has.
    """

    def __init__(
        self,
        site: Site,
        options: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        enter: Sequence[str] = (),
    ) -> None:
        self.site = site
        self.port = free_port()
        self.http = ""  # such as https://127.0.0.1:8443, where http.listen is among the options
        self._options = {**(options or {})}
        self._address = address
        self._enter = enter
        self._socket_folder = ""
        self._process: subprocess.Popen[bytes] | LoadedProcess | None = None
        self._said_before = 0

    def __enter__(self) -> Served:
        self._socket_folder = _short_folder(self.site)
        try:
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._remove()

    @property
    def pid(self) -> int:
        assert self._process is not None, "this server is not started"
        return self._process.pid

    @property
    def socket(self) -> Path:
        """The Unix socket of the hand-over."""
        return Path(self._socket_folder or self.site.state_directory) / "agi.sock"

    @property
    def stdout(self) -> str:
        """All that was said, by all servers that this site has had."""
        return _read(self._output("stdout"))

    @property
    def stderr(self) -> str:
        return _read(self._output("stderr"))

    def configure(self, options: Mapping[str, str] | None = None) -> None:
        """Write noojee_agi.conf anew: these options and those of the server; reload() has it read."""
        own = {"server.listen": f"{self._address}:{self.port}", **self._options}
        if self._socket_folder:
            own["server.socket"] = str(self.socket)
        self.site.configure({**own, **(options or {})})

    def start(self) -> None:
        """Start it, and return when a worker answers."""
        self.configure()
        self._said_before = len(_SERVES.findall(self.stdout))
        with self._output("stdout").open("ab") as stdout, self._output("stderr").open("ab") as stderr:
            self._process = self._begin(stdout, stderr)
        try:
            wait_until(self._is_up, START_SECONDS, "noojee-agi serve to answer")
        except BaseException:
            self.kill()
            raise

    def _begin(self, stdout: IO[bytes], stderr: IO[bytes]) -> subprocess.Popen[bytes] | LoadedProcess:
        program, environment = self.site.programs / "noojee-agi", self.site.environment
        if self.site.has_loaded_drains and not self._enter:
            with open(os.devnull, "rb") as nothing:
                streams = [stream.fileno() for stream in (nothing, stdout, stderr)]
                return loaded(program).start(["serve"], environment, streams)
        return subprocess.Popen(
            [*processes.dies_with_us(), *self._enter, str(program), "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    def reload(self) -> None:
        """SIGHUP, and wait until the server has said what came of it; the workers are told before that."""
        before = self.site.log().count(" SIGHUP: ")
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: self.site.log().count(" SIGHUP: ") > before, 20, "an answer to SIGHUP")

    def terminate(self) -> None:
        """SIGTERM, without waiting for the end."""
        os.kill(self.pid, signal.SIGTERM)

    def stop(self) -> int | None:
        """SIGTERM; returns the exit code once the server and all its processes have ended.

        What has not ended in a minute is killed, and that is a failure.
        """
        process, self._process = self._process, None
        if process is None:
            return None
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as expired:
            raise AssertionError(f"noojee-agi serve did not end: {self.stderr}") from expired
        finally:
            _kill(process)
        return process.returncode

    def kill(self) -> None:
        """SIGKILL for the server and all its processes."""
        process, self._process = self._process, None
        if process is not None:
            _kill(process)

    def status(self) -> dict[str, float]:
        """What it tells `noojee-agi check` of itself. Raises OSError when nobody answers."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(20)
            asking.connect(str(self.socket))
            asking.sendall(handoff.framed(handoff.STATUS))
            answer = b""
            while read := asking.recv(4096):
                answer += read
        status: dict[str, float] = json.loads(answer)
        return status

    def wait_for(self, counter: str, value: float) -> None:
        """A session is counted a moment after its call was told."""
        wait_until(lambda: self.status()[counter] == value, 20, f"{counter} to be {value:g}")

    def workers(self) -> list[int]:
        """Its processes that run sessions: they listen at its Unix socket."""
        lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
        listening = {f"socket:[{words[6]}]" for words in lines if words[-1] == str(self.socket)}
        found = [child for child in processes.children(self.pid) if child != self.drain_process]
        return [child for child in found if not listening.isdisjoint(_open_files(child))]

    def wait_for_workers(self) -> None:
        """One of them answers a moment before the others have their event loops."""
        wait_until(
            lambda: all("anon_inode:[eventpoll]" in _open_files(worker) for worker in self.workers()),
            START_SECONDS,
            "all workers",
        )

    @property
    def drain_process(self) -> int:
        """Its process for the database: the one that has made itself nicest."""
        return wait_until(lambda: self._nicer(DRAIN_NICENESS), 20, "the drain process")[0]

    @property
    def http_port(self) -> int:
        return urllib.parse.urlsplit(self.http).port or 0

    @property
    def http_process(self) -> int:
        return wait_until(lambda: self._nicer(HTTP_NICENESS), 20, "the process for HTTP")[0]

    def _nicer(self, by: int) -> list[int]:
        wanted = min(19, _niceness(self.pid) + by)
        return [child for child in processes.children(self.pid) if _niceness(child) == wanted]

    def _is_up(self) -> bool:
        said = _SERVES.findall(self.stdout)
        assert self._process is not None
        assert self._process.poll() is None, f"noojee-agi serve has ended: {self.stderr}"
        if len(said) == self._said_before:
            return False
        port, self.http, path = said[-1]
        self.port = int(port)
        assert path == str(self.socket)
        return bool(self.status())

    def _output(self, name: str) -> Path:
        return self.site.folder / f"serve.{name}"

    def _remove(self) -> None:
        if self._socket_folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = ""


def _niceness(pid: int) -> int:
    """As low as can be when the process has just ended."""
    try:
        return os.getpriority(os.PRIO_PROCESS, pid)
    except ProcessLookupError:
        return -20


def _short_folder(site: Site) -> str:
    """Where the socket must lie when the state folder's path is too long; empty when it is not."""
    if len(os.fsencode(site.state_directory / "agi.sock")) <= SOCKET_PATH_BYTES:
        return ""
    return tempfile.mkdtemp(prefix="lab-serve-", dir="/tmp")


def _kill(process: subprocess.Popen[bytes] | LoadedProcess) -> None:
    processes.send(signal.SIGKILL, [process.pid, *processes.members(process.pid)])
    process.wait()
    processes.end_session(process.pid)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _open_files(process: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # it has just ended
        for entry in Path("/proc", str(process), "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found
