"""A private PostgreSQL: own cluster, loopback only, gone when the test ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import random
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lab import debian, memory, processes
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until

START_SECONDS = 30.0
STOP_SECONDS = 60.0
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
# Above those of Asterisk's audio, and below those that the kernel gives away (ip_local_port_range).
_PORTS = range(31_001, 32_768)
_taken: list[socket.socket] = []
NO_SYNC = ("fsync", "full_page_writes")


class PostgreSQLFailed(Exception):
    """PostgreSQL did not start, or refused a statement of the lab."""


@dataclass(frozen=True)
class Installation:
    """The folder of PostgreSQL's programs and, if they are not installed, the root folder they came with."""

    programs: Path
    root: Path | None = None


def find() -> Installation:
    """Return the machine's own PostgreSQL, or else that of its Debian suite. Raises LabUnavailable."""
    initdb = shutil.which("initdb")
    if initdb is not None:
        return Installation(Path(initdb).resolve().parent)
    installed = _programs(Path("/"))
    if installed is not None:
        return Installation(installed)
    return _unpacked(debian.unpack("postgresql", debian.own_suite()))


def _unpacked(root: Path) -> Installation:
    programs = _programs(root)
    if programs is None:
        raise LabUnavailable(f"no initdb in {root}: delete that folder, it is made again")
    return Installation(programs, root)


def _programs(root: Path) -> Path | None:
    found = [path.parent for path in root.glob("usr/lib/postgresql/*/bin/initdb")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


class PrivatePostgreSQL:
    """One cluster with its log in `folder`; a context manager.

    Root may not run PostgreSQL, so for root it runs as `postgres` or `nobody`, and the data lies in a folder
    below memory.folder(), since a checkout may be closed for that user. The superuser `postgres` needs no
    password. Without `fsync` a crash of the machine may lose data, a crash of PostgreSQL does not. `data` is
    where the cluster is made, if not in the usual place: its parent must be open to that user. With
    `has_socket` other networks of this machine reach it too, as local_url tells.
    """

    def __init__(
        self, folder: Path, fsync: bool = False, data: Path | None = None, has_socket: bool = False
    ) -> None:
        self.folder = folder.absolute()
        self.port = 0
        self._fsync = fsync
        self._installation = find()
        self._home = self.folder
        self._data = data
        self._has_socket = has_socket
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivatePostgreSQL:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._make_home()
            self._make_cluster()
            self.start()
        except BaseException:
            self._remove_home()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop("immediate")
        self._remove_home()

    @property
    def pid(self) -> int:
        """The process id of the running server (of the postmaster; each connection has a child of it)."""
        if self._process is None:
            raise PostgreSQLFailed("this PostgreSQL is not started")
        return self._process.pid

    def url(self, database: str) -> str:
        """Return the address of a database as SQLAlchemy wants it."""
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{database}"

    def local_url(self, database: str) -> str:
        """The same by its Unix socket, which is found from every network namespace of this machine."""
        return f"postgresql+psycopg2://postgres@/{database}?host={self._home}&port={self.port}"

    def start(self) -> None:
        """Start the server, on the same port as before, and return when it takes connections."""
        if self._process is not None:
            raise PostgreSQLFailed("this PostgreSQL is started already")
        command = [*self._as_user(pdeathsig=True), *self._server_command()]
        with self._log().open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._is_ready, START_SECONDS, "PostgreSQL's start")
        except BaseException:
            self.stop("immediate")
            raise

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: smart waits for the connections, fast ends them, immediate is a crash.

        A server that was frozen with SIGSTOP is woken first; one that does not end in time is killed.
        """
        process, self._process = self._process, None
        if process is None:
            return
        backends = processes.children(process.pid)
        processes.send(signal.SIGCONT, [process.pid, *backends])
        process.send_signal(STOP_SIGNALS[mode])
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            backends = processes.children(process.pid)
            processes.send(signal.SIGKILL, [process.pid, *backends])
            process.wait()

    def freeze(self) -> None:
        """Stop every process of it where it is (SIGSTOP): connections stay open, nothing is answered."""
        processes.send(signal.SIGSTOP, [self.pid])  # first: it might take one more connection
        processes.send(signal.SIGSTOP, processes.children(self.pid))

    def thaw(self) -> None:
        """Let it go on."""
        processes.send(signal.SIGCONT, [self.pid, *processes.children(self.pid)])

    def restart(self, mode: str = "fast") -> None:
        """Stop and start again."""
        self.stop(mode)
        self.start()

    def client(self) -> str:
        """What a shell puts before psql and its like, so that they reach this server as its superuser."""
        values = {name: value for name, value in self._environment().items() if name == "LD_LIBRARY_PATH"}
        values["PATH"] = f"{self._installation.programs}:{os.environ['PATH']}"
        values |= {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres"}
        return shlex.join(["env", *(f"{name}={value}" for name, value in values.items())])

    def create_database(self, template: str | None = None, name: str = "") -> str:
        """Create a database and return its name; it copies `template`, which nobody may be connected to."""
        name = name or f"lab_{next(self._numbers)}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template0"}"')
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database and the connections to it."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", "postgres"]
        self._run([str(self._installation.programs / "psql"), "-X", "-q", *address, "-c", statement])

    def _make_home(self) -> None:
        if os.geteuid() != 0:
            return
        self._home = Path(tempfile.mkdtemp(prefix="lab-postgresql-", dir=memory.folder()))
        user = server_user()
        os.chown(self._home, user.pw_uid, user.pw_gid)
        if self._installation.root is not None:
            # The cache lies in root's home, which that user may not enter.
            copy = shutil.copytree(self._installation.root, self._home / "debian", symlinks=True)
            self._installation = _unpacked(copy)

    def _remove_home(self) -> None:
        if self._home != self.folder:
            shutil.rmtree(self._home)

    def _folder_of_data(self) -> Path:
        return self._data or self._home / "data"

    def _make_cluster(self) -> None:
        initdb = str(self._installation.programs / "initdb")
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run([*self._as_user(), initdb, *options, "-D", str(self._folder_of_data())])
        self.port = free_port()

    def _server_command(self) -> list[str]:
        sockets = self._home if self._has_socket else ""
        settings = ["listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={sockets}"]
        if not self._fsync:
            settings += [f"{name}=off" for name in NO_SYNC]
        words = [word for setting in settings for word in ("-c", setting)]
        return [str(self._installation.programs / "postgres"), "-D", str(self._folder_of_data()), *words]

    def _is_ready(self) -> bool:
        """Read the server's own word in the last line of postmaster.pid, as pg_ctl does."""
        if self._process is None or self._process.poll() is not None:
            raise PostgreSQLFailed(f"PostgreSQL ended while it started:\n{self._log().read_text()[-2000:]}")
        lines: list[str] = []
        with contextlib.suppress(FileNotFoundError):  # nor, for a moment, that of one that has crashed
            lines = (self._folder_of_data() / "postmaster.pid").read_text().splitlines()
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _as_user(self, pdeathsig: bool = False) -> list[str]:
        """Return the words that run a server program as a user who may run it, and let it end with us."""
        words = processes.dies_with_us() if pdeathsig else []
        if os.geteuid() != 0:
            return words
        user = server_user()
        return [*(words or ["setpriv"]), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def _run(self, command: Sequence[str]) -> None:
        done = subprocess.run(
            command, cwd=self._home, env=self._environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise PostgreSQLFailed(f"{Path(command[0]).name}: {done.stderr.strip()[-1000:]}")

    def _environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        if self._installation.root is not None:
            # By the environment, since initdb starts postgres itself; it is the C library of this very suite.
            ours["LD_LIBRARY_PATH"] = debian.library_path(self._installation.root)
        return ours

    def _log(self) -> Path:
        return self.folder / "postgresql.log"


def server_user() -> pwd.struct_passwd:
    """Return the user as whom root runs a server that root may not run."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def free_port() -> int:
    """Return a port of the loopback, of TCP and UDP, that nobody uses, nor gets before our process ends.

    Else that of a server which is stopped for a while, or begins a moment later, might be somebody else's by
    then. It is none that the kernel gives to whoever asks for any, and a name says to the lab's other
    processes that it is taken.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0noojee-agi-lab-port-{port}")
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        _taken.append(name)
        return port
    raise LabUnavailable(f"all ports from {_PORTS[0]} to {_PORTS[-1]} are in use")
