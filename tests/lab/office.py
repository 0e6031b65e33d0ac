"""An office whose calls go from one telephone to another: 410 is Ann's, 412 Carl's, and a customer is at 411.

A call is recorded at the customer's end or at the agent's: the end of each number says where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from lab import manager, sounds
from lab.asterisk import find
from lab.exchange import LIMIT_SECONDS, Exchange
from lab.listener import Listener, Talk
from lab.phones import Lines
from lab.served import Served
from lab.sip_phone import SipPhone
from lab.waiting import wait_until
from noojee_agi.asterisk import variables
from noojee_agi.config import Config

ANN, CUSTOMER, CARL = "410", "411", "412"
TONES = {ANN: 1004, CUSTOMER: 425, CARL: 700}
PLACES = ("customer", "agent")
TALK_SECONDS = 0.5
_FIRST_SEQUENCES = {ANN: 100, CUSTOMER: 7000, CARL: 50000}
_AHEAD = 20000
_SOUNDS = ("pbx-transfer", "pbx-invalid", "beep", "beeperr", *(f"digits/{digit}" for digit in range(10)))

_DIALPLAN = """
[telephones]
include => parkedcalls
exten => _41X,1,Dial(PJSIP/${EXTEN},20,tT)
exten => in-customer,1,Answer()
 same => n,Queue(desk,ctT,,,20,"start_record.py,,IN")
exten => in-agent,1,Answer()
 same => n,Dial(PJSIP/410,20,tTU(recorded,IN))
exten => out-agent,1,AGI(start_record.py,,OUT)
 same => n,Dial(PJSIP/411,20,tT)
exten => out-customer,1,Dial(PJSIP/411,20,tTU(recorded,OUT))
exten => ringing-customer,1,Answer()
 same => n,Set(__PICKUPMARK=desk)
 same => n,AGI(start_record.py,410,IN)
 same => n,Dial(PJSIP/410,20,tT)
exten => ringing-agent,1,Answer()
 same => n,Set(__PICKUPMARK=desk)
 same => n,Dial(PJSIP/410,20,tTU(recorded,IN))
exten => parked,1,Answer()
 same => n,AGI(start_record.py,,IN)
 same => n,Park(,s)
exten => pickup,1,Pickup(desk@PICKUPMARK)
exten => forward-customer,1,Answer()
 same => n,AGI(start_record.py,410,IN)
 same => n,Dial(PJSIP/410,1,tT)
 same => n,Dial(PJSIP/412,20,tT)
exten => forward-agent,1,Answer()
 same => n,Dial(PJSIP/410,1,tTU(recorded,IN))
 same => n,Dial(PJSIP/412,20,tTU(recorded,IN))
exten => second,1,Queue(other,c,,,20)
exten => room,1,ConfBridge(1)
exten => login,1,AgentLogin(1001,s)
exten => pool-customer,1,Answer()
 same => n,AGI(start_record.py,410,IN)
 same => n,AgentRequest(1001)
exten => local-customer,1,Answer()
 same => n,AGI(start_record.py,410,IN)
 same => n,Dial(Local/410@telephones,20,tT)
exten => local-agent,1,Answer()
 same => n,Dial(Local/410@behind,20,tT)
exten => told-customer,1,Answer()
 same => n,Set(LIMIT_WARNING_FILE=beep)
 same => n,Set(LIMIT_PLAYAUDIO_CALLER=yes)
 same => n,AGI(start_record.py,410,IN)
 same => n,Dial(PJSIP/410,20,tTL(60000:59700:300))
exten => told-agent,1,Answer()
 same => n,Set(LIMIT_WARNING_FILE=beep)
 same => n,Set(LIMIT_PLAYAUDIO_CALLER=yes)
 same => n,Dial(PJSIP/410,20,tTL(60000:59700:300)U(recorded,IN))
[behind]
exten => 410,1,Dial(PJSIP/410,20,tTU(recorded,IN))
[recorded]
exten => s,1,AGI(start_record.py,,${ARG1})
 same => n,Return()
[parkedcalls]
"""
_FILES = {
    "queues.conf": """
[desk]
strategy = ringall
setinterfacevar = yes
member => PJSIP/410
[other]
strategy = ringall
setinterfacevar = yes
member => PJSIP/412
""",
    "features.conf": "[featuremap]\nblindxfer => #1\natxfer => *2\n",
    "res_parking.conf": """
[general]
[default]
parkext => 700
context => parkedcalls
parkpos => 701-720
[short]
parkext => 750
parkext_exclusive => yes
context => parkedcalls
parkpos => 751-760
parkingtime => 2
""",
    "confbridge.conf": "[general]\n[default_user]\ntype = user\nquiet = yes\n",
    "agents.conf": "[general]\n[1001]\ncustom_beep = beep\n",
}


Call = Callable[["Office", str], None]  # at which place it is recorded


class Played(NamedTuple):
    """What a call has left: its legs, who talked with whom, and when a MixMonitor began and was stopped."""

    legs: list[dict[str, Any]]
    talks: list[Talk]
    begun: list[float]
    stopped: list[float]


class Office(NamedTuple):
    """An Asterisk with these numbers, our server, which is told of its calls, and one who listens."""

    exchange: Exchange[SipPhone]
    server: Served
    listener: Listener

    @property
    def phones(self) -> Mapping[str, SipPhone]:
        return self.exchange.phones


def office(version: int, folder: Path, stack: ExitStack, options: Mapping[str, str] | None = None) -> Office:
    """options: further ones of its server."""
    installation = sounds.with_silent(find(version), folder / "data", _SOUNDS)
    exchange: Exchange[SipPhone] = Exchange(
        installation, "", folder, stack, _DIALPLAN, TONES, _plug_in, _FILES, ["app_agent_pool"]
    )
    exchange.site.cli("account", "add", "Carl")
    exchange.site.cli("attach", "Carl", CARL)
    server = stack.enter_context(Served(exchange.site, {**manager.options(exchange.port), **(options or {})}))
    return Office(exchange, server, stack.enter_context(Listener(exchange.port)))


def _plug_in(lines: Lines, extension: str, folder: Path) -> SipPhone:
    return SipPhone(extension, lines.port, TONES[extension], _FIRST_SEQUENCES[extension])


def number_packets(at: Office, is_ahead: bool) -> None:
    """Whether Carl's sequence numbers lie ahead of Ann's, or behind them: RFC 1982, 3.2."""
    at.phones[CARL].first_sequence = _AHEAD if is_ahead else _FIRST_SEQUENCES[CARL]


def is_followed(at: Office) -> bool:
    return Config.load(str(at.exchange.site.conf)).recordings_follow == "yes"


def wait_until_known(at: Office) -> None:
    """Until the server knows who talk in the leg: it misses nobody who goes after that."""

    def is_known() -> bool:
        shown = [at.exchange.asterisk.rx(f"core show channel {name}") for name in at.exchange.channels()]
        return f"{variables.PERSONS}=" in " ".join(shown)

    if is_followed(at):
        wait_until(is_known, LIMIT_SECONDS, "the server to know who talk")


def talk(at: Office, *pair: str, seconds: float = TALK_SECONDS, leg: int = 0) -> None:
    """Until these two have talked for so long, since a recording has last begun.

    leg: of the call; it has begun by then, unless recordings do not follow it.
    """
    at.listener.wait_talking(*pair)
    if is_followed(at):
        wait_until(
            lambda: len(at.listener.seen("MixMonitorStart")) >= leg,
            LIMIT_SECONDS,
            f"leg {leg}",
            lambda: (at.listener.talks(), at.exchange.site.log()[-3000:]),
        )
    phones = [at.phones[each] for each in pair if each in at.phones]
    until: dict[int, list[float]] = {}  # by how many recordings have begun

    def have_talked() -> bool:
        begun = len(at.listener.seen("MixMonitorStart"))
        ends = until.setdefault(begun, [phone.talked() + seconds for phone in phones])
        return all(phone.talked() > end for phone, end in zip(phones, ends, strict=True))

    wait_until(have_talked, LIMIT_SECONDS, "some talk")


def play(at: Office, call: Call, place: str) -> Played:
    """Have the call, recorded at that place, hang up, and wait for the end of its legs."""
    known = {leg["id"] for leg in at.exchange.site.legs()}
    at.listener.forget()
    try:
        call(at, place)
    finally:
        hang_up(at)

    def times(kind: str) -> list[float]:
        return [float(event["Timestamp"]) for event in at.listener.seen(kind)]

    def ended() -> list[dict[str, Any]] | None:
        legs = at.exchange.site.legs()  # by one look: between two the server may bring in another one
        is_over = all(leg["status"] != "recording" for leg in legs)
        found = [leg for leg in legs if leg["id"] not in known]
        return found if is_over and len(found) == len(times("MixMonitorStart")) else None

    def instead() -> object:
        return at.exchange.site.legs(), at.listener.seen("MixMonitorStart"), at.exchange.site.log()[-3000:]

    legs = wait_until(ended, LIMIT_SECONDS, "its legs to end", instead)
    return Played(legs, at.listener.talks(), times("MixMonitorStart"), times("MixMonitorStop"))


def hang_up(at: Office) -> None:
    """All, and they are as they were."""
    for extension, phone in at.phones.items():
        phone.hang_up()
        phone.answers = phone.sends = True
        phone.say(TONES[extension])
    at.exchange.asterisk.wait_quiet(LIMIT_SECONDS)
