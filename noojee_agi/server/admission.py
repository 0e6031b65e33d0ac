"""Connections that have shown no apiKey yet: how many there may be, and who goes when there are more."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from noojee_agi.server.complaints import Complaints

KEY_SECONDS = 5.0  # for environment and key, however the bytes are spread: a busy Asterisk is slow
KEY_BYTES = 65536
_MOST = 2000
_REFUSAL_SECONDS = 0.01


class Unadmitted(Protocol):
    """A session, or a connection that has none yet."""

    def give_up(self) -> None: ...


class Admission:
    """When there are too many, the oldest of the address that has most go: a right call is young."""

    def __init__(self, complaints: Complaints, most: int = _MOST) -> None:
        self._complaints = complaints
        self._most = most
        self._address_of: dict[Unadmitted, str] = {}  # the oldest first
        self._of_address: Counter[str] = Counter()

    def add(self, session: Unadmitted, address: str) -> None:
        if len(self._address_of) >= self._most:
            self._complaints.add("%d connections show no apiKey yet: the oldest were sent away", self._most)
            self.send_one_away()
        self._address_of[session] = address
        self._of_address[address] += 1

    def remove(self, session: Unadmitted) -> None:
        """It is known now, or gone."""
        address = self._address_of.pop(session, None)
        if address is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def send_one_away(self) -> bool:
        """The oldest of the address that has most. Whether there was one."""
        if not self._address_of:
            return False
        most = max(self._of_address, key=self._of_address.__getitem__)
        oldest = next(session for session, address in self._address_of.items() if address == most)
        self.remove(oldest)
        oldest.give_up()
        return True


class Refusals:
    """One after the other, with a pause: who shows wrong keys as fast as he can must not have all of a loop.

    pause: as of Sessions.
    """

    def __init__(self, pause: Callable[[float], None]) -> None:
        self._pause = pause
        self._next_at = 0.0

    def wait(self) -> bool:
        """False when there are so many that it would take too long."""
        now = time.monotonic()
        turn_at = max(now, self._next_at)
        if turn_at - now > KEY_SECONDS:
            return False
        self._next_at = turn_at + _REFUSAL_SECONDS
        if turn_at > now:
            self._pause(turn_at - now)
        return True
