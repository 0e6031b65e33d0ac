"""Each file of dialplan-examples, included as it stands, with SIP telephones at both ends of its calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab import manager, tones
from lab.exchange import Exchange
from lab.phones import Lines
from lab.served import Served
from lab.sip_phone import SipPhone
from lab.waiting import wait_until

pytestmark = pytest.mark.asterisk

EXAMPLES = Path(__file__).resolve().parents[2] / "dialplan-examples"
TONES = {"410": 1004, "411": 425, "trunk": 700}
AUDIBLE = 0.1  # of the file's power
# What is dialled decides the context: in the examples each is that of a trunk or of some telephones.
DIALPLAN = f"""
#include {EXAMPLES}/inbound-queue-waiting.conf
#include {EXAMPLES}/inbound-direct.conf
#include {EXAMPLES}/inbound-announcement.conf
#include {EXAMPLES}/ring-group.conf
#include {EXAMPLES}/outbound.conf
#include {EXAMPLES}/on-demand.conf
#include {EXAMPLES}/transfer-target.conf
#include {EXAMPLES}/fastagi.conf
#include {EXAMPLES}/record-or-log.conf
#include {EXAMPLES}/freepbx.conf
[telephones]
include => inbound-queue-waiting
include => inbound-direct
include => inbound-announcement
include => ring-group
include => outbound
include => on-demand
include => transfer-source
include => inbound-fastagi
exten => logged,1,Gosub(record-or-log,s,1(410,INV-22,Ann))
 same => n,Dial(PJSIP/410)
exten => unlogged,1,Set(apiKey=wrong)
 same => n,Gosub(record-or-log,s,1(410,INV-22,Ann))
 same => n,Dial(PJSIP/410)
exten => inside,1,Set(EXTTOCALL=410)
 same => n,Gosub(sub-dialout-one-predial-hook,s,1)
 same => n,Dial(PJSIP/410)
exten => inside-16,1,Set(EXTTOCALL=410)
 same => n,Macro(dialout-one-predial-hook)
 same => n,Dial(PJSIP/410)
exten => outside,1,Set(AMPUSER=411)
 same => n,Gosub(macro-dialout-trunk-predial-hook,s,1)
 same => n,Dial(PJSIP/trunk)
"""
AGENTS = """
[agents]
exten => 410,1,Dial(PJSIP/410)
"""


def plug_in(lines: Lines, extension: str, folder: Path) -> SipPhone:
    return SipPhone(extension, lines.port, TONES[extension], 7000)


@pytest.fixture(
    scope="module",
    params=[pytest.param(22, id="asterisk22"), pytest.param(16, id="asterisk16")],
)
def exchange_of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Exchange[SipPhone]]:
    files = {name: (EXAMPLES / name).read_text() for name in ("queues.conf", "features.conf")}
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("examples")
        made: Exchange[SipPhone] = Exchange(
            request.param, "", folder, stack, DIALPLAN + AGENTS, TONES, plug_in, files
        )
        made.site.cli("attach", "Fred", "411")
        made.asterisk.rx("database put reference 030123 INV-22")
        yield made


@pytest.fixture
def exchange(exchange_of_module: Exchange[SipPhone]) -> Iterator[Exchange[SipPhone]]:
    exchange_of_module.configure()
    yield exchange_of_module
    exchange_of_module.end()


def recorded(exchange: Exchange[SipPhone], caller: str, number: str, called: str) -> list[dict[str, Any]]:
    """The legs of a call from caller to number, which called answers, once it is over and both were heard."""
    known = {leg["id"] for leg in exchange.site.legs()}
    exchange.phones[caller].dial(number)
    exchange.wait_bridged(called)

    def new() -> list[dict[str, Any]]:
        return [leg for leg in exchange.site.legs() if leg["id"] not in known]

    def running() -> list[dict[str, Any]]:
        return [leg for leg in new() if leg["status"] == "recording"]

    leg = wait_until(running, 20, "a leg that records")[0]
    begun = Path(leg["file"]).stat().st_size
    wait_until(lambda: Path(leg["file"]).stat().st_size > begun + 24000, 20, "1.5 s of audio")
    exchange.end()
    wait_until(lambda: not running(), 20, "the legs to end")
    return new()


def heard(leg: dict[str, Any], *parties: str) -> bool:
    shares = {party: tones.share(Path(leg["file"]), hertz) for party, hertz in TONES.items()}
    return {party for party, share in shares.items() if share > AUDIBLE} == set(parties)


@pytest.mark.parametrize(
    ("number", "owner", "tag"),
    [
        ("5550101", "Ann", "INV-22"),
        ("5550103", "Ann", "INV-22"),
        ("5550105", "Ann", "INV-22"),
        ("5550106", "Ann", "INV-22"),
        ("logged", "Ann", "INV-22"),
        ("inside", "Ann", ""),
    ],
)
def test_an_inbound_call_is_recorded_for_who_answers(
    exchange: Exchange[SipPhone], number: str, owner: str, tag: str
) -> None:
    (leg,) = recorded(exchange, "trunk", number, "410")

    assert (leg["owner"], leg["tag"], leg["status"]) == (owner, tag, "completed")
    assert heard(leg, "trunk", "410")


def test_freepbx_up_to_16_looks_into_the_same_contexts_with_macro(exchange: Exchange[SipPhone]) -> None:
    """Asterisk 21 has no app_macro any more, and FreePBX 17 no such line."""
    if not (exchange.asterisk.installation.modules / "app_macro.so").exists():
        return
    (leg,) = recorded(exchange, "trunk", "inside-16", "410")

    assert leg["owner"] == "Ann"


@pytest.mark.parametrize(("number", "tag"), [("0030123", "INV-22"), ("0030999", ""), ("outside", "")])
def test_an_outbound_call_is_recorded_for_who_has_dialled(
    exchange: Exchange[SipPhone], number: str, tag: str
) -> None:
    (leg,) = recorded(exchange, "411", number, "trunk")

    assert (leg["owner"], leg["tag"]) == ("Fred", tag)
    assert heard(leg, "trunk", "411")


def test_with_the_server_one_fastagi_session_records(exchange: Exchange[SipPhone]) -> None:
    options = {**manager.options(exchange.port), "server.listen": "127.0.0.1:4573"}
    with Served(exchange.site, options) as served:
        (leg,) = recorded(exchange, "trunk", "5550106", "410")

        assert (leg["owner"], leg["tag"]) == ("Ann", "INV-22")
        assert served.status()["sessions"] == 1


def test_in_a_queue_the_waiting_is_a_leg_of_its_own(exchange: Exchange[SipPhone]) -> None:
    first, second = recorded(exchange, "trunk", "5550104", "410")

    assert [(leg["leg"], leg["owner"], leg["tag"]) for leg in (first, second)] == [
        (1, None, "INV-22"),
        (2, "Ann", "INV-22"),
    ]
    assert heard(second, "trunk", "410")


def test_whoever_answers_in_a_ring_group_owns_the_recording(exchange: Exchange[SipPhone]) -> None:
    known = {leg["id"] for leg in exchange.site.legs()}
    exchange.phones["trunk"].dial("5550102")

    def new() -> list[dict[str, Any]]:
        return [leg for leg in exchange.site.legs() if leg["id"] not in known]

    (leg,) = wait_until(new, 20, "a leg")
    answered = leg["channel"].partition("/")[2].partition("-")[0]
    assert (answered, leg["owner"]) in {("410", "Ann"), ("411", "Fred")}


def test_a_key_refuses_and_no_leg_is_made(exchange: Exchange[SipPhone]) -> None:
    before = exchange.site.legs()
    exchange.phones["trunk"].dial("5550103")

    exchange.phones["trunk"].press("5")
    exchange.wait_bridged("410")

    assert exchange.site.legs() == before


def test_keys_start_and_stop_a_recording_during_the_conversation(exchange: Exchange[SipPhone]) -> None:
    known = {leg["id"] for leg in exchange.site.legs()}

    def statuses() -> list[tuple[str, str | None]]:
        new = [leg for leg in exchange.site.legs() if leg["id"] not in known]
        return [(leg["status"], leg["owner"]) for leg in new]

    exchange.phones["411"].dial("410")
    exchange.wait_bridged("410")
    assert statuses() == []

    exchange.phones["410"].press("*3")
    wait_until(lambda: statuses() == [("recording", "Ann")], 20, "a leg of Ann's", statuses)
    exchange.phones["410"].press("*4")
    wait_until(lambda: statuses() == [("completed", "Ann")], 20, "its end", statuses)


def test_whoever_takes_over_a_transferred_call_owns_the_next_leg(exchange: Exchange[SipPhone]) -> None:
    known = {leg["id"] for leg in exchange.site.legs()}

    def owners() -> list[tuple[int, str, str]]:
        new = [leg for leg in exchange.site.legs() if leg["id"] not in known]
        return [(leg["leg"], leg["owner"], leg["status"]) for leg in new]

    exchange.phones["trunk"].dial("5550105")
    exchange.wait_bridged("410")
    exchange.phones["410"].transfer("411")
    exchange.wait_bridged("411")

    expected = [(1, "Ann", "completed"), (2, "Fred", "recording")]
    wait_until(lambda: owners() == expected, 20, "two legs", owners)


def test_what_is_not_recorded_is_a_warning_with_the_reason(exchange: Exchange[SipPhone]) -> None:
    exchange.phones["trunk"].dial("unlogged")
    exchange.wait_bridged("410")

    assert "is not recorded: 401 the channel variable apiKey is not" in exchange.asterisk.messages()
