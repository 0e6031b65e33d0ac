"""The manager interface's events of channels that begin or cease to talk, as they come.

They are a hint and no more: Asterisk prints names as they are, and chan_pjsip decodes %0d%0a in a caller's
number, so anybody may write events of his own. Who acts on one asks first, see `other_calls`.
"""

from __future__ import annotations

from collections.abc import Sequence

from noojee_agi.asterisk.manager import Manager
from noojee_agi.asterisk.message import Message
from noojee_agi.config import Config

BRIDGE_ENTER, BRIDGE_LEAVE = "BridgeEnter", "BridgeLeave"
MIXMONITOR_START, MIXMONITOR_STOP = "MixMonitorStart", "MixMonitorStop"
_WANTED = "|".join((BRIDGE_ENTER, BRIDGE_LEAVE, MIXMONITOR_START, MIXMONITOR_STOP))


class Listener:
    """A connection that hears of them from now on. Raises ManagerUnavailable. has_heard: of any, until now.

    It needs `read = call` in manager.conf, and `write = system` for the filter (manager.c action_filter):
    without it Asterisk would send some forty events for each call.
    """

    def __init__(self, config: Config) -> None:
        self.has_heard = False
        self._manager = Manager(config)
        self._manager.act("Filter", {"Operation": "Add", "Filter": f"Event: ({_WANTED})"})
        self._manager.act("Events", {"EventMask": "call"})

    def fileno(self) -> int:
        return self._manager.fileno()

    def read(self) -> Sequence[Message]:
        """What has come, without waiting. Raises ManagerUnavailable when the connection is lost."""
        arrived = self._manager.arrived()
        self.has_heard |= bool(arrived)
        return arrived

    def close(self) -> None:
        self._manager.close()
