"""Asterisk's command line, by the control socket that `asterisk -rx` uses."""

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from typing import NamedTuple

from noojee_agi.errors import ConsoleUnavailable

DEFAULT_CONF = "/etc/asterisk/asterisk.conf"
_RUN_DIRECTORY = "/var/run/asterisk"  # as Asterisk is made by Debian, and by its own configure
_ANSWER_SECONDS = 10.0
_READ_BYTES = 65536
_PEER = 3 * 4  # bytes of a process, user and group in unix(7)'s SO_PEERCRED
_SECTION = re.compile(r"\[([^]]+)\](?:\((.*)\))?")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Console(NamedTuple):
    """conf: the asterisk.conf by which it was found. path: of its control socket."""

    conf: str
    path: str

    def ask(self, command: str) -> str:
        """What Asterisk says to the command. Raises ConsoleUnavailable."""
        return self._exchange(command)[0]

    def process(self) -> int:
        """The id of the process that listens. Raises ConsoleUnavailable."""
        return self._exchange("core show version")[1]

    def _exchange(self, command: str) -> tuple[str, int]:
        try:
            with socket.socket(socket.AF_UNIX) as asterisk:
                asterisk.settimeout(_ANSWER_SECONDS)
                asterisk.connect(self.path)
                peer = asterisk.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER)
                if not asterisk.recv(_READ_BYTES):  # the host's name, the process and the version
                    raise ConnectionResetError("it closes the connection")
                # asterisk.c ast_remotecontrol(), of -rx
                asterisk.sendall(b"cli quit after %b\0" % command.encode())
                said = b"".join(iter(lambda: asterisk.recv(_READ_BYTES), b""))
        except TimeoutError as exc:
            raise ConsoleUnavailable(f"Asterisk does not answer at {self.path}") from exc
        except OSError as exc:
            raise ConsoleUnavailable(f"{self.path}: {exc.strerror or exc}") from exc
        text = said.replace(b"\0", b"").decode("utf-8", "replace")
        return _COLOURS.sub("", text), int.from_bytes(peer[:4], sys.byteorder)

    def owner(self) -> int:
        """As which user Asterisk runs, by whom the socket belongs to. Raises ConsoleUnavailable."""
        try:
            return os.lstat(self.path).st_uid
        except OSError as exc:
            raise ConsoleUnavailable(f"{self.path}: {exc.strerror}") from exc


def at(conf: str) -> Console:
    """The console of the Asterisk that has this asterisk.conf. Raises OSError when that cannot be read."""
    given = settings(conf)
    folder = given.get("directories", {}).get("astrundir", _RUN_DIRECTORY)
    return Console(conf, os.path.join(folder, given.get("files", {}).get("astctl", "asterisk.ctl")))


def settings(conf: str) -> dict[str, dict[str, str]]:
    """Section -> name -> value, of asterisk.conf. Templates, [name](!), count for nothing. Raises OSError."""
    sections: dict[str, dict[str, str]] = {}
    values: dict[str, str] = {}
    with open(conf, encoding="utf-8", errors="replace") as file:
        for line in file:
            text = line.partition(";")[0].strip()
            if found := _SECTION.match(text):
                is_template = "!" in (found[2] or "").split(",")
                values = {} if is_template else sections.setdefault(found[1], {})
            elif "=" in text:
                name, _, value = text.partition("=")
                values[name.strip()] = value.removeprefix(">").strip()
    return sections


def running() -> Iterator[str]:
    """The asterisk.conf of each Asterisk that was started with one of its own (-C), by /proc."""
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{int(entry)}/cmdline", "rb") as file:
                words = [os.fsdecode(word) for word in file.read().split(b"\0")]
            if any(os.path.basename(word) == "asterisk" for word in words) and "-rx" not in words:
                yield words[words.index("-C") + 1]
