"""A private nginx out of Debian's package: Debian's own configuration with one site, in a folder of ours."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType

from lab import debian, processes
from lab.postgresql import free_port
from lab.waiting import wait_until

START_SECONDS = 15.0
STOP_SECONDS = 5.0
_PLACES = {"/etc/nginx": "etc", "/var/log/nginx": "log", "/run/nginx.pid": "nginx.pid"}
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class NginxFailed(Exception):
    """nginx did not start."""


class PrivateNginx:
    """A context manager. site: the text of its only site, which listens at 443; that is another port here."""

    def __init__(self, folder: Path, site: str) -> None:
        self.folder = folder.absolute()
        self.port = 0
        self._site = site
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateNginx:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def log(self, name: str) -> str:
        """What stands in that log file."""
        return (self.folder / "log" / name).read_text()

    def has(self, secret: str) -> bool:
        """Whether it stands in anything that was written to its folder."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return any(secret.encode() in path.read_bytes() for path in files)

    def _start(self) -> None:
        root = debian.unpack("nginx", debian.own_suite())
        self.port = free_port()
        self._configure(root)
        program = [*debian.loader_command(root), str(root / "usr/sbin/nginx")]
        words = ["-e", str(self.folder / "log/error.log"), "-c", str(self.folder / "etc/nginx.conf")]
        with (self.folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                [*processes.dies_with_us(), *program, *words, "-g", "daemon off;"],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._answers, START_SECONDS, "nginx's start")

    def _configure(self, root: Path) -> None:
        for name in ("log", "temporary"):
            (self.folder / name).mkdir(parents=True)
        shutil.copytree(root / "etc/nginx", self.folder / "etc")
        shutil.rmtree(self.folder / "etc/sites-enabled")  # a link to Debian's default, on port 80
        (self.folder / "etc/sites-enabled").mkdir()
        site = self._site.replace("listen 443 ", f"listen 127.0.0.1:{self.port} ")
        (self.folder / "etc/sites-enabled/noojee-agi").write_text(self._moved(site))
        temporary = [f"{name}_temp_path {self.folder}/temporary/{name};\n" for name in _TEMPORARY]
        (self.folder / "etc/conf.d/lab.conf").write_text("".join(temporary))
        main = self.folder / "etc/nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # whose folder this is
        main.write_text(self._moved(main.read_text()).replace("user www-data;", user))

    def _moved(self, text: str) -> str:
        for place, name in _PLACES.items():
            text = text.replace(place, f"{self.folder}/{name}")
        return text

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise NginxFailed(f"nginx ended while it started: {(self.folder / 'said').read_text()}")
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            processes.end(process, STOP_SECONDS)
            processes.end_session(process.pid)
