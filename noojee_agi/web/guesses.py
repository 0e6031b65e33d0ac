"""Wrong keys: after ten in a minute from one address, nobody there is asked for a minute."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable

_MOST = 10
_SECONDS = 60.0
_ADDRESSES = 10_000
_PREFIX = 64  # of IPv6: all of such a network is one guesser's


class Guesses:
    """now: the clock, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # Who guessed last is the last.
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._blocked_until: OrderedDict[str, float] = OrderedDict()

    def seconds_blocked(self, address: str) -> float:
        """How long nobody there is asked, from now on; 0 when somebody is."""
        return max(0.0, self._blocked_until.get(_place(address), 0.0) - self._now())

    def add(self, address: str) -> None:
        """A wrong key, or one that is not known to be right yet."""
        place, now = _place(address), self._now()
        times = self._wrong.pop(place, deque(maxlen=_MOST))
        times.append(now)
        _put(self._wrong, place, times)
        if len(times) == _MOST and now - times[0] < _SECONDS:
            del self._wrong[place]
            _put(self._blocked_until, place, now + _SECONDS)

    def forgive(self, address: str) -> None:
        """One of them was right."""
        place = _place(address)
        self._blocked_until.pop(place, None)
        if times := self._wrong.get(place):
            times.pop()


def _put(places: OrderedDict[str, deque[float]] | OrderedDict[str, float], place: str, value: object) -> None:
    places[place] = value  # type: ignore[assignment]
    places.move_to_end(place)
    if len(places) > _ADDRESSES:
        places.popitem(last=False)


def _place(address: str) -> str:
    """As networks.canonical() writes it."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, _PREFIX), strict=False))
