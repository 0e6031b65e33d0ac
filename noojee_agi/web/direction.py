"""Whether a call came in, went out, or stayed in the house."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from noojee_agi.asterisk import extensions

INBOUND, OUTBOUND, INTERNAL = "Inbound", "Outbound", "Internal"
_TELEPHONE = re.compile(r"[0-9]{3,6}")

Leg = Mapping[str, Any]


class _End(NamedTuple):
    """channel: the extension in its channel's name; empty: not known. number: its own, or by which it was
    dialled.
    """

    channel: str
    number: str = ""

    def is_ours(self, attached: Collection[str]) -> bool:
        is_telephone = bool(_TELEPHONE.fullmatch(self.channel))
        return is_telephone or self.channel in attached or self.number in attached


def of_call(legs: Sequence[Leg], attached: Collection[str]) -> str:
    """By who began the call, and whom it reached: legs are its first ones, attached those of names() to which
    an account was ever attached.

    An end is ours if an account was ever attached to its channel's own extension, or if that is a number of
    three to six digits. A call that one of ours began is Internal if it reached one of ours, else Outbound;
    any other call is Inbound. Where no partner is known, as in a start before Dial(), the dialled number must
    be one to which an account was attached. Where it is not known who began the call, it is Inbound if it
    reached one of ours, else Outbound. The DID says nothing: Asterisk has the dialled number there, whoever
    dials.
    """
    caller, called = _ends(_telling(legs))
    if caller is None:
        return INBOUND if called.is_ours(attached) else OUTBOUND
    if not caller.is_ours(attached):
        return INBOUND
    return INTERNAL if called.is_ours(attached) else OUTBOUND


def names(legs: Iterable[Leg]) -> set[str]:
    """The extensions that must be looked up for of_call()."""
    ends = [end for leg in legs for end in _ends(leg) if end]
    return {name for end in ends for name in end} - {""}


def _telling(legs: Sequence[Leg]) -> Leg:
    """The first that has both ends of whom the call's first channel reached; else that has this channel."""
    with_caller = [leg for leg in legs if leg["call_uniqueid"] in (leg["uniqueid"], leg["peer_uniqueid"])]
    with_both = [leg for leg in with_caller if leg["peer_channel"]]
    return (*with_both, *with_caller, *legs)[0]


def _ends(leg: Leg) -> tuple[_End | None, _End]:
    """The caller's, or None, and the other. A call has the uniqueid of its first channel."""
    own, peer = (extensions.of_channel(leg[name]) for name in ("channel", "peer_channel"))
    if leg["uniqueid"] == leg["call_uniqueid"]:
        return _End(own, leg["source"]), _End(peer) if peer else _End("", leg["destination"])
    return _End(peer) if leg["peer_uniqueid"] == leg["call_uniqueid"] else None, _End(own)
