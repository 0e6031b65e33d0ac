"""When to look at which channel, where no event may tell what is to be seen there."""

from __future__ import annotations

import time

# A start sets the variables by which a recording is known a moment after its MixMonitor has begun.
_SECONDS = (0.3, 1.0, 3.0)
_MOST = 2000  # channels; more than these are forged, and all channels are looked at anyway


class WaitingList:
    """Channels by name."""

    def __init__(self) -> None:
        self._looks: dict[str, list[float]] = {}

    def __bool__(self) -> bool:
        return bool(self._looks)

    def __contains__(self, name: str) -> bool:
        return name in self._looks

    def add(self, name: str) -> None:
        if len(self._looks) < _MOST:
            now = time.monotonic()
            self._looks[name] = [now + seconds for seconds in _SECONDS]

    def due(self) -> set[str]:
        """Those at which it is time to look; each a few times."""
        now = time.monotonic()
        found = {name for name, moments in self._looks.items() if moments[0] <= now}
        for name in found:
            left = [moment for moment in self._looks.pop(name) if moment > now]
            if left:
                self._looks[name] = left
        return found
