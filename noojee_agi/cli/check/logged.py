"""What our log has said lately."""

import os

from noojee_agi.cli.check import stage

_BYTES = 1 << 20  # some thousand calls


def end_of(path: str) -> str:
    """The last of it. Raises NotSeen."""
    try:
        with open(path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _BYTES, 0))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise stage.NotSeen(f"{path}: {exc.strerror}") from exc
