"""What a stage of `noojee-agi check` comes to: ok, failed with its one cure, or not seen and why."""

import os
import shlex
from collections.abc import Callable
from typing import NamedTuple

from noojee_agi.cli import identity
from noojee_agi.errors import NoojeeError

OK, FAILED, NOT_SEEN = "ok", "failed", "not seen"


class Stage(NamedTuple):
    """cure: one command, or one line to change; text has it, too."""

    name: str
    state: str
    text: str
    cure: str = ""

    @property
    def has_failed(self) -> bool:
        return self.state == FAILED


class NotSeen(NoojeeError):
    """Nothing can be said of this, and why."""


def look(name: str, work: Callable[[], str]) -> Stage:
    """The stage of that name: what work says, or raises."""
    try:
        return Stage(name, OK, work())
    except NotSeen as exc:
        return Stage(name, NOT_SEEN, str(exc), exc.cure)
    except NoojeeError as exc:
        return Stage(name, FAILED, str(exc), exc.cure)
    except OSError as exc:
        return Stage(name, FAILED, f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc))


def look_behind(before: Stage | None, name: str, work: Callable[[], str]) -> Stage:
    """The same; nothing is seen where a stage has failed on which this one stands."""
    if before and before.state != OK:
        return Stage(name, NOT_SEEN, f"see the stage {before.name}")
    return look(name, work)


def user() -> str:
    """The name of the user as whom we look."""
    return identity.user_name(os.geteuid())


def quoted(*words: str) -> str:
    """These words as a shell takes them."""
    return shlex.join(words)
