"""Other live calls, through the manager interface: which there are, and what an action does with one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from noojee_agi import text
from noojee_agi.asterisk import live, live_channel, rights, target, variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.live_channel import LiveChannel
from noojee_agi.asterisk.manager import Manager
from noojee_agi.asterisk.message import Message
from noojee_agi.asterisk.peers import NOBODY, Peer
from noojee_agi.asterisk.target import CommandLine, Marked, Running, Target
from noojee_agi.errors import ManagerUnavailable, NoSuchCall
from noojee_agi.recordings import recording


class OtherChannel:
    """Another channel of the same Asterisk, with the methods that `channel.Channel` has for our own.

    Each raises NoSuchCall once that channel is gone, and ManagerUnavailable. origin: the call's first one.
    """

    def __init__(
        self, manager: Manager, meant: LiveChannel, origin: LiveChannel, asker: Channel | CommandLine
    ) -> None:
        self._manager = manager
        self.host = asker.host
        self.sees_file = asker.sees_file
        self.name = meant.name
        self.uniqueid = meant.uniqueid
        self.extension = origin.extension
        self.did = origin.did
        self.caller = origin.caller

    def set(self, name: str, value: str) -> None:
        self._manager.set(self.name, name, value)

    def set_all(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self.set(name, value)

    def mixmonitor(self, file: str, options: str, end_command: str) -> None:
        """Start MixMonitor there; the answer is the same whether it records or not."""
        fields = {"Channel": self.name, "File": file, "Options": options}
        if end_command:
            fields["Command"] = end_command
        self._manager.act("MixMonitor", fields, is_repeatable=False)

    def require_start(self, file: str) -> None:
        """Raises what a start would, as far as that can be known before; file: where it would record."""
        rights.require_to_record(self._manager)
        if self.host:
            self.sees_file(file)

    def stop_mixmonitor(self, mixmonitor_id: str) -> None:
        """End this one MixMonitor, unless it has ended already."""
        self._manager.act("StopMixMonitor", {"Channel": self.name, "MixMonitorID": mixmonitor_id})

    def mixmonitor_id(self) -> str:
        return recording.mixmonitor_id(self._manager.get(self.name, variables.MIXMONITOR_ID))

    def mixmonitor_file(self, mixmonitor_id: str) -> str:
        return self._manager.get(self.name, variables.mixmonitor_file(mixmonitor_id))

    def packets(self, names: Sequence[str]) -> list[int]:
        """How many each of these channels has received from its telephone; -1 where that is not known."""
        said = [self._manager.get(name, variables.PACKETS) for name in names]
        return [int(count) if count.isdecimal() else -1 for count in said]


def find(
    manager: Manager, asked: str, asker: Channel | CommandLine, prefers_recorded: bool = False
) -> Target:
    """Another live call than the asking one; prefers_recorded: see live.Switchboard.

    Raises NoSuchCall and ManagerUnavailable.
    """
    if not manager.is_configured:
        kind = NoSuchCall if asker.uniqueid else ManagerUnavailable
        raise kind(
            f"the live call {text.plain(asked)} cannot be looked for:"
            " set [manager] username in noojee_agi.conf"
        )
    listed = channels(manager)
    if asker.uniqueid and asker.uniqueid not in {channel.uniqueid for channel in listed}:
        raise ManagerUnavailable(
            "[manager] leads to another Asterisk than this call's, which does not know it: see host and port"
        )
    return target_of(manager, listed, asked, asker, prefers_recorded)


def target_of(
    manager: Manager,
    listed: Sequence[LiveChannel],
    asked: str,
    asker: Channel | CommandLine,
    prefers_recorded: bool = False,
) -> Target:
    """The same among channels that have been asked for already. Raises NoSuchCall."""
    board = live.Switchboard(listed)
    found = board.find(asked, prefers_recorded)
    meant = found.channel
    marked = [each for each in board.marked(meant) if each.mark]
    recorded = {each.name: each for each in found.recorded}
    for each in board.recorded_in({each.mark.leg_id for each in marked if each.mark}):
        recorded.setdefault(each.name, each)
    origin = next((channel for channel in listed if channel.uniqueid == meant.linkedid), meant)
    remark = f"there are {found.others + 1} live calls: name a uniqueid for another"
    return Target(
        OtherChannel(manager, meant, origin, asker),
        meant.values,
        found.extension,
        found.extensions,
        tuple(
            Running(OtherChannel(manager, end, origin, asker), end.mixmonitor_id, end.values[variables.LEG])
            for end in recorded.values()
        ),
        Peer(found.peer.name, found.peer.uniqueid) if found.peer else NOBODY,
        (remark,) if found.others else (),
        marked=tuple(
            Marked(OtherChannel(manager, each, origin, asker), each.mark, _leg_of_mark(each))
            for each in marked
            if each.mark
        ),
        ends=tuple(
            OtherChannel(manager, each, origin, asker)
            for each in board.conversation(meant)
            if not each.is_local
        ),
    )


def _leg_of_mark(channel: LiveChannel) -> str:
    leg = channel.values[variables.LEG]
    return leg if channel.mark and leg.startswith(channel.mark.leg_id) else ""


def channels(
    manager: Manager, names: Iterable[str] | None = None, read: Sequence[str] = target.READ
) -> list[LiveChannel]:
    """All of them, or those of these names that are there; read: variables. Raises ManagerUnavailable."""
    # By name, which stands before all that a caller can write into the event (res_parking,
    # parking_manager.c: ParkeeChannel, then its state, then ParkeeCallerIDNum).
    parked = {
        event.get("ParkeeChannel") for event in manager.events("ParkedCalls", "ParkedCallsComplete", {})
    }
    asked: list[dict[str, str]] = [{}] if names is None else [{"Channel": name} for name in names]
    messages = [
        each for fields in asked for each in _status(manager, {**fields, "Variables": ",".join(read)})
    ]
    events = [message for message in messages if message.get("Event") == "Status"]
    doubtful = [
        _ask_singly(manager, event.get("Channel"), parked, read) for event in events if event.is_doubtful
    ]
    told = [_live_channel(event, parked, read) for event in events if not event.is_doubtful]
    bridges = {channel.name: channel.bridge for channel in told}
    return [*told, *(_with_bridge(channel, bridges) for channel in doubtful if channel)]


def _status(manager: Manager, fields: Mapping[str, str]) -> list[Message]:
    try:
        return manager.events("Status", "StatusComplete", fields)
    except NoSuchCall:
        return []


def _ask_singly(manager: Manager, name: str, parked: set[str], read: Sequence[str]) -> LiveChannel | None:
    """A channel whose event cannot be believed beyond its name; None once it is gone."""
    with contextlib.suppress(NoSuchCall):
        uniqueid = manager.get(name, "UNIQUEID")
        values = {variable: manager.get(name, variable) for variable in read}
        is_up = manager.get(name, "CHANNEL(state)") == "Up"
        return LiveChannel(
            name,
            uniqueid,
            values[variables.LINKEDID],
            live_channel.UP if is_up else 0,
            is_parked=name in parked,
            values=values,
        )
    return None


def _live_channel(event: Message, parked: set[str], read: Sequence[str]) -> LiveChannel:
    return LiveChannel(
        event.get("Channel"),
        event.get("Uniqueid"),
        event.get("Linkedid"),
        _number(event.get("ChannelState")),
        _number(event.get("Seconds")),
        event.get("BridgeID"),
        event.get("Application"),
        _known(event.get("CallerIDNum")),
        _known(event.get("ConnectedLineNum")),
        event.get("Exten"),
        event.get("DNID"),
        event.get("Channel") in parked,
        {name: event.variables.get(name, "") for name in read},
    )


def _with_bridge(channel: LiveChannel, bridges: Mapping[str, str]) -> LiveChannel:
    """A channel that was asked singly, with the bridge of the one that it is bridged with: no variable says
    which. Else a caller could make his conversation look as if it were none.
    """
    peer = channel.values[variables.BRIDGEPEER].partition(",")[0]
    pair = " and ".join(sorted([channel.name, peer])) if peer else ""
    return channel._replace(bridge=bridges.get(peer) or pair)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _known(value: str) -> str:
    return "" if value == "<unknown>" else value  # manager_channels.c writes this for "not there"
