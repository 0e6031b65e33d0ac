"""Who root is: before a command touches anything, the first other user who could lead it elsewhere.

What root alone can change is safe to follow. The first part of a path that belongs to another user decides:
all that lies below is in his hands, so a command that acts as him gains him nothing. What is root's, but open
to a group or to all, is refused: nobody knows in whose hands that is.
"""

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Iterator
from typing import NamedTuple

from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError
from noojee_agi.sync import rebuild

_MOST_LINKS = 40  # of one path, as the kernel has it (path_resolution(7))
# Of a user who has no name here nobody knows the group, and that of his folder may never have been his.
_NO_GROUP = 65534
_NOT_THERE = (FileNotFoundError, NotADirectoryError)


class Part(NamedTuple):
    """A part of a path that belongs to another user than root, as it was seen."""

    path: str
    uid: int


def begin(configuration: str) -> Config:
    """Read the configuration; root becomes, for good, who can change its file or else the recordings' folder.

    Raises ConfigurationError and OSError.
    """
    if os.geteuid() != 0:
        return Config.load(configuration)
    part = act_for_first([configuration] if configuration else [])
    config = Config.load_file(configuration)
    if not part:
        part = act_for_first([config.recordings_directory])
    _require_usable(config.recordings_directory, part)
    if not part:
        require_roots(config)
    return config.with_name()  # only now: the way to the history may be another user's


def load(configuration: str) -> Config:
    """Read the configuration anew, as who we are by now. Raises ConfigurationError."""
    try:
        if os.geteuid() == 0 and configuration:
            _require_root(configuration)
        config = Config.load_file(configuration)
        if os.geteuid() == 0:
            require_roots(config)
        return config.with_name()
    except OSError as exc:  # it may be away for a moment
        raise ConfigurationError(f"{exc.filename}: {exc.strerror}") from exc


def act_for(folder: str) -> None:
    """Root becomes, for good, who can change where the folder is. Raises ConfigurationError and OSError."""
    part = first_of_another(folder) if os.geteuid() == 0 else None
    if part:
        _become(part.uid)
        _require_writable(folder, part)


def act_for_namer(path: str, file: str) -> None:
    """Root becomes, for good, who can change the file that names path; he may name his own only.

    He is who was seen here: in a sticky folder he may put something of root's in path's place afterwards.
    Raises as act_for does.
    """
    namer = first_of_another(file) if os.geteuid() == 0 else None
    owner = first_of_another(path) if namer else None
    if namer and (owner is None or owner.uid != namer.uid):
        raise ConfigurationError(
            f"{file} names {path}, and user {user_name(namer.uid)} can change that: name the folder yourself"
        )
    if owner:
        _become(owner.uid)
        _require_writable(path, owner)


def first_of_another(path: str) -> Part | None:
    """The first part of the way to path that is another user's than root's; None when there is none.

    While all that was passed is root's alone, nobody else can change what was seen: no look is a race. Raises
    ConfigurationError for a part of root's that others can change, and OSError.
    """
    place, links = "/", 0
    names = _names(path if os.path.isabs(path) else os.path.join(os.getcwd(), path))
    if uid := os.lstat(place).st_uid:
        return Part(place, uid)
    while names:
        name = names.pop()
        if name == "..":
            place = os.path.dirname(place)
            continue
        here = os.path.join(place, name)
        status = os.lstat(here)
        if status.st_uid != 0:
            return Part(here, status.st_uid)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)
            place = "/" if target.startswith("/") else place
            names += _names(target)
        else:
            _require_closed(here, status.st_mode, is_sticky_enough=True)
            place = here
    _require_closed(place, os.lstat(place).st_mode, is_sticky_enough=False)
    return None


def _names(path: str) -> list[str]:
    """The last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _require_closed(path: str, mode: int, is_sticky_enough: bool) -> None:
    """In a sticky folder others change nothing that is not theirs, but they may add to it (unlink(2))."""
    is_open = mode & (stat.S_IWGRP | stat.S_IWOTH)
    if is_open and not (is_sticky_enough and mode & stat.S_ISVTX and stat.S_ISDIR(mode)):
        raise ConfigurationError(
            f"{path} belongs to root, but others can write there, and could lead root elsewhere:"
            f" chmod g-w,o-w {path}, or give it to Asterisk's user"
        )


def act_for_first(paths: list[str]) -> Part | None:
    """Act for the first of them that is there; the part that decided, None when we stay root."""
    for path in paths:
        with contextlib.suppress(*_NOT_THERE):
            part = first_of_another(path)
            if part:
                _become(part.uid)
            return part
    return None


def _become(uid: int) -> None:
    """Raises ConfigurationError, and OSError, when root's rights cannot be given up."""
    try:
        account = pwd.getpwuid(uid)
        group = account.pw_gid
        os.initgroups(account.pw_name, group)
    except KeyError:
        group = _NO_GROUP
        os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(uid, uid, uid)
    with contextlib.suppress(PermissionError):
        os.seteuid(0)
    if {*os.getresuid(), uid} != {uid} or {*os.getresgid(), group} != {group}:
        raise ConfigurationError(f"root's rights cannot be given up: run this as user {user_name(uid)}")


def require_roots(config: Config) -> None:
    """Root that stays root, since the recordings are its own, works on nothing that another can change."""
    for path in _worked_on(config):
        with contextlib.suppress(*_NOT_THERE):
            _require_root(path)


def _require_root(path: str) -> None:
    part = first_of_another(path)
    if part:
        raise ConfigurationError(
            f"the recordings are root's, but user {user_name(part.uid)} can change {part.path}, where root"
            " does not work: give the recordings to Asterisk's user,"
            f" or {part.path} to root if Asterisk is root's"
        )


def _worked_on(config: Config) -> Iterator[str]:
    """Every folder in which a command makes files or changes them."""
    yield config.recordings_directory
    tops = {os.path.realpath(config.recordings_directory)}
    for folder, folders, _ in os.walk(config.recordings_directory, followlinks=True):  # as rebuild does
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in folders)  # also links to where we come anyway
        folders[:] = [name for name in folders if rebuild.is_followed(os.path.join(folder, name), tops)]
    yield from (folder for folder, _, _ in os.walk(config.spool_directory))
    yield config.state_directory
    yield os.path.dirname(config.socket_path)
    yield from _of_database(config)


def _of_database(config: Config) -> Iterator[str]:
    """SQLite's folder."""
    kind, _, file = config.database_url.partition(":///")
    if kind.startswith("sqlite"):
        yield os.path.dirname(file.partition("?")[0])


def _require_usable(directory: str, part: Part | None) -> None:
    """part: what has decided who we are, if we are root no more."""
    try:
        os.stat(directory)
    except OSError as exc:
        raise ConfigurationError(
            f"[recordings] directory = {directory}: {exc.strerror}:"
            f" install -d -o asterisk -g asterisk -m 0750 {directory}"
        ) from exc
    if part:
        _require_writable(directory, part)


def _require_writable(directory: str, part: Part) -> None:
    user = user_name(os.geteuid())
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"{part.path} is user {user}'s, so root acts as that user, who cannot write in {directory}:"
            f" chown {user}: {directory}, or give {part.path} to root if Asterisk runs as another user"
        )


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
