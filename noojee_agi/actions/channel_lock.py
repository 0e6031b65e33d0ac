"""One start or stop at a time for each conversation, among all programs and servers of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator

# Longer than what is done under it, unless Asterisk does not answer or create the file. Whoever has waited
# so long goes on: two recordings are better than none, and than a caller who is kept waiting.
WAIT_SECONDS = 2.0
# No caller waits for a request from elsewhere, of which many may come at once: what goes on without its turn
# may leave a recording behind that nobody knows.
PATIENT_SECONDS = 10.0
_FILE = "turns.lock"
_FLOCK = struct.Struct("hhqqi")  # fcntl(2), struct flock


@contextlib.contextmanager
def of(
    state_directory: str, linkedid: str, pause: Callable[[float], None], is_patient: bool = False
) -> Iterator[bool]:
    """Hold the lock of a conversation, whose channels have one linkedid. pause: waits so many seconds.

    is_patient: whether no caller waits meanwhile.

    It ends with its holder, however that ends (fcntl(2), F_OFD_SETLK).

    Where it cannot be had, such as in a state directory that cannot be written, false is yielded: the work is
    done without.
    """
    descriptor, is_held = -1, False
    with contextlib.suppress(OSError):
        path = os.path.join(state_directory, _FILE)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        seconds = PATIENT_SECONDS if is_patient else WAIT_SECONDS
        is_held = _take(descriptor, zlib.crc32(linkedid.encode("utf-8", "replace")), pause, seconds)
    try:
        yield is_held
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _take(descriptor: int, place: int, pause: Callable[[float], None], patience: float) -> bool:
    """Lock the byte at this place of the file, which need not be so long; false when others have it.

    Raises OSError.
    """
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    deadline = time.monotonic() + patience
    seconds = 0.001
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        pause(seconds)
        seconds = min(seconds * 2, 0.02)
