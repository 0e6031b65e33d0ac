"""What goes wrong with many connections at once: in the log at once, then once a minute with its number."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

_EVERY_SECONDS = 60.0


@dataclass
class _Complaint:
    """values: of the last one; again_at: by time.monotonic()."""

    again_at: float
    values: tuple[object, ...] = ()
    untold: int = 0


class Complaints:
    """A guesser must not fill the log, and nobody is left out of its numbers."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._of: dict[str, _Complaint] = {}

    def add(self, text: str, *values: object) -> None:
        now = time.monotonic()
        known = self._of.get(text)
        if known and (known.untold or now < known.again_at):
            known.untold, known.values = known.untold + 1, values
            return
        self._of[text] = _Complaint(now + _EVERY_SECONDS)
        self._logger.error(text, *values)

    def tell(self, is_last: bool = False) -> None:
        """Those whose minute is over, or all; the text names the last of them."""
        now = time.monotonic()
        for text, known in self._of.items():
            if known.untold and (is_last or now >= known.again_at):
                self._logger.error(
                    f"{text} (%d connections since the last such line)", *known.values, known.untold
                )
                known.untold, known.again_at = 0, now + _EVERY_SECONDS
