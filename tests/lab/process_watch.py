"""Whether a secret is to be seen by everybody, as ps shows it."""

from __future__ import annotations

import threading

from lab import processes


class ProcessWatch:
    """Looks for a secret in the arguments and environment of every process, all the time."""

    def __init__(self, secret: bytes) -> None:
        self.found: set[bytes] = set()
        self.looks = 0
        self._secret = secret
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.005):
            self.looks += 1
            for name in ("cmdline", "environ"):
                self.found.update(text for _, text in processes.told(name) if self._secret in text)
