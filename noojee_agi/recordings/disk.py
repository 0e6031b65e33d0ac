"""The recordings' disk may hang (NFS, FUSE): no caller waits for it without a limit.

Each thread has a second one for the disk, which can be left behind in a system call. While one hangs, the
next callers are refused at once; it tells by its return that the disk answers again. The process's end ends
it too, where the kernel lets it: NFS and FUSE do (TASK_KILLABLE), a frozen or dying local disk does not.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from noojee_agi.errors import DiskSilent

P = ParamSpec("P")
T = TypeVar("T")

LIMIT_SECONDS = 2.0
_TRY_AGAIN_SECONDS = 5.0  # the first time: then twice as long each time, up to
_TRY_AGAIN_AT_MOST_SECONDS = 300.0
_LOCAL_TYPES = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay")
_MESSAGE = (
    "the recordings' disk does not answer: nothing is recorded until it does; look at the mount of"
    " [recordings] directory"
)

_own = _thread._local()


class _Hangs:
    """What this process knows of the disk: whether threads are left behind there."""

    def __init__(self) -> None:
        self.are_known = False
        self._try_at = 0.0
        self._pause = _TRY_AGAIN_SECONDS

    def may_begin(self) -> bool:
        """Once in a while one tries, since a new mount does not free those who hang in the old one."""
        now = time.monotonic()
        if self.are_known and now < self._try_at:
            return False
        self._try_at = now + self._pause
        return True

    def add(self) -> None:
        if self.are_known:
            self._pause = min(2 * self._pause, _TRY_AGAIN_AT_MOST_SECONDS)
        self.are_known = True
        self._try_at = time.monotonic() + self._pause

    def answers(self) -> None:
        if self.are_known:
            self.are_known = False
            self._pause = _TRY_AGAIN_SECONDS


_hangs = _Hangs()


class _Outcome:
    """What the block has raised, whatever it is: the one who waits for the block raises it, in its thread."""

    failure: BaseException | None = None

    def __enter__(self) -> None:
        self.failure = None

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> bool:
        self.failure = failure
        return True


class _Second:
    """The second thread of a thread: does one piece of work after the other."""

    def __init__(self) -> None:
        self.is_ready = True
        self._work: Callable[[], object] = bool
        self._if_late: Callable[[], object] = bool
        self._begin, self._end = _thread.allocate_lock(), _thread.allocate_lock()
        for lock in (self._begin, self._end):
            lock.acquire()
        self._claim = _thread.allocate_lock()
        self._result: object = None
        self._outcome = _Outcome()
        _thread.start_new_thread(self._run, ())

    def do(self, work: Callable[[], object], if_late: Callable[[], object]) -> object:
        """Raises DiskSilent, and then this one is lost; or what work raises."""
        self._work, self._if_late = work, if_late
        self._claim = _thread.allocate_lock()  # of who takes it first: we give up, or the work ends in time
        self._begin.release()
        if not self._end.acquire(timeout=LIMIT_SECONDS):
            if self._claim.acquire(blocking=False):
                self.is_ready = False
                _hangs.add()
                raise DiskSilent(_MESSAGE)
            self._end.acquire()
        _hangs.answers()
        if self._outcome.failure:
            raise self._outcome.failure
        return self._result

    def _run(self) -> None:
        _own.is_second = True
        while self._does_in_time():
            pass
        _hangs.answers()
        if not self._outcome.failure:
            with self._outcome:
                self._if_late()

    def _does_in_time(self) -> bool:
        self._begin.acquire()
        with self._outcome:
            self._result = self._work()
        is_in_time = self._claim.acquire(blocking=False)
        self._end.release()
        return is_in_time


class _Process:
    """How this process waits for the disk, and whether it has to."""

    in_thread: Callable[[Callable[[], object]], object] = staticmethod(lambda work: work())
    is_local = False


def use_thread(in_thread: Callable[[Callable[[], object]], object]) -> None:
    """In this process, a caller who waits for the disk does so in a thread that in_thread has for it."""
    _Process.in_thread = staticmethod(in_thread)


def look_whether_local(directory: str) -> None:
    """In this process, work in directory has no limit while that lies on a disk of the machine itself.

    For a server with many calls at once: there the change of threads is a quarter of what a call costs. To be
    called once in a while, since a mount may come late; to look is work on the disk, too.
    """
    is_local = False
    with contextlib.suppress(DiskSilent, OSError):
        is_local = bool(_Process.in_thread(lambda: _within(partial(_is_local, directory), bool)))
    _Process.is_local = is_local


def _is_local(directory: str) -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        return type_of(os.path.realpath(directory), file) in _LOCAL_TYPES


def type_of(path: str, mounts: Iterable[str]) -> str:
    """The type of the file system that path is in, by the lines of proc(5)'s mountinfo; empty: not known."""
    found, length = "", 0
    for line in mounts:
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].rstrip("/")
        if f"{path}/".startswith(f"{point}/") and len(point) >= length:  # the last one lies above the others
            found, length = after.split(" ")[0], len(point)
    return found


def mount_of(path: str) -> str:
    """The mount point below which path lies, without a look there. Raises OSError."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        points = [line.split(" ")[4] for line in file]
    fitting = [point for point in points if f"{path}/".startswith(f"{point.rstrip('/')}/")]
    return max(fitting, key=len, default="/")


def does_not_answer() -> bool:
    """Whether work has been left behind, and nobody has been answered since."""
    return _hangs.are_known


def free_percent(directory: str) -> float:
    """Of its disk, for us. Raises OSError."""
    about = os.statvfs(directory)
    return 100 * about.f_bavail / max(about.f_blocks, 1)


def _within(work: Callable[[], object], if_late: Callable[[], object]) -> object:
    if not _hangs.may_begin():
        raise DiskSilent(_MESSAGE)
    second = getattr(_own, "second", None)
    if not second or not second.is_ready:
        _own.second = second = _Second()
    return second.do(work, if_late)


def bounded(if_late: Callable[..., object] | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """For a function that works on the recordings' disk: then it raises DiskSilent when it takes longer.

    if_late: called with the same arguments when it has come to its end after that.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def within_limit(*args: P.args, **kwargs: P.kwargs) -> T:
            if getattr(_own, "is_second", False) or _Process.is_local:
                return function(*args, **kwargs)
            work = partial(function, *args, **kwargs)
            late = partial(if_late, *args, **kwargs) if if_late else bool
            return _Process.in_thread(lambda: _within(work, late))  # type: ignore[return-value]

        return within_limit

    return decorate


@bounded()
def exists(path: str) -> bool:
    """Whether there is such a file. Raises DiskSilent."""
    return os.path.exists(path)
