"""A private pgbouncer before a private PostgreSQL: one server connection serves many clients in turn."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg2  # type: ignore[import-untyped]
from psycopg2.extras import RealDictCursor  # type: ignore[import-untyped]

from lab import debian, processes
from lab.postgresql import PrivatePostgreSQL, free_port, server_user
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until

START_SECONDS = 15.0
STOP_SECONDS = 5.0
# What a program needs of an unpacked Debian; the rest is documentation.
PROGRAM_FOLDERS = ("lib", "usr/lib", "usr/sbin")

# No ignore_startup_parameters: what a client may not send in a pool is refused, as by default.
CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={server_port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
admin_users = postgres
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 100
"""


class PgBouncerFailed(Exception):
    """pgbouncer did not start."""


def find() -> Path:
    """Return the root folder of a pgbouncer: / or that of its Debian suite. Raises LabUnavailable."""
    if Path("/usr/sbin/pgbouncer").is_file():
        return Path("/")
    root = debian.unpack("pgbouncer", debian.own_suite())
    if not (root / "usr/sbin/pgbouncer").is_file():
        raise LabUnavailable(f"no pgbouncer in {root}: delete that folder, it is made again")
    return root


class PrivatePgBouncer:
    """In pool_mode = transaction, with at most `pool_size` connections to each database; a context manager.

    Root may not run pgbouncer, so for root it runs as the user of PostgreSQL, from a copy under /tmp.
    """

    def __init__(self, postgresql: PrivatePostgreSQL, folder: Path, pool_size: int = 2) -> None:
        self.folder = folder.absolute()
        self.port = 0
        self._postgresql = postgresql
        self.pool_size = pool_size
        self._root = find()
        self._home = self.folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivatePgBouncer:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._make_home()
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def url(self, database: str) -> str:
        """Return the address of a database, through the pool, as SQLAlchemy wants it."""
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{database}"

    def show(self, what: str) -> list[dict[str, Any]]:
        """Return what the administrator's console says: `SHOW SERVERS` and its like."""
        address = f"host=127.0.0.1 port={self.port} user=postgres dbname=pgbouncer"
        with closing(psycopg2.connect(address, cursor_factory=RealDictCursor)) as console:
            console.autocommit = True
            with console.cursor() as cursor:
                cursor.execute(f"SHOW {what}")
                return [dict(row) for row in cursor.fetchall()]

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        """Return what pgbouncer has said."""
        return self._log().read_text()

    def _make_home(self) -> None:
        if os.geteuid() != 0:
            return
        self._home = Path(tempfile.mkdtemp(prefix="lab-pgbouncer-", dir="/tmp"))
        if self._root != Path("/"):
            # The cache lies in root's home, which that user may not enter.
            copy = self._home / "debian"
            for name in PROGRAM_FOLDERS:
                shutil.copytree(self._root / name, copy / name, symlinks=True)
            for folder in (copy, copy / "usr"):  # made on the way, so by our umask
                folder.chmod(0o755)
            self._root = copy
        self._home.chmod(0o755)

    def _start(self) -> None:
        self.port = free_port()
        configuration = self._home / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(server_port=self._postgresql.port, port=self.port, pool_size=self.pool_size)
        )
        configuration.chmod(0o644)
        with self._log().open("wb") as log:
            self._process = subprocess.Popen(
                [*self._as_user(), *self._program(), str(configuration)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._is_ready, START_SECONDS, "pgbouncer's start")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            processes.end(process, STOP_SECONDS)
        if self._home != self.folder:
            shutil.rmtree(self._home)

    def _program(self) -> list[str]:
        program = str(self._root / "usr/sbin/pgbouncer")
        return [program] if self._root == Path("/") else [*debian.loader_command(self._root), program]

    def _as_user(self) -> list[str]:
        words = processes.dies_with_us()
        if os.geteuid() != 0:
            return words
        user = server_user()
        return [*(words or ["setpriv"]), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def _is_ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise PgBouncerFailed(f"pgbouncer ended while it started:\n{self.log()[-2000:]}")
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def _log(self) -> Path:
        return self.folder / "pgbouncer.log"
