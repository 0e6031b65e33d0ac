"""Files that are there whole or not at all, the folders that they lie in, and those that are locks."""

import contextlib
import fcntl
import io
import os
from collections.abc import Iterator

HALF_WRITTEN, BEING_PURGED = ".tmp", ".purging"


def write(path: str, content: str | bytes, is_settled: bool = False) -> None:
    """Put content at path in one step, readable by owner and group; a crash leaves the old file or the new.

    is_settled: so does a power cut. Nothing that stands at a name of ours is followed, and nobody knows the
    temporary one beforehand. Raises OSError.
    """
    temporary = temporary_name(path)
    try:
        with open(create(temporary), "wb", buffering=0) as file:
            rest = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
            while rest:
                rest = rest[file.write(rest) :]
            if is_settled:
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def temporary_name(path: str) -> str:
    """A name beside path that cannot be foreseen."""
    return f"{path}.{os.urandom(8).hex()}{HALF_WRITTEN}"


def create(path: str) -> int:
    """The descriptor of a new file, 0640, to write in. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o640)


def opened(path: str) -> io.BufferedReader:
    """To read it; nobody's link is followed and nobody's pipe waited for. Raises OSError."""
    return open(path, "rb", opener=_open)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def make_folder(path: str) -> None:
    """Make this one folder, 0750, unless it is there; its parent must be, or a lost mount would be filled.

    Raises OSError.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o750)


def settle(path: str) -> None:
    """Force file and folder to the disk, so that they outlive a power cut. Raises OSError."""
    for item in (path, os.path.dirname(path)):
        force(item)


def force(path: str) -> None:
    """Force this one file or folder to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def lock(path: str, wait: bool = False) -> Iterator[bool]:
    """Whether this process holds the lock now; it dies with its holder (flock). Raises OSError.

    With wait it is true as soon as the present holder is done.
    """
    descriptor = take_lock(path, wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def take_lock(path: str, wait: bool = False) -> int | None:
    """The lock's descriptor, which holds it until it is closed; None when another has it. Raises OSError.

    A file, not its folder: NFS locks only what is open for writing (flock(2)).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as exc:
        os.close(descriptor)
        if isinstance(exc, BlockingIOError):
            return None
        raise
    return descriptor
