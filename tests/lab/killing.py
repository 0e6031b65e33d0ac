"""Has programs of ours killed while real calls use them: by the clock, or at a certain line."""

from __future__ import annotations

import sys
from pathlib import Path

STAND_IN = Path(__file__).with_name("killed_program.py")


class Killer:
    """`stand_in` is started in the program's place; when no kill is planned it just becomes the program."""

    def __init__(self, stand_in: Path, program: Path) -> None:
        self._plan = stand_in.with_name(f"{stand_in.name}.plan")
        self._number = 0
        for name in ("waiting", "taken", "met"):
            (self._plan / name).mkdir(parents=True)
        (self._plan / "program").symlink_to(program)
        stand_in.write_text(STAND_IN.read_text().replace("#!python", f"#!{sys.executable}", 1))
        stand_in.chmod(0o755)

    def plan(self, kind: str, what: str = "") -> None:
        """One more start is killed, or watched; lab/killed_program.py has the words."""
        self._number += 1
        (self._plan / "waiting" / f"{self._number:04d}-{kind}").write_text(what)

    def is_done(self) -> bool:
        """Whether every planned kill has had its start."""
        return not any((self._plan / "waiting").iterdir())

    def met(self, kind: str) -> list[str]:
        """What the kills of this kind have met, the latest last; those that came too late are not there."""
        texts = [path.read_text().strip() for path in sorted((self._plan / "met").glob(f"*-{kind}"))]
        return [text for text in texts if text]
