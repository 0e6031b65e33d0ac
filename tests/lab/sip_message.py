"""What a SIP telephone of ours receives: a request or an answer."""

from __future__ import annotations

import re


class Message:
    """A request or an answer (status)."""

    def __init__(self, text: str) -> None:
        self._head, _, self.body = text.partition("\r\n\r\n")
        first, *_ = self._head.split("\r\n")
        words = first.split()
        self.status = int(words[1]) if words[0].startswith("SIP/") else 0
        self.method = words[0]

    def headers(self, name: str) -> list[str]:
        return re.findall(
            rf"^{name}\s*:\s*(.*?)\s*$", self._head.replace("\r", ""), re.MULTILINE | re.IGNORECASE
        )

    def header(self, name: str) -> str:
        return next(iter(self.headers(name)), "")

    @property
    def contact(self) -> str:
        found = re.search(r"<([^>]+)>", self.header("Contact"))
        return found[1] if found else ""
