"""What the dialplan is told, and our log."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """status: see the README's table. leg_id and file: empty when no recording was tried."""

    status: int
    message: str = "OK"
    leg_id: str = ""
    file: str = ""
