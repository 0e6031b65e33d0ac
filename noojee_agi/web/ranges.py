"""A request's Range (RFC 9110, 14): one range of bytes; of what is anything else the whole is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping

from noojee_agi.web.answers import Refused

_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})", re.IGNORECASE)


def of(headers: Mapping[str, str], size: int, etag: str) -> range | None:
    """Which bytes of so many are wanted; None: all. Raises Refused when there are none of these.

    With If-Range only of the version that it names (13.1.5).
    """
    found = _RANGE.fullmatch(headers.get("range", "").strip())
    if not found or found.group(1) == found.group(2) == "" or headers.get("if-range", etag) != etag:
        return None
    first, last = found.groups()
    begin = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < int(first):
        return None  # invalid (14.1.1)
    if begin >= end:
        raise Refused(
            416, f"the file has {size} bytes, and none in this range", {"Content-Range": f"bytes */{size}"}
        )
    return range(begin, end)
