"""What is said while a recording is paused is in no file: real Asterisks, with SIP telephones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lab import manager, office, tones
from lab.exchange import LIMIT_SECONDS
from lab.office import ANN, CARL, CUSTOMER, PLACES, TALK_SECONDS, TONES, Office, Played
from lab.pbx import View
from lab.proxy import Proxy
from lab.served import Served
from lab.transitions import ALONE, CONSULTING, consult, reach_ann
from lab.waiting import wait_until

pytestmark = pytest.mark.asterisk

SECRETS = (ALONE, CONSULTING)  # what is played while it is paused
BESIDE = (1700, 2100, 2500)  # what nobody plays: the noise floor
LOUD = 0.12  # a telephone's tone has 0.24
ROUNDS, LONG_ROUNDS = 2, 20
# A call is recorded at either end, on either Asterisk. What is said while it is paused is tried with each of
# both at each, the rest at one end on the one, and at the other end on the other.
AT_EACH_PLACE = pytest.mark.parametrize(
    ("at", "place"), [*zip((22, 16), PLACES, strict=True)], indirect=["at"]
)


@pytest.fixture(scope="module")
def office_of_version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Office]]:
    """One on each Asterisk, opened when it is first asked for."""
    with ExitStack() as stack:
        yield functools.cache(
            lambda version: office.office(version, tmp_path_factory.mktemp("office"), stack)
        )


@pytest.fixture(params=[22, 16], ids=["asterisk22", "asterisk16"])
def at(request: pytest.FixtureRequest, office_of_version: Callable[[int], Office]) -> Office:
    return office_of_version(request.param)


# ---- What is done, and what is to be heard


def record(at: Office, what: str, extension: str, *more: str) -> str:
    """The status."""
    done = at.exchange.site.record(what, extension, *more)
    return (done.stdout or done.stderr.removeprefix("Error: "))[:3]


def tell_secrets(at: Office, *pair: str) -> None:
    """Both say for a while what nobody shall hear afterwards."""
    for extension, hertz in zip(pair, SECRETS, strict=True):
        at.phones[extension].say(hertz)
    office.talk(at, *pair, seconds=0.4)
    for extension in pair:
        at.phones[extension].say(TONES[extension])
    office.talk(at, *pair, seconds=0.1)  # or Asterisk may still have to read some of it


def levels(leg: dict[str, Any], hertz: int) -> list[float]:
    return tones.levels(Path(leg["file"]), hertz, 20)


def assert_no_secret(played: Played) -> None:
    """Not above what is there anyway, in any frame."""
    for leg in played.legs:
        floor = max(level for hertz in BESIDE for level in levels(leg, hertz))
        assert {hertz: max(levels(leg, hertz)) <= 1.5 * floor for hertz in SECRETS} == dict.fromkeys(
            SECRETS, True
        )


def assert_legs(played: Played, *expected: tuple[str, str]) -> None:
    """Of which owner, and with whom the customer talks in it for as long as he did."""
    legs = [(leg["leg"], leg["status"], leg["tag"], leg["owner"]) for leg in played.legs]
    assert legs == [(number, "completed", "IN", owner) for number, (owner, _) in enumerate(expected, 1)]
    for leg, (_, other) in zip(played.legs, expected, strict=True):
        both = [
            min(pair) for pair in zip(*(levels(leg, TONES[who]) for who in (CUSTOMER, other)), strict=True)
        ]
        assert sum(level > LOUD for level in both) * 0.02 > TALK_SECONDS / 2
    assert_no_secret(played)


# ---- The calls


def paused(at: Office, place: str) -> None:
    reach_ann(at, f"in-{place}")
    assert record(at, "pause", ANN) == "200"
    tell_secrets(at, CUSTOMER, ANN)
    assert record(at, "resume", ANN) == "200"
    office.talk(at, ANN, CUSTOMER)


def transferred(at: Office, place: str, restarts: bool = False) -> None:
    """To Carl, who resumes it. restarts: the server is killed while it is paused, and started again."""
    reach_ann(at, f"in-{place}")
    # As soon as the database knows whose it is.
    wait_until(lambda: record(at, "pause", CUSTOMER, "--login", "Ann") == "200", LIMIT_SECONDS, "the pause")
    tell_secrets(at, CUSTOMER, ANN)
    if restarts:
        at.server.kill()
    at.phones[ANN].transfer(CARL)
    office.talk(at, CUSTOMER, CARL, seconds=0.1)
    if restarts:
        at.server.start()
    tell_secrets(at, CUSTOMER, CARL)
    assert record(at, "resume", CARL) == "200"
    office.talk(at, CUSTOMER, CARL)


def asked_for_first(at: Office, place: str) -> None:
    """Ann pauses, asks Carl while the customer waits, and puts them together; nobody resumes it."""
    reach_ann(at, f"in-{place}")
    assert record(at, "pause", ANN) == "200"
    at.phones[ANN].hold()
    at.phones[ANN].dial(CARL)
    consult(at)
    at.phones[ANN].join()
    tell_secrets(at, CUSTOMER, CARL)


def parked(at: Office, place: str) -> None:
    """It is paused while the call is parked, when nothing is recorded anyway."""
    reach_ann(at, f"in-{place}")
    at.phones[ANN].transfer("700", is_patient=True)
    (event,) = wait_until(lambda: at.listener.seen("ParkedCall"), LIMIT_SECONDS, "the parking")
    wait_until(lambda: record(at, "pause", CUSTOMER) == "200", LIMIT_SECONDS, "the pause")
    at.phones[CARL].dial(event["ParkingSpace"])
    tell_secrets(at, CUSTOMER, CARL)


# ---- Tests


@pytest.mark.parametrize("place", PLACES)
def test_what_is_said_while_it_is_paused_is_in_no_file(at: Office, place: str) -> None:
    assert_legs(office.play(at, paused, place), ("Ann", ANN), ("Ann", ANN))


@AT_EACH_PLACE
@pytest.mark.parametrize("restarts", [False, True], ids=["served", "server killed"])
def test_a_paused_call_stays_so_through_a_transfer(at: Office, place: str, restarts: bool) -> None:
    played = office.play(at, partial(transferred, restarts=restarts), place)

    assert_legs(played, ("Ann", ANN), ("Carl", CARL))


@AT_EACH_PLACE
@pytest.mark.parametrize("call", [asked_for_first, parked])
def test_a_paused_call_is_not_recorded_again_by_itself(at: Office, place: str, call: office.Call) -> None:
    assert_legs(office.play(at, call, place), ("Ann", ANN))


@AT_EACH_PLACE
def test_a_refusal_leaves_it_as_it_is(at: Office, place: str) -> None:
    def refused(at: Office, place: str) -> None:
        reach_ann(at, f"in-{place}")
        assert record(at, "resume", ANN) == "409"
        assert [record(at, what, ANN, "--login", "Carl") for what in ("pause", "stop")] == ["403", "403"]
        office.talk(at, ANN, CUSTOMER)
        assert record(at, "pause", ANN) == "200"
        tell_secrets(at, CUSTOMER, ANN)
        assert record(at, "pause", ANN) == "409"
        assert [record(at, what, ANN, "--login", "Carl") for what in ("resume", "stop")] == ["403", "403"]
        tell_secrets(at, CUSTOMER, ANN)

    assert_legs(office.play(at, refused, place), ("Ann", ANN))


@AT_EACH_PLACE
def test_a_stop_ends_the_pause_and_a_start_does(at: Office, place: str) -> None:
    def ended(at: Office, place: str) -> None:
        reach_ann(at, f"in-{place}")
        assert record(at, "pause", ANN) == "200"
        assert record(at, "stop", CUSTOMER) == "200"
        assert record(at, "resume", ANN) == "409"
        tell_secrets(at, CUSTOMER, ANN)
        assert record(at, "start", CUSTOMER, "--tag", "IN", "--login", "Ann") == "200"
        assert record(at, "resume", ANN) == "409"
        assert record(at, "pause", ANN) == "200"
        assert record(at, "start", ANN, "--tag", "IN") == "200"
        assert record(at, "resume", ANN) == "409"
        office.talk(at, ANN, CUSTOMER)

    played = office.play(at, ended, place)

    assert [leg["owner"] for leg in played.legs] == ["Ann"] * 3
    assert_no_secret(played)


def state(at: Office) -> set[str]:
    """What the channels of both say of it."""
    names = at.exchange.channels()
    said = [at.exchange.asterisk.rx(f"core show channel {name}") for name in names]
    lines = [line for text in said for line in text.splitlines()]
    return {line.partition("=")[2] for line in lines if "RECORDING_STATE=" in line}


@pytest.mark.parametrize("other", ["pause", "stop", "start"])
def test_two_at_once_leave_one_of_both(at: Office, other: str, is_long: bool) -> None:
    """Whichever comes last: it records, is paused, or has been stopped, and the channels say which."""

    def at_once(at: Office, place: str) -> None:
        reach_ann(at, f"in-{place}")
        for _ in range(LONG_ROUNDS if is_long else ROUNDS):
            with ThreadPoolExecutor(2) as pool:
                pause = pool.submit(record, at, "pause", ANN)
                statuses = [pool.submit(record, at, other, CUSTOMER).result(), pause.result()]
            runs = at.exchange.mixmonitors()
            assert "200" in statuses
            assert {*statuses} <= {"200", "409"}
            assert runs <= (other == "start")
            resumed = record(at, "resume", ANN)
            assert resumed == ("409" if runs or (other == "stop" and statuses[0] == "200") else "200")
            if other == "stop":
                assert record(at, "start", CUSTOMER) == "200"
            assert (at.exchange.mixmonitors(), state(at)) == (1, {"recording"})

    played = office.play(at, at_once, "customer")

    assert {leg["status"] for leg in played.legs} <= {"completed", "empty"}


WAYS = ("program alone", "handed over", "FastAGI")
# How the program and the server come to a call is Asterisk's; that one hands it over to the other is not.
BY_EACH_WAY = pytest.mark.parametrize(
    ("at", "way"),
    [*((22, way) for way in WAYS), (16, "program alone"), (16, "FastAGI")],
    indirect=["at"],
)


@contextmanager
def way_in(at: Office, way: str, manager_port: int) -> Iterator[str]:
    """What stands before a program's name. manager_port: 0 for no manager interface."""
    options = manager.options(manager_port) if manager_port else {}
    at.server.stop()
    try:
        with Served(at.exchange.site, options) as served:
            if way == "program alone":
                served.stop()
            yield f"agi://127.0.0.1:{served.port}/" if way == "FastAGI" else ""
    finally:
        at.exchange.pbx.hang_up()
        at.server.start()


def ask(at: Office, before: str, *programs: str) -> View:
    """A call whose dialplan runs these, some talk between them; what it sees then, while it goes on."""
    suffix = "" if before else ".py"
    return at.exchange.ask("\nWait(0.3)\n".join(f"AGI({before}{program}{suffix},,,)" for program in programs))


@BY_EACH_WAY
def test_without_a_manager_interface_a_call_pauses_its_own_recording(at: Office, way: str) -> None:
    with way_in(at, way, manager_port=0) as before:
        view = ask(at, before, "start_record", "pause_record")
        assert (view.status, view.message) == ("200", "OK")
        at.exchange.pbx.leg(view, status="completed")
        at.exchange.pbx.hang_up()

        view = ask(at, before, "start_record", "pause_record", "resume_record")
        assert (view.status, view.message) == ("200", "OK")
        assert at.exchange.leg(view)["leg"] == 2


@BY_EACH_WAY
def test_a_pause_without_an_answer_of_the_manager_interface_stops_what_it_can_and_says_so(
    at: Office, way: str
) -> None:
    with Proxy(at.exchange.port) as proxy, way_in(at, way, proxy.port) as before:
        proxy.freeze()
        view = ask(at, before, "start_record", "pause_record")

        assert view.status == "503"
        assert view.message.startswith("what could be reached has ended, but something may go on: ")
        legs = at.exchange.site.legs

        def are_over() -> bool:
            return {leg["status"] for leg in legs()} <= {"completed", "empty"}

        wait_until(are_over, LIMIT_SECONDS, "its end", legs)
