"""AGI programs that wait for the server's word for as long as a busy machine may take for it."""

from __future__ import annotations

from pathlib import Path

_LINES = "from noojee_agi.session import handoff\n\nhandoff.PATIENCE_SECONDS = 20.0\n"


def environment(folder: Path) -> dict[str, str]:
    """For a program that must not go the plain way. folder: where Python finds what it begins with."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_LINES)
    return {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
