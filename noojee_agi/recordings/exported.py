"""A folder that copies of recordings go to: nothing in it is replaced, and no link in it is followed."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from io import BufferedReader
from typing import BinaryIO

from noojee_agi.recordings import files

_PIECE = 1 << 20
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # link(2); FAT has none


class Folder:
    """Made when it is not there, its parent never. What is half copied has another name. Raises OSError."""

    def __init__(self, path: str) -> None:
        files.make_folder(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._descriptor)

    def copy(self, source: str, name: str) -> None:
        """Raises FileExistsError when something of that name is there, and OSError."""
        with _regular(source) as audio, self._new(name) as copy:
            shutil.copyfileobj(audio, copy, _PIECE)

    def write(self, name: str, text: str) -> None:
        """Raises FileExistsError when something of that name is there, and OSError."""
        with self._new(name) as file:
            file.write(text.encode("utf-8", "replace"))

    @contextlib.contextmanager
    def _new(self, name: str) -> Iterator[BinaryIO]:
        """A file that has its name only when it is whole, and on the disk."""
        if os.path.basename(name) != name or name.startswith("."):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
        temporary = files.temporary_name(f".{name}")
        with contextlib.ExitStack() as unless_done:
            with open(temporary, "wb", opener=self._open) as file:
                unless_done.callback(self._remove, temporary)
                os.fchmod(file.fileno(), 0o640)
                yield file
                file.flush()
                os.fsync(file.fileno())
            self._name(temporary, name)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_EXCL | os.O_NOFOLLOW, 0o640, dir_fd=self._descriptor)

    def _name(self, temporary: str, name: str) -> None:
        """A link fails where a rename would replace."""
        here = self._descriptor
        try:
            os.link(temporary, name, src_dir_fd=here, dst_dir_fd=here)
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            os.close(self._open(name, os.O_WRONLY | os.O_CREAT))  # from here on the name is ours
            os.rename(temporary, name, src_dir_fd=here, dst_dir_fd=here)

    def _remove(self, temporary: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=self._descriptor)


def _regular(path: str) -> BufferedReader:
    """Raises OSError."""
    file = files.opened(path)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no file", path)
    return file
