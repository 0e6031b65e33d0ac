"""How a call goes on from one person to another, each kind of it, and what is no transition.

While Ann asks Carl before she transfers, and while nobody talks with the customer, they speak in other tones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from lab.exchange import LIMIT_SECONDS
from lab.office import ANN, CARL, CUSTOMER, TONES, Office, talk, wait_until_known
from lab.waiting import wait_until

CONSULTING, ALONE = 1900, 2300
_ASIDE_SECONDS = 0.3
# Which leg is Carl's when he answers in Ann's place: at the customer's end one has begun for her.
_TAKEN_BY = {"customer": 2, "agent": 1}


class Leg(NamedTuple):
    """What is expected of a leg: whose it is, if anybody's, and who talk in it."""

    owner: str | None
    pair: frozenset[str]


def reach_ann(at: Office, number: str) -> None:
    at.phones[CUSTOMER].dial(number)
    talk(at, ANN, CUSTOMER, leg=1)
    wait_until_known(at)


def press(at: Office, code: str) -> None:
    """Ann presses a feature code, waits until she is asked for a number, and presses Carl's."""
    asked = f"<{at.exchange.channel(ANN)}> Playing 'pbx-transfer"
    at.phones[ANN].press(code)
    wait_until(lambda: asked in at.exchange.asterisk.log(), LIMIT_SECONDS, "the question for a number")
    at.phones[ANN].press(CARL)


def consult(at: Office, ends: bool = False) -> None:
    """Ann asks Carl, and the customer waits. ends: whether the leg does, as where she is recorded herself."""
    at.listener.wait_talking(ANN, CARL)
    if ends:
        wait_for_end(at)
    at.phones[ANN].say(CONSULTING)
    talk(at, ANN, CARL, seconds=_ASIDE_SECONDS)
    at.phones[ANN].say(TONES[ANN])


def is_there(at: Office, extension: str) -> bool:
    return any(name.startswith(f"PJSIP/{extension}-") for name in at.exchange.channels())


def wait_for_end(at: Office) -> None:
    """Of the leg, whose channel stays."""
    wait_until(lambda: at.listener.seen("MixMonitorStop"), LIMIT_SECONDS, "the end of the leg")


def be_alone(at: Office, place: str) -> None:
    """The customer says something, though nobody is there: what was recorded before has ended by then.

    A recording at a channel that has gone has ended with it, and no event says so.
    """
    if place == "customer":
        wait_for_end(at)
    else:
        wait_until(lambda: not is_there(at, ANN), LIMIT_SECONDS, "Ann to be gone")
    customer = at.phones[CUSTOMER]
    customer.say(ALONE)
    until = customer.talked() + _ASIDE_SECONDS
    wait_until(lambda: customer.talked() > until, LIMIT_SECONDS, "some time")
    customer.say(TONES[CUSTOMER])


# ---- The kinds of transition; each function ends while the last two talk


def _blind(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    at.phones[ANN].transfer(CARL)
    talk(at, CUSTOMER, CARL, leg=2)


def _blind_while_it_rings(at: Office, place: str) -> None:
    """What the customer says before Carl answers is nobody's."""
    reach_ann(at, f"in-{place}")
    at.phones[CARL].answers = False
    at.phones[ANN].transfer(CARL)
    at.phones[CARL].wait_ringing()
    be_alone(at, place)
    at.phones[CARL].answer()
    talk(at, CUSTOMER, CARL, leg=2)


def _attended(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    at.phones[ANN].hold()
    at.phones[ANN].dial(CARL)
    consult(at)
    at.phones[ANN].join()
    talk(at, CUSTOMER, CARL, leg=2)


def _blind_by_keys(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    press(at, "#1")
    talk(at, CUSTOMER, CARL, leg=2)


def _attended_by_keys(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    press(at, "*2")
    consult(at, ends=place == "agent")
    at.phones[ANN].hang_up()
    talk(at, CUSTOMER, CARL, leg=2)


def _redirect(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    to = {"Context": "telephones", "Exten": CARL, "Priority": "1"}
    at.listener.act(Action="Redirect", Channel=at.exchange.channel(CUSTOMER), **to)
    talk(at, CUSTOMER, CARL, leg=2)


def _park(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    at.phones[ANN].transfer("700", is_patient=True)  # Asterisk forgets to park when she leaves before
    (parked,) = wait_until(lambda: at.listener.seen("ParkedCall"), LIMIT_SECONDS, "the parking")
    be_alone(at, place)
    at.phones[CARL].dial(parked["ParkingSpace"])
    talk(at, CUSTOMER, CARL, leg=2)


def parked_by_the_dialplan(at: Office, place: str) -> None:
    """The customer, before he has talked with anybody."""
    at.phones[CUSTOMER].dial("parked")
    (parked,) = wait_until(lambda: at.listener.seen("ParkedCall"), LIMIT_SECONDS, "the parking")
    be_alone(at, "customer")
    at.phones[CARL].dial(parked["ParkingSpace"])
    talk(at, CUSTOMER, CARL, leg=2)


def _park_too_long(at: Office, place: str) -> None:
    """Nobody fetches him, and Asterisk calls Ann again."""
    reach_ann(at, f"in-{place}")
    at.phones[ANN].transfer("750", is_patient=True)
    be_alone(at, place)
    talk(at, ANN, CUSTOMER, leg=2)


def _conference(at: Office, place: str) -> None:
    at.phones[CARL].dial("room")
    reach_ann(at, f"in-{place}")
    at.phones[ANN].transfer("room")
    talk(at, CUSTOMER, CARL, leg=2)


def agent_of_pool(at: Office, place: str) -> None:
    """Ann stays logged in (app_agent_pool) when the customer is sent to Carl."""
    at.phones[ANN].dial("login")
    pool = partial(at.exchange.asterisk.rx, "agent show online")
    wait_until(lambda: "NOT_INUSE" in pool(), LIMIT_SECONDS, "the agent to be free", pool)
    reach_ann(at, "pool-customer")
    to = {"Context": "telephones", "Exten": CARL, "Priority": "1"}
    (customer,) = [name for name in at.exchange.channels() if name.startswith(f"PJSIP/{CUSTOMER}-")]
    at.listener.act(Action="Redirect", Channel=customer, **to)
    talk(at, CUSTOMER, CARL, leg=2)


def to_and_fro(at: Office, place: str, times: int) -> None:
    """Ann and Carl send the customer to each other by blind transfers."""
    reach_ann(at, f"in-{place}")
    has_him, other = ANN, CARL
    for leg in range(2, times + 2):
        at.phones[has_him].transfer(other)
        talk(at, CUSTOMER, other, seconds=_ASIDE_SECONDS, leg=leg)
        has_him, other = other, has_him


def _pickup(at: Office, place: str) -> None:
    at.phones[ANN].answers = False
    at.phones[CUSTOMER].dial(f"ringing-{place}")
    at.phones[ANN].wait_ringing()
    at.phones[CARL].dial("pickup")
    talk(at, CUSTOMER, CARL, leg=_TAKEN_BY[place])


def _forward(at: Office, place: str) -> None:
    at.phones[ANN].answers = False
    at.phones[CUSTOMER].dial(f"forward-{place}")
    talk(at, CUSTOMER, CARL, leg=_TAKEN_BY[place])


def _second_queue(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    at.phones[ANN].transfer("second")
    talk(at, CUSTOMER, CARL, leg=2)


def _outbound(at: Office, place: str) -> None:
    at.phones[ANN].dial(f"out-{place}")
    talk(at, ANN, CUSTOMER, leg=1)
    wait_until_known(at)
    at.phones[ANN].transfer(CARL)
    talk(at, CUSTOMER, CARL, leg=2)


def _back(at: Office, place: str) -> None:
    _blind(at, place)
    at.phones[CARL].transfer(ANN)
    talk(at, ANN, CUSTOMER, leg=3)


TRANSITIONS: dict[str, Callable[[Office, str], None]] = {
    "blind transfer": _blind,
    "blind transfer while it rings": _blind_while_it_rings,
    "attended transfer": _attended,
    "blind transfer by keys": _blind_by_keys,
    "attended transfer by keys": _attended_by_keys,
    "redirect": _redirect,
    "park and fetch": _park,
    "second queue": _second_queue,
    "outbound": _outbound,
    "back": _back,
    "parked too long": _park_too_long,
    "conference": _conference,
}


def _stop(at: Office, extension: str) -> None:
    done = at.exchange.site.record("stop", extension)
    assert done.returncode == 0, done.stderr


def stopped_while_parked(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    at.phones[ANN].transfer("700", is_patient=True)
    (parked,) = wait_until(lambda: at.listener.seen("ParkedCall"), LIMIT_SECONDS, "the parking")
    wait_until(
        lambda: len(at.listener.seen("MixMonitorStop")) == (place == "customer"),
        LIMIT_SECONDS,
        "the leg's end",
    )
    _stop(at, CUSTOMER)
    at.phones[CARL].dial(parked["ParkingSpace"])
    talk(at, CUSTOMER, CARL)


def stopped(at: Office, place: str) -> None:
    """Ann ends the recording, and transfers."""
    reach_ann(at, f"in-{place}")
    _stop(at, ANN)
    talk(at, ANN, CUSTOMER, seconds=_ASIDE_SECONDS)
    at.phones[ANN].transfer(CARL)
    talk(at, CUSTOMER, CARL)


STOPPED: dict[str, Callable[[Office, str], None]] = {
    "stopped": stopped,
    "stopped while parked": stopped_while_parked,
}

# Ann is called, and Carl answers.
TAKEN: dict[str, Callable[[Office, str], None]] = {"pickup": _pickup, "forward": _forward}


# ---- What is no transition


def _hold(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    at.phones[ANN].hold()
    talk(at, ANN, CUSTOMER, seconds=_ASIDE_SECONDS)
    at.phones[ANN].hold(False)
    talk(at, ANN, CUSTOMER)


def _optimised_away(at: Office, place: str) -> None:
    reach_ann(at, f"local-{place}")

    def shown() -> list[str]:
        lines = at.exchange.asterisk.rx("core show channels concise").splitlines()
        return [line for line in lines if line.startswith("Local/")]

    wait_until(lambda: not shown(), LIMIT_SECONDS, "the Local channel to be gone", shown)


def _told(at: Office, place: str) -> None:
    """The customer hears a sound every 0.3 s."""
    reach_ann(at, f"told-{place}")
    talk(at, ANN, CUSTOMER)
    told = f"<{at.exchange.channel(CUSTOMER)}> Playing 'beep"
    wait_until(lambda: told in at.exchange.asterisk.log(), LIMIT_SECONDS, "the sound")


def _another_codec(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    for extension in (ANN, CUSTOMER):
        with _silence(at, ANN, CUSTOMER):
            at.phones[extension].change_codec()
        talk(at, ANN, CUSTOMER)


@contextlib.contextmanager
def _silence(at: Office, *pair: str) -> Iterator[None]:
    """These two send nothing.

    A frame of the former codec that is on its way makes Asterisk end the call ("Don't know how to send format
    ulaw packets with RTP", res_rtp_asterisk.c of 22.10; once in 130 calls).
    """
    phones = [at.phones[extension] for extension in pair]
    received = ""

    def is_still() -> bool:
        nonlocal received
        before, received = received, at.exchange.asterisk.rx("pjsip show channelstats")
        return received == before

    for phone in phones:
        phone.sends = False
    wait_until(is_still, LIMIT_SECONDS, "all audio to have arrived", lambda: received)
    yield
    for phone in phones:
        phone.sends = True


NO_TRANSITIONS: dict[str, Callable[[Office, str], None]] = {
    "hold and resume": _hold,
    "Local channel optimised away": _optimised_away,
    "announcement to one side": _told,
    "another codec": _another_codec,
}


def legs_of(name: str, place: str) -> list[Leg]:
    """Those that it should leave."""
    ann, carl = Leg("Ann", frozenset({ANN, CUSTOMER})), Leg("Carl", frozenset({CARL, CUSTOMER}))
    if name == "outbound" and place == "customer":
        # Before he answers, his own channel knows of nobody with whom he will talk.
        return [ann._replace(owner=None), carl]
    if name in NO_TRANSITIONS or name in STOPPED:
        return [ann]
    if name == "parked too long":
        return [ann, ann]
    if name == "conference":  # of those who talk there nobody is the one for whom it is recorded
        carl = carl._replace(owner=None)
    return [ann, carl, ann] if name == "back" else [ann, carl]
