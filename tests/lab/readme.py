"""The commands that the READMEs show, as it shows them, so that a test can carry them out."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
AGI = README.parent / "agi/README.md"
_BLOCK = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(section: str, file: Path = README) -> list[str]:
    """What stands between ``` in the section of that title, in its order."""
    return _BLOCK.findall(_section(section, file))


def commands(section: str, file: Path = README) -> list[str]:
    """What stands as `code` in its sentences."""
    return re.findall(r"`([^`\n]+)`", _BLOCK.sub("", _section(section, file)))


def _section(title: str, file: Path) -> str:
    whole = rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)"
    found = re.search(whole, file.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{file} has no section {title}"
    return found[1]
