"""Each file of dialplan-examples, included as it stands, with SIP telephones at both ends of its calls."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from lab import asterisk, manager, scenes
from lab.exchange import LIMIT_SECONDS, Exchange
from lab.scenes import EXAMPLES, SCENES, Leg
from lab.served import Served
from lab.sip_phone import SipPhone, let_talk
from lab.waiting import wait_until

from noojee_agi.web import direction

pytestmark = pytest.mark.asterisk

_DIRECTIONS = {"outbound": direction.OUTBOUND, "on-demand": direction.INTERNAL}
_MORE = """
exten => unlogged,1,Set(apiKey=wrong)
 same => n,Gosub(record-or-log,s,1(410,INV-22,Ann))
 same => n,Dial(PJSIP/410)
exten => inside-16,1,Set(EXTTOCALL=410)
 same => n,Macro(dialout-one-predial-hook)
 same => n,Dial(PJSIP/410)
exten => outside,1,Set(AMPUSER=411)
 same => n,Gosub(macro-dialout-trunk-predial-hook,s,1)
 same => n,Dial(PJSIP/trunk)
"""


# For what test_it_records_for_whom_it_should has played on both already, in part.
ON_ONE = pytest.mark.parametrize(
    "exchange_of_module", [22], ids=["asterisk22"], indirect=True, scope="module"
)


@pytest.fixture(scope="module", params=[pytest.param(22, id="asterisk22"), pytest.param(16, id="asterisk16")])
def exchange_of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Exchange[SipPhone]]:
    with ExitStack() as stack:
        yield scenes.exchange(request.param, SCENES, tmp_path_factory.mktemp("examples"), stack, _MORE)


@pytest.fixture
def exchange(exchange_of_module: Exchange[SipPhone]) -> Iterator[Exchange[SipPhone]]:
    exchange_of_module.configure()
    yield exchange_of_module
    exchange_of_module.end()


def test_run_shows_steps_legs_and_who_is_heard() -> None:
    """As dialplan-examples/run does, which makes the virtual environment first."""
    asterisk.find(None)  # who downloads it says so
    words = [sys.executable, "-m", "lab.live_example", "inbound-direct"]
    shown = subprocess.run(words, cwd=EXAMPLES.parent / "tests", capture_output=True, text=True, check=False)

    assert (shown.returncode, shown.stderr) == (0, "")
    for part in ("Dial(PJSIP/410", "AGI(start_record.py,,INV-22)", "Ann", "████", "The call was recorded"):
        assert part in shown.stdout
    for part in (
        "CallManagementAPI/start?extenOrUniqueId=410",
        '"Code": 0',
        '"RecordingId"',
        "It was recorded.",
    ):
        assert part in shown.stdout


def test_every_example_has_its_scene() -> None:
    parts = {"queues", "features"}

    assert {path.stem for path in EXAMPLES.glob("*.conf")} - parts == set(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_it_records_for_whom_it_should(exchange: Exchange[SipPhone], name: str) -> None:
    """And the API tells which way the call went."""
    legs = scenes.play(exchange, SCENES[name])

    assert [leg["status"] for leg in legs] == ["completed"] * len(legs)
    assert tuple(map(scenes.seen, legs)) == (SCENES[name].legs or tuple(map(_of_the_group, legs)))
    assert direction.of_call(legs, {"410", "411"}) == _DIRECTIONS.get(name, direction.INBOUND)


def _of_the_group(leg: dict[str, str]) -> Leg:
    """Who answered first: its channel says it."""
    answered = leg["channel"].partition("/")[2].partition("-")[0]
    return Leg({"410": "Ann", "411": "Fred"}[answered], "INV-22", (answered, "trunk"))


@pytest.mark.parametrize("number", ["0030999", "outside"])
def test_an_outbound_call_is_recorded_also_without_a_reference(
    exchange: Exchange[SipPhone], number: str
) -> None:
    """outside: as FreePBX calls through a trunk."""

    def call(made: Exchange[SipPhone]) -> None:
        made.phones["411"].dial(number)
        made.wait_bridged("trunk")
        scenes.talk(made)

    (leg,) = scenes.play(exchange, SCENES["outbound"]._replace(call=call))

    assert scenes.seen(leg) == Leg("Fred", "", ("411", "trunk"))


def test_freepbx_up_to_16_looks_into_the_same_contexts_with_macro(exchange: Exchange[SipPhone]) -> None:
    """Asterisk 21 has no app_macro any more, and FreePBX 17 no such line."""
    if not (exchange.asterisk.installation.modules / "app_macro.so").exists():
        return
    exchange.phones["trunk"].dial("inside-16")
    exchange.wait_bridged("410")

    scenes.talk(exchange)

    assert exchange.site.legs()[-1]["owner"] == "Ann"


@ON_ONE
def test_with_the_server_one_fastagi_session_records(exchange: Exchange[SipPhone]) -> None:
    options = {**manager.options(exchange.port), "server.listen": "127.0.0.1:4573"}
    with Served(exchange.site, options) as served:
        legs = scenes.play(exchange, SCENES["fastagi"])

        assert tuple(map(scenes.seen, legs)) == SCENES["fastagi"].legs
        served.wait_for("sessions", 1)


@ON_ONE
def test_hot_desks_with_the_database_away_all_the_time(exchange: Exchange[SipPhone]) -> None:
    """Login, call and logout: the snapshot and the spool are enough, and the owner is right afterwards."""
    before, files = {leg["id"] for leg in exchange.site.legs()}, set(exchange.site.audio_files())
    away = {"database.url": "postgresql+psycopg2://noojee@127.0.0.1:1/away"}
    exchange.site.configure({**manager.options(exchange.port), **away})
    scenes.log_in(exchange)
    assert "Local/411@agents" in exchange.asterisk.rx("queue show support")
    exchange.phones["trunk"].dial("5550110")
    exchange.wait_bridged("411")
    wait_until(lambda: set(exchange.site.audio_files()) - files, LIMIT_SECONDS, "the recording")
    let_talk(exchange.phones.values(), 1)
    exchange.end()
    scenes.log_out(exchange)
    assert "Local/411@agents" not in exchange.asterisk.rx("queue show support")

    exchange.configure()
    assert scenes.new_legs(exchange, before) == []  # until now, nothing came in

    def brought_in() -> list[dict[str, Any]]:
        exchange.site.cli("sync")  # the last call's own drain may be at work yet, without a database
        return scenes.new_legs(exchange, before)

    (leg,) = wait_until(brought_in, LIMIT_SECONDS, "the leg")
    assert scenes.seen(leg) == Leg("Ann", "INV-22", ("411", "trunk"))
    accounts = {
        each["login"]: each["extensions"]
        for each in json.loads(exchange.site.cli("account", "list", "--json"))
    }
    assert accounts == {"Ann": ["410"], "Fred": []}
    exchange.site.cli("attach", "Fred", "411")


def test_hot_desks_know_no_agent_of_an_unknown_number(exchange: Exchange[SipPhone]) -> None:
    exchange.phones["411"].dial("*55999")
    exchange.phones["411"].wait_idle()

    assert "Local/411@agents" not in exchange.asterisk.rx("queue show support")
    said = "there is no agentLoginName"
    wait_until(lambda: said in exchange.asterisk.log(), LIMIT_SECONDS, "the reason", exchange.asterisk.log)


def test_a_key_refuses_and_no_leg_is_made(exchange: Exchange[SipPhone]) -> None:
    before = exchange.site.legs()
    exchange.phones["trunk"].dial("5550103")
    wait_until(
        lambda: "!Read!" in exchange.asterisk.rx("core show channels concise"), LIMIT_SECONDS, "the question"
    )

    exchange.phones["trunk"].press("5")
    exchange.wait_bridged("410")

    assert exchange.site.legs() == before


def test_without_the_announcement_nothing_is_recorded(exchange: Exchange[SipPhone]) -> None:
    before = exchange.site.legs()
    (sound,) = (exchange.asterisk.installation.data / "sounds/en").iterdir()
    away = sound.rename(sound.with_suffix(".away"))
    try:
        exchange.phones["trunk"].dial("5550103")
        exchange.wait_bridged("410")
    finally:
        away.rename(sound)

    assert exchange.site.legs() == before


def test_a_caller_who_gives_up_before_an_agent_answers_is_no_warning(exchange: Exchange[SipPhone]) -> None:
    ended = "Executing [h@telephones:1]"
    before, said = exchange.asterisk.log().count(ended), len(exchange.asterisk.messages())
    exchange.phones["410"].answers = False
    try:
        exchange.phones["trunk"].dial("5550100")

        exchange.phones["trunk"].hang_up()

        exchange.end()
    finally:
        exchange.phones["410"].answers = True

    def has_ended() -> bool:
        return exchange.asterisk.log().count(ended) > before

    wait_until(has_ended, LIMIT_SECONDS, "the end", exchange.asterisk.log)
    assert "has no recording" not in exchange.asterisk.messages()[said:]


def test_what_is_not_recorded_is_a_warning_with_the_reason(exchange: Exchange[SipPhone]) -> None:
    exchange.phones["trunk"].dial("unlogged")
    exchange.wait_bridged("410")

    said = "has no new recording: 401 the channel variable apiKey is not"
    told = exchange.asterisk.messages
    wait_until(lambda: said in told(), LIMIT_SECONDS, "the warning", told)
