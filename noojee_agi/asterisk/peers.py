"""With whom the asking channel talks, or is about to: over AGI, without a manager interface."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from noojee_agi.asterisk import extensions, variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.recordings import recording

# Names are put into an expression that Asterisk evaluates: what could end one of its functions is no name.
_SAFE_NAME = re.compile(r"[A-Za-z0-9_./@;:+=#*~-]{1,120}")
_GROUP = re.compile("[gGrR]:?[0-9A-Za-z]+/")  # of lines, as chan_dahdi and those after its model have it
_MOST_CHANNELS = 32  # at which we look: a telephone has a few calls at most
_MOST_HALVES = 8  # of Local channels, one behind the other


_ASKED = (
    *("CHANNEL(name)", "UNIQUEID", variables.MIXMONITOR_ID, variables.PERSON_OF),
    *(variables.LINKEDID, variables.BRIDGEPEER, variables.DIALEDPEERNAME, variables.MEMBERINTERFACE),
)


class Peer(NamedTuple):
    """mixmonitor_id: of the MixMonitor that records that end for us; empty when none was started. mark: see
    variables.PERSON_OF.
    """

    name: str
    uniqueid: str
    mixmonitor_id: str = ""
    mark: str = ""


NOBODY = Peer("", "")


class Peers(NamedTuple):
    """The other ends of the conversation, the nearest first, and the extensions of those who are in it.

    agent: that of the queue's agent, if it is he who talks; talking: those of BRIDGEPEER or DIALEDPEERNAME.
    """

    ends: tuple[Peer, ...] = ()
    agent: str = ""
    talking: tuple[str, ...] = ()

    @property
    def telephone(self) -> Peer:
        """The end at which somebody sits: not a half of a Local channel, if there is another."""
        telephones = [end for end in self.ends if not end.name.startswith("Local/")]
        return (*telephones, *self.ends, NOBODY)[0]


class _Seen(NamedTuple):
    """What Asterisk says of a channel; all is empty when it is not there."""

    peer: Peer
    linkedid: str = ""
    bridged_with: str = ""
    dialled: str = ""
    member: str = ""


def find(channel: Channel, values: Mapping[str, str], looks_for_caller: bool = False) -> Peers:
    """values: of target.READ. DIALEDPEERNAME and MEMBERINTERFACE outlive a call: they count only while a
    channel of theirs is there, in the same call. Costs nothing when nobody is there. looks_for_caller: also
    for one who is just dialling this channel, which costs each call that was dialled. Raises CallGone.
    """
    agent = extensions.of_interface(values[variables.MEMBERINTERFACE])
    bridged = [name for name in values[variables.BRIDGEPEER].split(",") if name]
    if bridged:
        talking = extensions.distinct(map(extensions.of_channel, bridged))
        ends = tuple(_behind(channel, bridged[0])) if len(bridged) == 1 else ()  # else it is a conference
        return Peers(ends, agent if agent in talking else "", talking)
    linkedid = values[variables.LINKEDID]
    if values[variables.DIALEDPEERNAME] not in ("", *_transferrers(values)):
        ends = tuple(_behind(channel, values[variables.DIALEDPEERNAME], linkedid, channel.name))
        if ends:
            return Peers(ends, "", (extensions.of_channel(values[variables.DIALEDPEERNAME]),))
    ends = tuple(_of_agent(channel, values)) if agent else ()
    if not ends and looks_for_caller:
        return Peers(tuple(_who_dials(channel, linkedid)))
    return Peers(ends, agent if ends else "")


def _behind(channel: Channel, name: str, linkedid: str = "", before: str = "") -> Iterator[Peer]:
    """That channel, and those behind it when it is a Local one.

    linkedid: the call that it must be in; before: the one with which alone it may be bridged; empty for any.
    """
    for _ in range(_MOST_HALVES):
        seen = _look(channel, name)
        if not seen.peer.uniqueid or linkedid not in ("", seen.linkedid):
            return
        if before and seen.bridged_with not in ("", before):
            return
        yield seen.peer
        other_half = _other_half(name)
        if not other_half:
            return
        behind = _look(channel, other_half)
        if behind.peer.uniqueid:
            yield behind.peer
        name, linkedid, before = behind.bridged_with or behind.dialled, seen.linkedid, ""


def _of_agent(channel: Channel, values: Mapping[str, str]) -> Iterator[Peer]:
    """The channels of the agent who has answered: the queue's bridge is about to be."""
    interface, strangers = values[variables.MEMBERINTERFACE], {channel.name, *_transferrers(values)}
    names = _names(channel, _named_after(interface)) if _SAFE_NAME.fullmatch(interface) else []
    is_local = interface.startswith("Local/")  # behind it, the agent's telephone is in a bridge already
    for name in names:
        seen = _look(channel, name)
        is_free = name.startswith("Local/") or not seen.bridged_with or is_local
        if seen.linkedid == values[variables.LINKEDID] and name not in strangers and is_free:
            yield seen.peer


def _named_after(interface: str) -> str:
    """What the names of its channels fit: they have one part of the dial string.

    PJSIP/410@trunk-a becomes PJSIP/trunk-a-00000007, Local/410@agents rings PJSIP/410; only a group of lines,
    DAHDI/g1/410, becomes any line of its kind.
    """
    technology, _, rest = interface.partition("/")
    if _GROUP.match(rest):
        return f"^{_literal(technology)}/"
    parts = "|".join(_literal(part) for part in re.split("[@/:]", rest or technology) if part)
    return f"^[^/]+/({parts})[-@]"


def _names(channel: Channel, pattern: str) -> list[str]:
    """Channels whose name fits, telephones before Local channels, the newest first."""
    wanted = variables.channels(pattern)
    names = sorted(channel.get_all(wanted)[wanted].split(), reverse=True)
    return sorted(names, key=lambda name: name.startswith("Local/"))[:_MOST_CHANNELS]


def _literal(text: str) -> str:
    """The same text in a regular expression, without a backslash, which AGI's parsers would take away."""
    return "".join(f"[{character}]" if character in ".+*" else character for character in text)


def _who_dials(channel: Channel, linkedid: str) -> Iterator[Peer]:
    """The call's first channel, when it is just dialling this one (Dial's option U, a queue's membergosub).

    Through a Local channel that cannot be seen here: then it counts if we record it, and `live` looks closer.
    """
    if linkedid in ("", channel.uniqueid):
        return
    seen = _look(channel, linkedid)
    is_member = seen.member and extensions.of_interface(seen.member) == extensions.of_channel(channel.name)
    is_dialling = seen.dialled == channel.name or is_member or seen.peer.mixmonitor_id
    if is_dialling and not seen.bridged_with:
        yield seen.peer


def _look(channel: Channel, name: str) -> _Seen:
    if not _SAFE_NAME.fullmatch(name):
        return _Seen(Peer(name, ""))
    names = [variables.of_channel(name, variable) for variable in _ASKED]
    said = channel.get_all(*names)
    real_name, uniqueid, mixmonitor_id, mark, *others = (said[each] for each in names)
    running = _running(channel, name, recording.mixmonitor_id(mixmonitor_id))
    return _Seen(Peer(real_name or name, uniqueid, running, mark), *others)


def _running(channel: Channel, name: str, mixmonitor_id: str) -> str:
    """The same id while that MixMonitor records: the variable outlives one that somebody else has stopped."""
    if not mixmonitor_id:
        return ""
    wanted = variables.of_channel(name, variables.mixmonitor_file(mixmonitor_id))
    return mixmonitor_id if recording.is_ours(channel.get_all(wanted)[wanted]) else ""


def _other_half(name: str) -> str:
    """Local/410@agents-00000001;2 for ;1, and the other way round; empty for what is no Local channel."""
    if not name.startswith("Local/") or name[-2:] not in (";1", ";2"):
        return ""
    return name[:-1] + ("2" if name.endswith("1") else "1")


def _transferrers(values: Mapping[str, str]) -> tuple[str, str]:
    """Who has transferred this call may not be gone yet, and is no peer any more."""
    return values[variables.BLINDTRANSFER], values[variables.ATTENDEDTRANSFER]
