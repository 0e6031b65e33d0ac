"""What the state directory remembers of its machine: the names of its server, and where recordings were kept.

Lines of text, of which a sysadmin may take one out: `recordings` with what the spool's own file says of it,
`server` with the moment when that name was given up, or `-`.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from noojee_agi.recordings import files, recording, spool

_MACHINE_ID = "/etc/machine-id"  # machine-id(5): a copied machine gets another, a renamed one keeps it
_IDENTITY = ".identity"
_IN_USE = "-"
_LOCK, _TENDING_LOCK = "history.lock", "tending.lock"
_READ_BYTES = 65536
_NAME_CHARACTERS = 255
_HEAD = (
    "# What noojee-agi knows of this machine; the line of a folder that is gone for good may be taken out.\n"
)


class History(NamedTuple):
    """host: the server's name where none is configured. servers: name -> given up when, None while in use.

    directories: recordings directory -> identity of its spool, by which another disk is known.
    """

    machine: str = ""
    host: str = ""
    servers: Mapping[str, datetime | None] = MappingProxyType({})
    directories: Mapping[str, str] = MappingProxyType({})

    def is_foreign(self) -> bool:
        """Whether another machine has written this: it was copied, or two use one state directory."""
        return self != History() and self.machine != _machine()

    def is_ours(self, server: str, started_at: datetime) -> bool:
        """Whether a leg of that server is this machine's. A name that was given up may be another's since."""
        if server not in self.servers:
            return False
        until = self.servers[server]
        return until is None or started_at < until

    def with_server(self, server: str) -> "History":
        """The same, although it may not have been noted yet that this name is in use."""
        return self._replace(servers={**self.servers, server: None})

    def former(self, recordings_directory: str) -> list[str]:
        """Where recordings were kept before."""
        return [path for path in self.directories if path != recordings_directory]

    def is_away(self, recordings_directory: str) -> bool:
        """Whether something else lies there than the spool that was used: such as a bare mount point."""
        known = self.directories.get(recordings_directory)
        if known is None:
            return False
        found = _identity(spool.directory_in(recordings_directory))
        return found != known and not self._is_new_disk(recordings_directory, found)

    def _is_new_disk(self, directory: str, identity: str) -> bool:
        """What was known there may have been the folder below the mount point, before its disk was mounted.

        Only a mount is believed: below a mount point there may lie a spool with an identity of its own, too.
        """
        is_another_s = bool(identity) and identity in self.directories.values()
        return not is_another_s and os.path.ismount(os.path.realpath(directory))


def path_in(state_directory: str) -> str:
    return os.path.join(state_directory, "history")


def away(state_directory: str, file: str) -> str:
    """The folder of recordings in which that file would lie, if its disk is away; else empty."""
    known = load(state_directory)
    lies_in = (directory for directory in known.directories if file.startswith(f"{directory}/"))
    return next(filter(known.is_away, lies_in), "")


def server_name(state_directory: str) -> str:
    """The server's name where none is configured: the host's, as it was when it was first used."""
    now, known = os.uname().nodename, load(state_directory)
    if known.host and known.host != now and known.machine == _machine():
        return known.host
    return now


def load(state_directory: str) -> History:
    """Nothing is known where there is no file that can be read."""
    machine = host = ""
    servers: dict[str, datetime | None] = {}
    directories: dict[str, str] = {}
    for line in _read(path_in(state_directory)).split("\n"):
        kind, _, rest = line.partition(" ")
        first, _, second = rest.partition(" ")
        if kind == "machine":
            machine = rest
        elif kind == "host" and len(rest) <= _NAME_CHARACTERS and rest.isprintable():
            host = rest
        elif kind == "server":
            with contextlib.suppress(ValueError):
                servers[second] = None if first == _IN_USE else _moment(first)
        elif kind == "recordings" and second.startswith("/"):
            directories[second] = first
    return History(machine, host, servers, directories)


def remember(state_directory: str, server: str, recordings_directory: str) -> History:
    """Note what is in use now; returns all that is known. Raises OSError.

    A folder is noted when it is there. Its spool then is, too, and can be told from any other.
    """
    with _locked(state_directory):
        before = load(state_directory)
        known = _with_new_disk(_of_this_machine(before), recordings_directory)
        known = known._replace(
            host=known.host or (server if server == os.uname().nodename else ""),
            servers=_with_server(known.servers, server),
            directories=_with_directory(known.directories, recordings_directory),
        )
        if known != before:
            _save(state_directory, known)
    return known


def forget(state_directory: str, servers: list[str], directories: list[str]) -> None:
    """These were given up, and nothing is left of them. Raises OSError."""
    if not servers and not directories:
        return
    with _locked(state_directory):
        known = load(state_directory)
        kept = {name: until for name, until in known.servers.items() if name not in servers}
        places = {path: mark for path, mark in known.directories.items() if path not in directories}
        _save(state_directory, known._replace(servers=kept, directories=places))


def _of_this_machine(known: History) -> History:
    """Names are those of one machine: a copy of it is another server. Its folders may have come along."""
    if known.machine == _machine():
        return known
    return History(_machine(), directories=known.directories)


def _with_server(servers: Mapping[str, datetime | None], server: str) -> Mapping[str, datetime | None]:
    if servers.get(server, server) is None:
        return servers
    return {name: until or recording.now() for name, until in servers.items()} | {server: None}


def _with_new_disk(known: History, directory: str) -> History:
    """With the disk that lies there now instead of what was known there. Raises OSError."""
    before = known.directories.get(directory)
    if before is None or known.is_away(directory):
        return known
    spool_directory = spool.directory_in(directory)
    if before == _identity(spool_directory):
        return known
    return known._replace(directories={**known.directories, directory: _identify(spool_directory)})


def _with_directory(directories: Mapping[str, str], directory: str) -> Mapping[str, str]:
    """With this one, and without those that were moved to it: their spool came along."""
    if directory in directories or not os.path.isdir(directory):
        return directories
    identity = _identify(spool.directory_in(directory))
    left = {
        path: mark
        for path, mark in directories.items()
        if mark != identity or os.path.isdir(spool.directory_in(path))
    }
    return {**left, directory: identity}


def _identify(spool_directory: str) -> str:
    """What this spool is known by; it is made for that. Raises OSError."""
    files.make_folder(spool_directory)
    known = _identity(spool_directory)
    if not known:
        known = recording.new_id()
        path = os.path.join(spool_directory, _IDENTITY)
        files.write(path, f"{known}\n")
        files.settle(path)
    return known


def _identity(spool_directory: str) -> str:
    return _read(os.path.join(spool_directory, _IDENTITY)).strip()


def _machine() -> str:
    return _read(_MACHINE_ID).strip()


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment


def _save(state_directory: str, known: History) -> None:
    lines = [f"machine {known.machine}", f"host {known.host}"]
    for name, until in known.servers.items():
        lines.append(f"server {until.isoformat() if until else _IN_USE} {name}")
    lines += (f"recordings {identity} {path}" for path, identity in known.directories.items())
    path = path_in(state_directory)
    files.write(path, _HEAD + "\n".join(lines) + "\n")
    files.settle(path)


def _read(path: str) -> str:
    """Empty when it is no file that can be read. A call reads this."""
    try:
        with files.opened(path) as file:
            return file.read(_READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


@contextlib.contextmanager
def tending(state_directory: str) -> Iterator[bool]:
    """Whether this is the only one now that looks at former spools: their disk may hang for ever."""
    with contextlib.ExitStack() as held:
        ours = True  # told where the history cannot be renewed; or it is a file system without such locks
        with contextlib.suppress(OSError):
            ours = held.enter_context(files.lock(os.path.join(state_directory, _TENDING_LOCK)))
        yield ours


def _locked(state_directory: str) -> contextlib.AbstractContextManager[bool]:
    return files.lock(os.path.join(state_directory, _LOCK), wait=True)
