"""The stages that are about noojee_agi.conf, our folders, our files and their disks."""

import contextlib
import os
import stat

from noojee_agi.cli.check import cures, folders, stage
from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.errors import DiskSilent, NoojeeError
from noojee_agi.recordings import disk, history, recording

_FSTAB = "/etc/fstab"  # fstab(5)


def configuration(config: Config, owner: str) -> str:
    if not config.path:
        return "no file, every option has its default"
    if folders.closed_part(config.path):
        raise NoojeeError(*folders.closed(config.path))
    if not os.access(config.path, os.R_OK):
        raise NoojeeError(
            f"{config.path} cannot be read by user {stage.user()}", cures.let_read(config.path, owner)
        )
    holds_secret = config.manager_secret or Store(config.database_url).url.password
    if holds_secret and os.stat(config.path).st_mode & stat.S_IROTH:
        raise NoojeeError(
            f"{config.path} holds a password and everybody can read it", cures.let_read(config.path, owner)
        )
    return config.path


def recordings(config: Config, owner: str) -> str:
    try:
        return _recordings(config, owner)
    except DiskSilent as exc:
        point = disk.mount_of(config.recordings_directory)
        again = f"{stage.quoted('umount', '-fl', point)}; {stage.quoted('mount', point)}"
        raise NoojeeError(f"the recordings' disk, mounted at {point}, does not answer", again) from exc


@disk.bounded()
def _recordings(config: Config, owner: str) -> str:
    directory, known = config.recordings_directory, history.load(config.state_directory)
    try:
        said = folders.require(directory, "[recordings] directory", owner)
    except NoojeeError as exc:
        if directory not in known.directories or os.path.isdir(directory):
            raise
        what = str(exc).removesuffix(f": {exc.cure}")
        raise NoojeeError(what, mounted(config) or f"{exc.cure} && {forgotten(config)}") from exc
    is_closed = os.path.lexists(config.spool_directory) and not os.access(config.spool_directory, os.X_OK)
    if not is_closed and known.is_away(directory):
        cure = mounted(config) or forgotten(config)
        raise NoojeeError(f"{directory} is not what it was: its spool is missing, or another", cure)
    file = recording.file_path(config.recordings_directory, "", "", "wav", recording.now())
    day = os.path.dirname(file)
    month = os.path.dirname(day)
    folders.require_days((os.path.dirname(month), month, day), owner)
    return said


def mounted(config: Config) -> str:
    """Mount the recordings' disk, if they have one of their own; else empty."""
    directory = config.recordings_directory
    with contextlib.suppress(OSError), open(_FSTAB, encoding="utf-8", errors="replace") as file:
        for line in file:
            point = [*line.partition("#")[0].split(), "", ""][1]
            if len(point) > 1 and f"{directory}/".startswith(f"{point}/") and not os.path.ismount(point):
                return stage.quoted("mount", point)
    return ""


def forgotten(config: Config) -> str:
    """Forget the spool that was there: it was made anew on purpose, or is gone for good."""
    line = f"\\#^recordings [^ ]* {config.recordings_directory}$#d"
    return stage.quoted("sed", "-i", line, history.path_in(config.state_directory))


def state(config: Config, owner: str) -> str:
    said = folders.require(config.state_directory, "[state] directory", owner)
    names = ("history", "history.lock", "tending.lock")
    paths = [config.log_file, config.snapshot_file]
    paths += [os.path.join(config.state_directory, name) for name in names]
    folders.require_files(paths, owner)
    return said


def free_space(config: Config) -> str:
    percent = _free_percent(config.recordings_directory)
    if percent < config.recordings_min_free_percent:
        point = folders.mount_point(config.recordings_directory)
        raise NoojeeError(
            f"{percent:.1f} % free, and below {config.recordings_min_free_percent:g} % no call is recorded",
            f"free some space on {point}",
        )
    for directory in (config.recordings_directory, config.state_directory, *_of_database(config)):
        if os.path.isdir(directory):
            folders.require_space(directory)
    return f"{percent:.1f} %"


def _free_percent(directory: str) -> float:
    try:
        return disk.free_percent(directory)
    except OSError as exc:
        raise stage.NotSeen(f"{directory} cannot be used ({exc.strerror})") from exc


def _of_database(config: Config) -> list[str]:
    url = Store(config.database_url).url
    return [os.path.dirname(str(url.database))] if url.get_backend_name() == "sqlite" else []
