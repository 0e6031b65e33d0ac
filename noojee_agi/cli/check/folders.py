"""Whether Asterisk's user can use a folder and the files in it, and what keeps him from it."""

import os
import stat
from collections.abc import Iterable

from noojee_agi.cli import identity
from noojee_agi.cli.check import cures, stage
from noojee_agi.errors import NoojeeError


def require(path: str, option: str, owner: str) -> str:
    """The folder of that option must be there, ours to write, and closed to others. Raises NoojeeError."""
    about = _about(path, option, owner)
    if not stat.S_ISDIR(about.st_mode):
        moved = stage.quoted("mv", path, f"{path}.old")
        raise NoojeeError(f"{option} = {path} is no folder", f"{moved} && {cures.make_folder(path, owner)}")
    require_changeable(path)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise NoojeeError(
            f"{path} cannot be written by user {stage.user()}", cures.give(path, owner, "0750", is_whole=True)
        )
    if about.st_mode & stat.S_IRWXO:
        raise NoojeeError(
            f"{path} is open to every user of this machine", stage.quoted("chmod", "0750", path)
        )
    hint = " (only right if Asterisk runs as root)" if os.geteuid() == 0 else ""
    return f"{path}, written as user {stage.user()}{hint}"


def _about(path: str, option: str, owner: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError as exc:
        raise NoojeeError(
            f"{option} = {path} is not there", cures.make_folder(os.path.realpath(path), owner)
        ) from exc
    except PermissionError as exc:
        raise NoojeeError(*closed(path)) from exc
    except NotADirectoryError as exc:
        part = next(part for part in _parts(path) if not os.path.isdir(part))
        moved = stage.quoted("mv", part, f"{part}.old")
        raise NoojeeError(
            f"{option} = {path}: {part} is no folder", f"{moved} && {cures.make_folder(path, owner)}"
        ) from exc


def closed(path: str) -> tuple[str, str]:
    """Which folder on the way to path we cannot enter, and the cure."""
    part = closed_part(path) or os.path.dirname(path)
    return f"{part} cannot be entered by user {stage.user()}", stage.quoted("chmod", "a+x", part)


def closed_part(path: str) -> str:
    """The first folder on the way to path that we cannot enter; empty when there is none."""
    return next((part for part in _parts(path) if os.path.isdir(part) and not os.access(part, os.X_OK)), "")


def _parts(path: str) -> list[str]:
    """The folders above it, the highest first, and itself."""
    names = os.path.abspath(path).split("/")[1:]
    return ["/" + "/".join(names[:count]) for count in range(len(names) + 1)]


def require_changeable(path: str) -> None:
    """Raises NoojeeError where its file system takes no writing at all."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        point = mount_point(path)
        raise NoojeeError(
            f"the disk of {path} is mounted read-only", stage.quoted("mount", "-o", "remount,rw", point)
        )


def mount_point(path: str) -> str:
    place = os.path.realpath(path)
    while not os.path.ismount(place):
        place = os.path.dirname(place)
    return place


def require_days(folders: Iterable[str], owner: str) -> None:
    """The folders of year, month and day, where they are there. Raises NoojeeError."""
    for folder in folders:
        if os.path.lexists(folder) and not os.path.isdir(folder):
            raise NoojeeError(
                f"{folder} is no folder, so no call is recorded today",
                stage.quoted("mv", folder, f"{folder}.old"),
            )
        if os.path.lexists(folder) and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise NoojeeError(
                f"{folder} cannot be written by user {stage.user()}, so no call is recorded today",
                cures.give(folder, owner, "0750", is_whole=True),
            )


def require_files(paths: Iterable[str], owner: str) -> None:
    """Those of these files of ours that are there must be files, and ours to change. Raises NoojeeError."""
    for path in paths:
        if not os.path.lexists(path):
            continue
        if os.path.islink(path) or os.path.isdir(path):
            is_link = os.path.islink(path)
            raise NoojeeError(
                f"{path} is a {'link' if is_link else 'folder'}, and must be a file of user {owner}",
                stage.quoted("rm", path) if is_link else stage.quoted("mv", path, f"{path}.old"),
            )
        if not os.access(path, os.R_OK | os.W_OK):
            holder = identity.user_name(os.lstat(path).st_uid)
            raise NoojeeError(
                f"{path} belongs to user {holder}, and user {stage.user()} cannot write it",
                cures.give(path, owner, "0640"),
            )


def require_space(path: str) -> None:
    """Raises NoojeeError when nothing more fits on its disk."""
    about = os.statvfs(path)
    point = mount_point(path)
    if about.f_blocks and 100 * about.f_bavail / about.f_blocks < _FULL_PERCENT:
        raise NoojeeError(f"the disk of {path} is full", f"free some space on {point}")
    if about.f_files and not about.f_favail:
        raise NoojeeError(f"the disk of {path} takes no more files (inodes)", f"remove files from {point}")


_FULL_PERCENT = 0.1
