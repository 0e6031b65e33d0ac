"""What the user of the manager interface may do, tried at a channel that is not there."""

from __future__ import annotations

import contextlib
import os

from noojee_agi.asterisk import variables
from noojee_agi.asterisk.manager import Manager
from noojee_agi.errors import NoSuchCall


def require_to_record(manager: Manager) -> None:
    """Start a MixMonitor. Raises ManagerUnavailable."""
    with contextlib.suppress(NoSuchCall):
        manager.act("MixMonitor", {"Channel": os.urandom(8).hex(), "File": "/dev/null"})


def require_all(manager: Manager) -> None:
    """All that is needed. Raises ManagerUnavailable."""
    require_to_record(manager)
    channel = {"Channel": os.urandom(8).hex()}
    for action, fields in (
        ("StopMixMonitor", {}),
        ("Setvar", {"Variable": variables.LEG}),
        ("Getvar", {"Variable": variables.LEG}),
    ):
        with contextlib.suppress(NoSuchCall):
            manager.act(action, {**channel, **fields})
