"""What happens with each file of dialplan-examples: who calls whom, which keys are pressed, whose a leg is.

The telephones 410 (Ann's), 411 (Fred's) and trunk, which is the world outside, play a tone each. Used by the
tests, and by dialplan-examples/run for people to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from lab import sounds, tones
from lab.asterisk import find
from lab.exchange import LIMIT_SECONDS, Exchange
from lab.phones import Lines
from lab.sip_phone import SipPhone, let_talk
from lab.waiting import wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "dialplan-examples"
TONES = {"410": 1004, "411": 425, "trunk": 700}
AUDIBLE = 0.1  # of the file's power
_FIRST_SEQUENCE = 7000
_TALK_SECONDS = 0.5
_ANNOUNCEMENT = "this-call-may-be-monitored-or-recorded"
# The other files of Asterisk's that an example is a part of.
_PARTS = {
    **dict.fromkeys(["inbound-queue", "inbound-queue-waiting", "hot-desk"], "queues"),
    **dict.fromkeys(["on-demand", "payment"], "features"),
}
# A telephone answers at once: so whoever waits in a queue is heard for a second before.
_AGENTS = "[agents]\nexten => _4XX,1,Wait(1)\n same => n,Dial(PJSIP/${EXTEN})\n"


class Leg(NamedTuple):
    """What is expected of a leg: its owner, or nobody, its tag, and who is heard in it."""

    owner: str | None
    tag: str
    heard: tuple[str, ...]


class Scene(NamedTuple):
    """One call. says: in a line, for people. includes: what the telephones may dial of the example. more:
    further dialplan in their context. call: places it, and returns when it may be over. legs: empty where
    chance says whose.
    """

    says: str
    includes: str
    call: Callable[[Exchange[SipPhone]], None]
    legs: tuple[Leg, ...]
    more: str = ""


def exchange(
    version: int | None, of: Mapping[str, Scene], folder: Path, stack: ExitStack, more: str = ""
) -> Exchange[SipPhone]:
    """An Asterisk of that version, or the machine's own one, with these examples. Raises LabUnavailable.

    more: further dialplan in the context of the telephones.
    """
    dialplan = "".join(f"#include {EXAMPLES / name}.conf\n" for name in of) + "[telephones]\n"
    dialplan += "".join(f"include => {scene.includes}\n" for scene in of.values() if scene.includes)
    dialplan += "".join(scene.more for scene in of.values()) + more + _AGENTS
    files = {f"{part}.conf": (EXAMPLES / f"{part}.conf").read_text() for part in {*_PARTS.values()}}
    installation = sounds.with_silent(find(version), folder / "data", [_ANNOUNCEMENT], 2500)
    made: Exchange[SipPhone] = Exchange(installation, "", folder, stack, dialplan, TONES, _plug_in, files)
    made.site.cli("attach", "Fred", "411")
    made.asterisk.rx("database put reference 030123 INV-22")
    made.asterisk.rx("database put agents 101 Ann")
    made.configure()
    return made


def new_legs(made: Exchange[SipPhone], known: set[str]) -> list[dict[str, Any]]:
    """Those that are not among the known ones, in the order of their starting."""
    return [leg for leg in made.site.legs() if leg["id"] not in known]


def play(made: Exchange[SipPhone], scene: Scene) -> list[dict[str, Any]]:
    """Place the call, hang up, and wait for the end of its legs, which are returned."""
    known = {leg["id"] for leg in made.site.legs()}
    scene.call(made)
    made.end()

    def ended() -> bool:
        return all(leg["status"] != "recording" for leg in new_legs(made, known))

    wait_until(ended, LIMIT_SECONDS, "the legs to end", lambda: new_legs(made, known))
    return new_legs(made, known)


def heard(leg: Mapping[str, Any]) -> tuple[str, ...]:
    """Whose tone is in the leg's file."""
    shares = {party: tones.share(Path(leg["file"]), hertz) for party, hertz in TONES.items()}
    return tuple(party for party, share in shares.items() if share > AUDIBLE)


def seen(leg: Mapping[str, Any]) -> Leg:
    return Leg(leg["owner"], leg["tag"], heard(leg))


def talk(made: Exchange[SipPhone], number: int = 1) -> None:
    """Until those who are in the leg of this number, which records now, have talked for a while."""

    def running() -> list[dict[str, Any]]:
        return [leg for leg in made.site.legs() if (leg["status"], leg["leg"]) == ("recording", number)]

    (leg,) = wait_until(running, LIMIT_SECONDS, "a leg that records", made.site.legs)
    wait_until(Path(leg["file"]).exists, LIMIT_SECONDS, "its file")
    let_talk(made.phones.values(), _TALK_SECONDS)


def _plug_in(lines: Lines, extension: str, folder: Path) -> SipPhone:
    return SipPhone(extension, lines.port, TONES[extension], _FIRST_SEQUENCE)


def _answered(caller: str, number: str, called: str, leg: int = 1) -> Callable[[Exchange[SipPhone]], None]:
    """A call that is answered, and recorded for a while in the leg of this number."""

    def call(made: Exchange[SipPhone]) -> None:
        made.phones[caller].dial(number)
        made.wait_bridged(called)
        talk(made, leg)

    return call


def _group_called(made: Exchange[SipPhone]) -> None:
    made.phones["trunk"].dial("5550102")
    talk(made)


def _by_keys(made: Exchange[SipPhone]) -> None:
    made.phones["411"].dial("410")
    made.wait_bridged("410")
    made.phones["410"].press("*3")
    talk(made)
    made.phones["410"].press("*4")
    wait_until(lambda: made.site.legs()[-1]["status"] == "completed", LIMIT_SECONDS, "the end of the leg")


def _paid(made: Exchange[SipPhone]) -> None:
    made.phones["trunk"].dial("5550111")
    made.wait_bridged("410")
    talk(made)
    made.phones["410"].press("*5")
    wait_until(lambda: made.site.legs()[-1]["status"] == "completed", LIMIT_SECONDS, "the end of the leg")
    made.phones["410"].press("*6")
    talk(made, 2)


def _transferred(made: Exchange[SipPhone]) -> None:
    made.phones["trunk"].dial("5550105")
    made.wait_bridged("410")
    talk(made)
    made.phones["410"].transfer("411")
    made.wait_bridged("411")
    talk(made, 2)


def _supervised(made: Exchange[SipPhone]) -> None:
    made.phones["trunk"].dial("5550109")
    made.wait_bridged("410")
    made.phones["411"].dial("*7410")
    talk(made)
    made.phones["411"].wait_idle()
    made.phones["411"].dial("*8410")
    wait_until(lambda: made.site.legs()[-1]["status"] == "completed", LIMIT_SECONDS, "the end of the leg")


def log_in(made: Exchange[SipPhone]) -> None:
    """Ann sits down at 411, Fred's desk."""
    made.phones["411"].dial("*55101")
    made.phones["411"].wait_idle()
    made.pbx.wait_until_idle()


def log_out(made: Exchange[SipPhone]) -> None:
    made.phones["411"].dial("*56")
    made.phones["411"].wait_idle()
    made.pbx.wait_until_idle()


def _at_a_hot_desk(made: Exchange[SipPhone]) -> None:
    log_in(made)
    made.phones["trunk"].dial("5550110")
    made.wait_bridged("411")
    talk(made)
    made.end()
    log_out(made)
    made.site.cli("attach", "Fred", "411")


_INBOUND = (Leg("Ann", "INV-22", ("410", "trunk")),)
_OUTBOUND = ("411", "trunk")
SCENES: dict[str, Scene] = {
    "inbound-queue": Scene(
        "a caller reaches the queue, and the agent at 410 answers",
        *("inbound-sales", _answered("trunk", "5550100", "410"), _INBOUND),
    ),
    "inbound-queue-waiting": Scene(
        "a caller reaches the queue, and is recorded while he waits",
        *("inbound-queue-waiting", _answered("trunk", "5550104", "410", 2)),
        (Leg(None, "INV-22", ("trunk",)), *_INBOUND),
    ),
    "hot-desk": Scene(
        "Ann logs in at 411, and a caller of the queue reaches her there",
        *("hot-desk", _at_a_hot_desk, (Leg("Ann", "INV-22", ("411", "trunk")),)),
        "include => inbound-support\n",
    ),
    "inbound-direct": Scene(
        "a direct number, answered at 410",
        *("inbound-direct", _answered("trunk", "5550101", "410"), _INBOUND),
    ),
    "inbound-announcement": Scene(
        "the caller is told of the recording, and presses no key",
        *("inbound-announcement", _answered("trunk", "5550103", "410"), _INBOUND),
    ),
    "outbound": Scene(
        "411 dials 0 and the number of a customer whose reference is known",
        *("outbound", _answered("411", "0030123", "trunk"), (Leg("Fred", "INV-22", _OUTBOUND),)),
    ),
    "on-demand": Scene(
        "410 presses *3 during a conversation, and later *4",
        *("on-demand", _by_keys, (Leg("Ann", "", ("410", "411")),)),
    ),
    "payment": Scene(
        "410 presses *5 before the caller says a card number, and then *6",
        *("payment", _paid, _INBOUND * 2),
    ),
    "transfer-target": Scene(
        "410 sends the caller to 411, and the recording changes its owner",
        *("transfer-source", _transferred),
        (*_INBOUND, Leg("Fred", "INV-22", ("411", "trunk"))),
    ),
    "supervisor": Scene(
        "411 has the call at 410 recorded by a feature code",
        *("supervisor", _supervised, (Leg("Ann", "", ("410", "trunk")),)),
        "exten => 5550109,1,Dial(PJSIP/410)\n",
    ),
    "fastagi": Scene(
        "FastAGI where no server runs, so that the program does it",
        *("inbound-fastagi", _answered("trunk", "5550106", "410"), _INBOUND),
    ),
    "record-or-log": Scene(
        "a dialplan calls the subroutine",
        *("", _answered("trunk", "5550107", "410"), _INBOUND),
        "exten => 5550107,1,Gosub(record-or-log,s,1(410,INV-22,Ann))\n same => n,Dial(PJSIP/410)\n",
    ),
    "freepbx": Scene(
        "FreePBX is about to dial extension 410",
        *("", _answered("trunk", "5550108", "410"), (Leg("Ann", "", ("410", "trunk")),)),
        "exten => 5550108,1,Set(EXTTOCALL=410)\n same => n,Gosub(sub-dialout-one-predial-hook,s,1)\n"
        " same => n,Dial(PJSIP/410)\n",
    ),
    "ring-group": Scene(
        "410 and 411 ring, and who answers first is recorded",
        *("ring-group", _group_called, ()),
    ),
}
