"""Where lies what is deleted soon: in memory, if there is enough of it.

On a disk a new file may cost a millisecond (see bench.places), and a new PostgreSQL database has hundreds.
"""

from __future__ import annotations

import os
from pathlib import Path

_MEMORY, _DISK = Path("/dev/shm"), Path("/tmp")
_NEEDED = 4 << 30


def folder() -> Path:
    """As /tmp: everybody may make folders there, and run what lies in them."""
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return _DISK
    is_enough = found.f_bavail * found.f_frsize > _NEEDED
    return _MEMORY if is_enough and os.access(_MEMORY, os.W_OK) and not found.f_flag & os.ST_NOEXEC else _DISK
