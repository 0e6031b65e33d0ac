"""Whatever happens to the server, and whatever a dialplan does beside it: a conversation has one leg."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab import manager
from lab.exchange import LIMIT_SECONDS, Exchange
from lab.phones import Lines
from lab.proxy import Proxy
from lab.served import Served
from lab.sip_phone import SipPhone
from lab.waiting import wait_until

from noojee_agi.asterisk import variables

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(300)]

TRANSFERS, MANY = 3, 50  # for each version and place of the recording; one or two of 3 meet a kill
# What the server asks when it hears again, it asks as it starts, too: of both versions, after each kill.
ON_22 = pytest.mark.parametrize("exchange", [22], ids=["asterisk22"], indirect=True, scope="module")
TONES = {"410": 1004, "411": 425, "412": 700, "413": 1400}
PEOPLE = {"410": "Ann", "412": "Carl", "413": "Dora"}
DIALPLAN = """
[telephones]
exten => _41X,1,Dial(PJSIP/${EXTEN},20)
exten => caller,1,AGI(start_record.py,410,INV-22)
 same => n,Dial(PJSIP/410,20)
exten => agent,1,Dial(PJSIP/410,20,U(record))
exten => anew,1,AGI(start_record.py,412,ANEW)
 same => n,Wait(1)
 same => n,Dial(PJSIP/412,20)
[record]
exten => s,1,AGI(start_record.py,,INV-22)
 same => n,Return()
"""


def plug_in(lines: Lines, extension: str, folder: Path) -> SipPhone:
    return SipPhone(extension, lines.port, TONES[extension], 100)


@pytest.fixture(scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
def exchange(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Exchange[SipPhone]]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("following")
        made = Exchange(request.param, "", folder, stack, DIALPLAN, TONES, plug_in)
        for extension, login in PEOPLE.items():
            if login != "Ann":
                made.site.cli("account", "add", login)
                made.site.cli("attach", login, extension)
        yield made


@pytest.fixture
def served(exchange: Exchange[SipPhone]) -> Iterator[Served]:
    with Served(exchange.site, manager.options(exchange.port)) as running:
        yield running
        exchange.end()


def connect(exchange: Exchange[SipPhone], place: str) -> None:
    """Who is sent on before Asterisk has put both together, is sent nowhere."""
    exchange.connect("411", place)
    exchange.wait_bridged("410")


def recording(exchange: Exchange[SipPhone]) -> list[dict[str, Any]]:
    """Without those that a killed server had only announced: they are closed within minutes."""
    return [leg for leg in exchange.site.legs("--status", "recording") if Path(leg["file"]).exists()]


def wait_for_leg(exchange: Exchange[SipPhone], owner: str, number: int, is_heard_of: bool = True) -> None:
    """Exactly one records, it is that person's, and it has a later number than the last.

    is_heard_of: the server knows who talk in it, too: it misses nobody who goes after that.
    """

    def is_right() -> bool:
        legs = recording(exchange)
        is_one = [leg["owner"] for leg in legs] == [owner] and exchange.mixmonitors() == 1
        return is_one and (not is_heard_of or is_known(legs[0]["id"]))

    def is_known(leg_id: str) -> bool:
        shown = [exchange.asterisk.rx(f"core show channel {name}") for name in exchange.channels()]
        return f"{variables.PERSONS}={leg_id} " in " ".join(shown)

    wait_until(
        is_right,
        LIMIT_SECONDS,
        f"leg {number} of {owner}",
        lambda: (exchange.site.legs(), exchange.site.log()[-4000:]),
    )


@pytest.mark.parametrize("place", ["caller", "agent"])
def test_each_conversation_has_one_leg_of_who_talks_after_the_server_was_killed(
    exchange: Exchange[SipPhone], served: Served, place: str, is_long: bool, tell: Callable[[str], None]
) -> None:
    chance, kills, holder = random.Random(place), 0, "410"
    before = {leg["id"] for leg in exchange.site.legs()}
    connect(exchange, place)
    wait_for_leg(exchange, PEOPLE[holder], 1)

    for number in range(MANY if is_long else TRANSFERS):
        to = chance.choice([extension for extension in PEOPLE if extension != holder])
        is_killed = chance.random() < 0.5
        moment = exchange.phones["411"].talked() + chance.uniform(0, 0.5)
        if is_killed and chance.random() < 0.5:
            served.kill()
        exchange.phones[holder].transfer(to)
        if is_killed:
            wait_until(lambda: exchange.phones["411"].talked() > moment)  # noqa: B023
            served.kill()
            served.start()
        kills += is_killed
        exchange.wait_bridged(to)
        wait_for_leg(exchange, PEOPLE[to], number + 2)
        holder = to

    exchange.end()
    legs = [leg for leg in exchange.site.legs() if leg["id"] not in before]
    assert len({leg["call_uniqueid"] for leg in legs}) == 1
    assert {leg["tag"] for leg in legs} == {"INV-22"}
    assert sorted(leg["leg"] for leg in legs) == [*range(1, len(legs) + 1)]
    tell(f"{number + 1} transfers, the server killed in {kills}: one leg of who talks after each")


@ON_22
@pytest.mark.parametrize("loss", ["cut", "silent"])
def test_a_transfer_during_a_lost_connection_is_followed_afterwards(
    exchange: Exchange[SipPhone], loss: str
) -> None:
    with Proxy(exchange.port) as proxy, Served(exchange.site, manager.options(proxy.port)):
        connect(exchange, "caller")
        wait_for_leg(exchange, "Ann", 1)

        proxy.cut() if loss == "cut" else proxy.forget()
        exchange.phones["410"].transfer("412")
        exchange.wait_bridged("412")
        proxy.thaw()

        wait_for_leg(exchange, "Carl", 2)
        assert "recordings are not followed" in exchange.site.log()
        exchange.end()


@ON_22
def test_a_user_who_hears_of_no_call_is_complained_of_and_the_transfer_is_followed_later(
    exchange: Exchange[SipPhone],
) -> None:
    deaf = {**manager.options(exchange.port), "manager.username": manager.DEAF}
    with Served(exchange.site, deaf):
        connect(exchange, "caller")
        wait_for_leg(exchange, "Ann", 1, is_heard_of=False)

        exchange.phones["410"].transfer("412")
        exchange.wait_bridged("412")

        wait_for_leg(exchange, "Carl", 2)
        said = "the manager interface tells of no call"
        wait_until(lambda: said in exchange.site.log(), LIMIT_SECONDS, "the complaint")
        assert exchange.site.log().count(said) == 1
        exchange.end()


def test_a_recording_that_was_stopped_stays_so_through_a_transfer(
    exchange: Exchange[SipPhone], served: Served
) -> None:
    """Also when the recorded channel is gone then, and the server has been started again."""
    before = len(exchange.site.legs())
    connect(exchange, "agent")
    wait_for_leg(exchange, "Ann", 1)
    assert exchange.site.record("stop", "410").returncode == 0
    wait_until(lambda: recording(exchange) == [], LIMIT_SECONDS, "the end of the leg")

    served.stop()
    served.start()
    exchange.phones["410"].transfer("412")
    exchange.wait_bridged("412")
    talked = exchange.phones["411"].talked()
    wait_until(lambda: exchange.phones["411"].talked() > talked + 2, LIMIT_SECONDS, "some talk")

    assert (exchange.mixmonitors(), len(exchange.site.legs())) == (0, before + 1)


@pytest.mark.parametrize("place", ["caller", "agent"])
def test_a_dialplan_that_starts_anew_has_its_own_leg_and_no_other(
    exchange: Exchange[SipPhone], served: Served, place: str
) -> None:
    """It starts before its telephone rings, and the follower looks at it while nobody talks."""
    before = {leg["id"] for leg in exchange.site.legs()}
    connect(exchange, place)
    wait_for_leg(exchange, "Ann", 1)

    exchange.phones["410"].transfer("anew")
    exchange.wait_bridged("412")
    talked = exchange.phones["411"].talked()
    wait_until(lambda: exchange.phones["411"].talked() > talked + 1.5, LIMIT_SECONDS, "some talk")
    exchange.end()

    def new() -> list[tuple[int, str, str]]:
        legs = [leg for leg in exchange.site.legs() if leg["id"] not in before]
        return [(leg["leg"], leg["tag"], leg["owner"]) for leg in legs]

    # The server may bring it in when the call is over already.
    wait_until(lambda: new() == [(1, "INV-22", "Ann"), (2, "ANEW", "Carl")], LIMIT_SECONDS, "both legs", new)
