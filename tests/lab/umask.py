"""What of our process's own umask other code changes, undone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_umask() -> Iterator[None]:
    """Undo what the block does to the umask; `noojee-agi` sets it, also when it runs in this process."""
    umask = os.umask(0)
    os.umask(umask)
    try:
        yield
    finally:
        os.umask(umask)
