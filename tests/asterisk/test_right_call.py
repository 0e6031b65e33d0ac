"""The right call, the right owner, and both sides: real telephones whose RTP begins where a test wants it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab import manager, tones
from lab.exchange import LIMIT_SECONDS, Exchange
from lab.phones import Lines
from lab.served import Served
from lab.sip_phone import SipPhone, let_talk
from lab.waiting import wait_until

pytestmark = pytest.mark.asterisk

TONES = {"410": 1004, "411": 425, "412": 700}
# 412's packets lie behind those of 410, modulo 65536 (RFC 3550, 5.1).
FIRST_SEQUENCES = {"410": 100, "411": 7000, "412": 50000}
PACKETS = {"410": 1, "411": 3, "412": 3}  # frames of 20 ms in each; the more, the later one passes
TRIES = 3
DIALPLAN = """
[telephones]
exten => _4XX,1,Dial(PJSIP/${EXTEN})
exten => dialled,1,Answer()
 same => n,Dial(PJSIP/410,20,g)
 same => n,AGI(start_record.py,,after-dial)
 same => n,Wait(60)
exten => queue,1,Answer()
 same => n,Queue(desk,c,,,20,"start_record.py,,in-queue")
 same => n,AGI(start_record.py,,after-queue)
 same => n,Wait(60)
exten => both,1,AGI(start_record.py,,caller)
 same => n,Dial(PJSIP/410,20,U(called))
exten => local,1,AGI(start_record.py,,caller-local)
 same => n,Dial(Local/410@agents/n,20)
exten => twice,1,Answer()
 same => n,AGI(start_record.py,,twice-1)
 same => n,Dial(PJSIP/410,20,g)
 same => n,AGI(start_record.py,,twice-2)
 same => n,Dial(PJSIP/412,20)
exten => hostile,1,Set(CALLERID(num)=${URIDECODE(4%0d%0aBridgeID%3a evil)})
 same => n,AGI(start_record.py,,hostile)
 same => n,Dial(PJSIP/410,20)
exten => parked,1,Answer()
 same => n,Set(CALLERID(num)=${URIDECODE(4%0d%0aParkeeUniqueid%3a )}${VICTIM})
 same => n,Park()
[agents]
exten => 410,1,Dial(PJSIP/410,20,U(called))
[called]
exten => s,1,AGI(start_record.py,,called)
 same => n,Return()
[rec]
exten => s,1,AGI(start_record.py,${ARG1},FORME)
 same => n,Return()
[at-once]
exten => _X.,1,AGI(agi://127.0.0.1:${PORT}/start_record,at/${EXTEN},at-once)
 same => n,Hangup()
[waiting]
exten => s,1,Wait(60)
"""
QUEUES = """
[desk]
strategy = ringall
setinterfacevar = yes
member => PJSIP/410
"""


def plug_in(lines: Lines, extension: str, folder: Path) -> SipPhone:
    return SipPhone(extension, lines.port, TONES[extension], FIRST_SEQUENCES[extension], PACKETS[extension])


@pytest.fixture(
    scope="module",
    params=[pytest.param((22, "pbx22"), id="asterisk22-systemname"), pytest.param((16, ""), id="asterisk16")],
)
def exchange_of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Exchange[SipPhone]]:
    with ExitStack() as stack:
        version, system_name = request.param
        folder, files = tmp_path_factory.mktemp("exchange"), {"queues.conf": QUEUES}
        yield Exchange(version, system_name, folder, stack, DIALPLAN, TONES, plug_in, files)


@pytest.fixture
def exchange(exchange_of_module: Exchange[SipPhone]) -> Iterator[Exchange[SipPhone]]:
    exchange_of_module.configure()
    yield exchange_of_module
    exchange_of_module.end()


def running(exchange: Exchange[SipPhone]) -> list[str]:
    """The MixMonitors of all telephones' channels."""
    shown = [exchange.asterisk.rx(f"mixmonitor list {name}") for name in exchange.channels()]
    return re.findall("0x[0-9a-f]+", " ".join(shown))


def hang_up_of_its_own(exchange: Exchange[SipPhone], extension: str) -> None:
    exchange.wait_bridged(extension)
    exchange.phones[extension].hang_up()


def wait_for_end(exchange: Exchange[SipPhone], leg_id: str) -> None:
    wait_until(lambda: exchange.status(leg_id) != "recording", LIMIT_SECONDS, "the end of the leg")


# ---- Which call


def test_an_extension_means_the_asking_call_though_somebody_else_is_there_now(
    exchange: Exchange[SipPhone],
) -> None:
    """In a subroutine before Dial(PJSIP/410), while 410 talks with somebody else."""
    exchange.connect("411", "410")

    view = exchange.ask("Gosub(rec,s,1(410))")

    leg = exchange.leg(view)
    assert (view.status, leg["tag"], leg["extension"], leg["owner"]) == ("200", "FORME", "410", "Ann")
    assert leg["channel"].startswith("Local/500@test")
    assert view.message == (
        "OK, but this call is meant, for extension 410, which is not on it now; at/410 is the call there"
    )
    assert running(exchange) == []


def test_at_an_extension_means_the_call_there_and_says_which(exchange: Exchange[SipPhone]) -> None:
    exchange.connect("411", "410")
    name = exchange.channel("410")
    which = f"the call of {name} (uniqueid {exchange.channels()[name]})"

    started = exchange.ask("AGI(start_record.py,at/410,THEIRS)")
    exchange.asterisk.rx("channel request hangup Local/500@test")
    refused = exchange.ask("AGI(stop_record.py,410)")
    exchange.asterisk.rx("channel request hangup Local/500@test")
    stopped = exchange.ask("AGI(stop_record.py,at/410)")

    assert (started.status, started.message) == ("200", f"OK, {which}")
    assert exchange.pbx.leg(started)["channel"] == name
    assert refused.status == "409"
    assert "this call is not being recorded" in refused.message
    assert "at/410 is the call there" in refused.message
    assert (stopped.status, stopped.message) == ("200", f"OK, {which}")


# ---- Who is on the call


def test_a_peer_owns_nothing_once_his_call_is_over(exchange: Exchange[SipPhone]) -> None:
    """DIALEDPEERNAME is still that of 410."""
    exchange.phones["411"].dial("dialled")
    hang_up_of_its_own(exchange, "410")

    leg = exchange.running("after-dial")

    assert (leg["owner"], leg["extension"], leg["peer_channel"]) == (None, "411", "")


def test_the_queues_agent_owns_the_leg_while_he_is_there_and_is_found_by_his_uniqueid(
    exchange: Exchange[SipPhone],
) -> None:
    exchange.phones["411"].dial("queue")
    exchange.wait_bridged("410")
    agent = exchange.channel("410")
    uniqueid = exchange.channels()[agent]
    in_queue = exchange.running("in-queue")
    let_talk(exchange.phones.values(), 1)
    exchange.phones["410"].hang_up()
    after = exchange.running("after-queue")

    assert (in_queue["owner"], in_queue["extension"]) == ("Ann", "410")
    assert (in_queue["peer_channel"], in_queue["peer_uniqueid"]) == (agent, uniqueid)
    assert (after["owner"], after["extension"], after["peer_uniqueid"]) == (None, "411", "")
    for asked in {uniqueid, uniqueid.rpartition("-")[2]}:
        assert [leg["id"] for leg in exchange.site.legs("--uniqueid", asked)] == [in_queue["id"]]


def test_a_caller_who_is_parked_makes_nobody_else_look_parked(exchange: Exchange[SipPhone]) -> None:
    """410 talks and is recorded at its other end; one who looks parked is in no conversation."""
    exchange.connect("411", "410")
    victim = exchange.channels()[exchange.channel("410")]
    exchange.ask("AGI(start_record.py,at/411,first)")
    exchange.asterisk.rx("channel request hangup Local/500@test")
    exchange.asterisk.rx(f"dialplan set global VICTIM {victim}")
    exchange.asterisk.originate("parked@telephones", "s@waiting")
    wait_until(
        lambda: "Park" in exchange.asterisk.rx("core show channels"), LIMIT_SECONDS, "the call to be parked"
    )

    second = exchange.ask("AGI(start_record.py,at/410,second)")

    assert (second.status, exchange.leg(second)["channel"]) == ("200", exchange.channel("411"))
    assert len(running(exchange)) == 1


def test_a_caller_who_writes_into_his_event_does_not_look_as_if_he_talked_with_nobody(
    exchange: Exchange[SipPhone],
) -> None:
    exchange.phones["411"].dial("hostile")
    exchange.running("hostile")
    exchange.wait_bridged("410")

    second = exchange.ask("AGI(start_record.py,at/410,second)")

    assert (second.status, exchange.leg(second)["channel"]) == ("200", exchange.channel("411"))
    assert len(running(exchange)) == 1


# ---- One recording for each conversation


@pytest.mark.parametrize("ends", [("410", "411")])
def test_two_starts_at_both_ends_at_once_leave_one_recording_that_stops(
    exchange: Exchange[SipPhone], ends: tuple[str, str]
) -> None:
    exchange.connect("411", "410")
    with Served(exchange.site, manager.options(exchange.port)) as served:
        exchange.asterisk.rx(f"dialplan set global PORT {served.port}")
        for number in range(1, TRIES + 1):
            exchange.asterisk.originate_at_once((f"{end}@at-once", "s@waiting") for end in ends)
            legs = wait_for_ended_starts(exchange, number * len(ends))
            assert len(running(exchange)) == 1
            stopped = exchange.site.record("stop", ends[number % 2])
            assert (stopped.returncode, running(exchange)) == (0, [])
    assert {leg["status"] for leg in legs} <= {"completed", "empty", "recording"}


def wait_for_ended_starts(exchange: Exchange[SipPhone], count: int) -> list[dict[str, Any]]:
    """So many legs, and no call that asks any more."""

    def ended() -> list[dict[str, Any]] | None:
        legs = exchange.site.legs("--tag", "at-once")
        return (
            legs
            if len(legs) == count and "at-once" not in exchange.asterisk.rx("core show channels")
            else None
        )

    return wait_until(ended, LIMIT_SECONDS, f"{count} starts", exchange.site.legs)


@pytest.mark.parametrize(("number", "tag"), [("both", "caller"), ("local", "caller-local")])
def test_a_start_at_the_called_end_replaces_the_callers(
    exchange: Exchange[SipPhone], number: str, tag: str
) -> None:
    """Both by their own dialplan: before Dial(), and by its option U, also behind a Local channel."""
    exchange.phones["411"].dial(number)

    called = exchange.running("called")

    assert len(running(exchange)) == 1
    caller = [leg for leg in exchange.site.legs() if leg["tag"] == tag][-1]
    assert (called["call_record_id"], called["leg"]) == (caller["call_record_id"], 2)
    assert (called["channel"], called["owner"]) == (exchange.channel("411"), "Ann")
    wait_for_end(exchange, caller["id"])


def test_stop_ends_every_leg_of_the_conversation(exchange: Exchange[SipPhone]) -> None:
    """Two began while the other end could not be reached."""
    exchange.site.configure()
    exchange.phones["411"].dial("both")
    wait_until(lambda: len(running(exchange)) == 2, LIMIT_SECONDS, "two recordings")
    exchange.configure()

    stopped = exchange.site.record("stop", "410")

    assert (stopped.returncode, running(exchange)) == (0, [])


# ---- Both sides


def test_the_leg_that_replaces_another_has_both_sides(exchange: Exchange[SipPhone]) -> None:
    """The new partner's sequence numbers lie behind the former one's."""
    exchange.phones["411"].dial("twice")
    exchange.wait_bridged("410")
    exchange.running("twice-1")
    let_talk(exchange.phones.values(), 1)
    exchange.phones["410"].hang_up()
    second = exchange.running("twice-2")
    exchange.wait_bridged("412")
    let_talk(exchange.phones.values(), 1.5)
    exchange.end()

    wait_for_end(exchange, second["id"])
    assert exchange.status(second["id"]) == "completed"
    shares = {extension: tones.share(Path(second["file"]), hertz) for extension, hertz in TONES.items()}
    assert min(shares["411"], shares["412"]) > 0.3
    assert shares["410"] < 0.05
