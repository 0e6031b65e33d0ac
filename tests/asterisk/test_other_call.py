"""Any live call, by extension or uniqueid: real telephones, and a third party who records their calls."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from lab import manager, tones
from lab.exchange import Exchange
from lab.pbx import View
from lab.phones import Lines, Phone
from lab.postgresql import free_port
from lab.proxy import Proxy
from lab.served import Served
from lab.waiting import wait_until

pytestmark = pytest.mark.asterisk

EXAMPLE = Path(__file__).resolve().parents[2] / "dialplan-examples/supervisor.conf"
TONES = {"410": 425, "411": 1004, "412": 700, "413": 600}
RINGS = "413"  # until it is told to answer; the others do so by themselves
DIALPLAN = f"""
#include {EXAMPLE}
[telephones]
include => supervisor
exten => _4XX,1,Dial(PJSIP/${{EXTEN}})
exten => _5XX,1,AGI(start_record.py,,by-itself,Fred)
 same => n,Dial(PJSIP/4${{EXTEN:1}})
exten => park,1,Answer()
 same => n,Park()
exten => room,1,Answer()
 same => n,ConfBridge(room)
exten => moved,1,Answer()
 same => n,Wait(60)
"""
# Calling numbers: other ids, another answer, and another event.
WRITE_INTO_THE_LIST = (
    "4%0d%0aUniqueid%3a evil%0d%0aLinkedid%3a evil",
    "4%0d%0aActionID%3a x",
    "4%0d%0a%0d%0aEvent%3a Status",
)
REFUSED_WITHIN_SECONDS = 3.0
ATTEMPTS = 6
START = "AGI(start_record.py,{},other,Fred)"


def plug_in(lines: Lines, extension: str, folder: Path) -> Phone:
    return Phone(lines, extension, TONES[extension], folder, answers=extension != RINGS)


ASTERISK_22 = pytest.param((22, "pbx22"), id="asterisk22-systemname")
ASTERISK_16 = pytest.param((16, ""), id="asterisk16")


@pytest.fixture(scope="module", params=[ASTERISK_22, ASTERISK_16])
def exchange_of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Exchange[Phone]]:
    with ExitStack() as stack:
        version, system_name = request.param
        folder = tmp_path_factory.mktemp("exchange")
        yield Exchange(version, system_name, folder, stack, DIALPLAN, TONES, plug_in)


@pytest.fixture
def exchange(exchange_of_module: Exchange[Phone]) -> Iterator[Exchange[Phone]]:
    exchange_of_module.configure()
    yield exchange_of_module
    exchange_of_module.end()


def which(exchange: Exchange[Phone], name: str) -> str:
    """What a message says of another call."""
    return f"the call of {name} (uniqueid {exchange.channels()[name]})"


# ---- The example


def test_a_third_party_records_the_call_of_two_telephones_by_feature_codes(exchange: Exchange[Phone]) -> None:
    exchange.connect("411", "410")
    supervisor = exchange.phones["412"]
    channels = exchange.channels().keys()

    supervisor.dial("*7410")
    (leg,) = wait_until(lambda: exchange.site.legs("--status", "recording"), 20, "a leg that records")
    supervisor.wait_idle()
    exchange.wait_for_audio(leg["file"], 2)
    supervisor.dial("*8410")
    wait_until(lambda: exchange.status(leg["id"]) == "completed", 20, "the end of the leg")
    (ended,) = exchange.site.legs("--id", leg["id"])
    supervisor.wait_idle()

    assert (leg["owner"], leg["extension"], leg["channel"]) == ("Ann", "410", exchange.channel("410"))
    # The call goes on; a telephone is idle before its channel has gone.
    wait_until(lambda: exchange.channels().keys() == channels, 20, "that call alone", exchange.channels)
    recording = Path(ended["file"])
    assert tones.duration(recording) > 1.9
    assert min(tones.share(recording, TONES["410"]), tones.share(recording, TONES["411"])) > 0.3
    assert tones.share(recording, TONES["412"]) < 0.05


# ---- Ways of naming a call


@pytest.mark.parametrize(
    "naming",
    [
        lambda name, uniqueid: "at/410",
        lambda name, uniqueid: f"at/{name}",
        lambda name, uniqueid: uniqueid.rpartition("-")[2],
        lambda name, uniqueid: f"at/{uniqueid}",
    ],
    ids=["extension", "channel", "without the system's name", "at a uniqueid"],
)
def test_each_way_of_naming_a_call(exchange: Exchange[Phone], naming: Callable[[str, str], str]) -> None:
    """Their variants are in unit/test_live.py."""
    exchange.connect()
    name = exchange.channel("410")
    uniqueid = exchange.channels()[name]

    view = exchange.ask(START.format(naming(name, uniqueid)))

    assert (view.status, view.message) == ("200", f"OK, {which(exchange, name)}")
    leg = exchange.leg(view)
    assert (leg["channel"], leg["uniqueid"], leg["owner"], leg["tag"]) == (name, uniqueid, "Fred", "other")
    assert leg["call_uniqueid"] == exchange.channels()[exchange.channel("411")]
    assert (leg["source"], leg["destination"]) == ("411", "410")


def test_the_recorded_calls_own_dialplan_is_told_too(exchange: Exchange[Phone]) -> None:
    exchange.connect()

    view = exchange.ask(START.format("at/410"))

    shown = exchange.asterisk.rx(f"core show channel {exchange.channel('410')}")
    assert f"RECORDING_STATUS={view.status}\n" in shown
    assert f"RECORDING_MESSAGE={view.message}\n" in shown
    assert f"RECORDING_ID={view.leg_id}\n" in shown
    assert f"RECORDING_FILE={view.file}\n" in shown
    assert exchange.site.key not in shown


def test_a_recording_of_another_call_ends_with_that_call(exchange: Exchange[Phone]) -> None:
    exchange.connect()
    view = exchange.ask(START.format("at/410"))
    exchange.wait_for_audio(view.file, 1)

    exchange.phones["410"].hang_up()

    leg = exchange.pbx.leg(view)
    assert leg["bytes"] == Path(view.file).stat().st_size
    side_car = Path(view.file).with_suffix(".json")  # is written after the commit
    wait_until(
        lambda: side_car.exists() and json.loads(side_car.read_text())["status"] == "completed",
        20,
        "the side-car",
    )


def test_who_is_not_there_is_404(exchange: Exchange[Phone]) -> None:
    exchange.connect()
    legs = exchange.site.legs()

    for asked in ("499", "1700000000.1"):
        view = exchange.ask(START.format(f"at/{asked}"))
        assert (view.status, view.leg_id, view.agi_status) == ("404", "", "SUCCESS")
        exchange.asterisk.rx("channel request hangup Local/500@test")
    assert exchange.site.legs() == legs


# ---- Several calls, and calls in other states


def test_of_two_calls_on_one_handset_the_newest_is_recorded_and_it_is_said(exchange: Exchange[Phone]) -> None:
    exchange.connect("411", "410")
    first = exchange.channels().keys()
    exchange.connect("412", "410")

    view = exchange.ask(START.format("at/410"))

    name = exchange.leg(view)["channel"]
    assert name not in first
    said = f"OK, {which(exchange, name)}, but there are 2 live calls: name a uniqueid for another"
    assert (view.status, view.message) == ("200", said)


def test_a_call_that_is_up_comes_before_one_that_rings(exchange: Exchange[Phone]) -> None:
    called = exchange.phones[RINGS]
    exchange.phones["411"].dial(RINGS)
    called.wait_ringing()
    called.answer()
    called.wait_up()
    up = exchange.channel(RINGS)
    exchange.phones["412"].dial(RINGS)
    called.wait_ringing()

    view = exchange.ask(START.format(f"at/{RINGS}"))

    assert exchange.leg(view)["channel"] == up


def test_a_call_that_rings_is_recorded_from_its_answer_on(exchange: Exchange[Phone]) -> None:
    called = exchange.phones[RINGS]
    exchange.phones["411"].dial(RINGS)
    called.wait_ringing()

    view = exchange.ask(START.format(f"at/{RINGS}"))
    called.answer()

    assert (view.status, exchange.leg(view)["channel"]) == ("200", exchange.channel(RINGS))
    exchange.wait_for_audio(view.file, 1)


def test_a_parked_call_comes_after_one_that_talks(exchange: Exchange[Phone]) -> None:
    exchange.connect("411", "410")
    talks = exchange.channel("411")
    exchange.connect("411", "park")

    view = exchange.ask(START.format("at/411"))

    assert view.status == "200"
    assert exchange.leg(view)["channel"] == talks


def test_a_call_that_only_is_parked_is_recorded(exchange: Exchange[Phone]) -> None:
    exchange.connect("411", "park")
    wait_until(lambda: "Park" in exchange.asterisk.rx("core show channels"), 30, "the call to be parked")

    view = exchange.ask(START.format("at/411"))

    assert (view.status, exchange.leg(view)["channel"]) == ("200", exchange.channel("411"))


def test_a_call_that_was_sent_elsewhere_is_still_recorded(exchange: Exchange[Phone]) -> None:
    """An asynchronous goto, as Redirect does it, before and after the start."""
    exchange.connect("411", "410")
    name = exchange.channel("410")
    exchange.asterisk.rx(f"channel redirect {name} telephones,moved,1")

    view = exchange.ask(START.format("at/410"))
    exchange.asterisk.rx(f"channel redirect {name} telephones,moved,1")
    exchange.asterisk.rx("channel request hangup Local/500@test")

    assert exchange.leg(view)["channel"] == name
    assert exchange.ask("AGI(stop_record.py,at/410)").status == "200"


def test_callers_who_write_into_the_list_of_channels_hide_and_move_nobody(exchange: Exchange[Phone]) -> None:
    """chan_pjsip decodes a caller's number; here the dialplan does."""
    for number in WRITE_INTO_THE_LIST:
        dialplan = f"Set(CALLERID(num)=${{URIDECODE({number})}})\nNoOp(SET {number})\nWait(600)"
        exchange.pbx.start_call(dialplan, seconds=None)
        wait_until(lambda: f'"SET {number}"' in exchange.asterisk.log(), 30, "the caller")  # noqa: B023
    exchange.connect("411", "410")
    shown = exchange.asterisk.rx("core show channels concise")
    uniqueids = set(re.findall(r"!([\w-]*\d+\.\d+)$", shown, re.MULTILINE))

    listed = json.loads(exchange.site.cli("record", "list", "--json"))
    view = exchange.ask(START.format("at/410"))

    assert {each["uniqueid"] for each in listed} <= uniqueids
    assert {each["extension"] for each in listed} == {"410", "411", "500"}
    assert (view.status, exchange.leg(view)["channel"]) == ("200", exchange.channel("410"))


def test_two_in_a_conference_are_each_recorded_alone(exchange: Exchange[Phone]) -> None:
    exchange.connect("410", "room")
    exchange.connect("411", "room")

    one, other = exchange.ask(START.format("at/410")), exchange.ask(START.format("at/411"))

    legs = [exchange.leg(view) for view in (one, other)]
    assert [leg["channel"] for leg in legs] == [exchange.channel("410"), exchange.channel("411")]
    assert {leg["status"] for leg in legs} == {"recording"}


# ---- What is recorded already


def test_a_second_start_makes_a_new_leg_and_then_ends_the_first(exchange: Exchange[Phone]) -> None:
    exchange.connect()
    first = exchange.ask(START.format("at/410"))
    exchange.wait_for_audio(first.file, 1)

    second = exchange.ask(START.format("at/410"))

    assert exchange.pbx.leg(first)["leg"] == 1
    assert exchange.leg(second)["leg"] == 2


def test_a_call_that_records_itself_at_its_other_end_has_one_recording_at_a_time(
    exchange: Exchange[Phone],
) -> None:
    """411's own dialplan records it; the supervisor names 410, to whom 411 talks."""
    exchange.connect("411", "510")
    own = exchange.running("by-itself")
    exchange.wait_for_audio(own["file"], 1)

    view = exchange.ask("AGI(start_record.py,at/410,taken-over)")

    leg = exchange.leg(view)
    assert (leg["channel"], leg["extension"], leg["owner"]) == (own["channel"], "410", "Ann")
    assert (leg["call_record_id"], leg["leg"]) == (own["call_record_id"], 2)
    wait_until(lambda: exchange.status(own["id"]) == "completed", 20, "the end of the former leg")


def test_whatever_records_a_call_is_stopped_by_either_end(exchange: Exchange[Phone]) -> None:
    exchange.connect("411", "510")
    exchange.wait_for_audio(exchange.running("by-itself")["file"], 0.2)
    view = exchange.ask("AGI(stop_record.py,at/410)")
    assert view.status == "200"
    assert exchange.pbx.leg(view)["tag"] == "by-itself"

    assert exchange.ask("AGI(stop_record.py,at/411)").status == "409"


def test_two_who_start_at_once_leave_one_recording_that_stops(exchange: Exchange[Phone]) -> None:
    exchange.connect()
    with Served(exchange.site, manager.options(exchange.port)) as served, ThreadPoolExecutor(4) as pool:
        agi = f"AGI(agi://127.0.0.1:{served.port}/start_record,at/410,at-once)"
        extension = "\n".join(["[at-once]", f"exten => s,1,{agi}", " same => n,Hangup()"])
        exchange.add(extension)
        starts = [("s@at-once", "moved@telephones")] * 4
        pool.submit(exchange.asterisk.originate_at_once, starts).result()
        wait_until(lambda: len(exchange.site.legs("--tag", "at-once")) == 4, 20, "four legs")

        def running() -> list[str]:
            return re.findall(
                "0x[0-9a-f]+", exchange.asterisk.rx(f"mixmonitor list {exchange.channel('410')}")
            )

        wait_until(lambda: len(running()) == 1, 20, "one recording to be left")
        assert exchange.ask("AGI(stop_record.py,at/410)").status == "200"
        assert running() == []


def test_a_recorded_call_can_be_stopped_when_there_is_a_newer_one(exchange: Exchange[Phone]) -> None:
    exchange.connect("411", "410")
    started = exchange.ask(START.format("at/410"))
    name = exchange.leg(started)["channel"]
    exchange.connect("412", "410")

    stopped = exchange.ask("AGI(stop_record.py,at/410)")

    assert (stopped.status, stopped.leg_id) == ("200", started.leg_id)
    said = f"OK, {which(exchange, name)}, but there are 2 live calls: name a uniqueid for another"
    assert stopped.message == said


# ---- stop


def test_only_the_owner_may_stop_by_name(exchange: Exchange[Phone]) -> None:
    exchange.connect()
    started = exchange.ask("AGI(start_record.py,at/410,owned)")
    assert exchange.leg(started)["owner"] == "Ann"

    refused = exchange.ask("AGI(stop_record.py,at/410,Fred)")
    assert (refused.status, refused.message) == ("403", "the recording is not Fred's: it stays as it is")
    assert exchange.leg(started)["status"] == "recording"
    stopped = exchange.ask("AGI(stop_record.py,agentLoginName=Ann,extenOrUniqueId=at/410)")
    assert (stopped.status, stopped.leg_id, stopped.file) == ("200", started.leg_id, started.file)
    exchange.pbx.leg(started)


def test_the_own_channel_is_stopped_through_agi(exchange: Exchange[Phone]) -> None:
    """Without the manager interface."""
    exchange.site.configure()

    view = exchange.ask("AGI(start_record.py,,own)\nWait(0.5)\nAGI(stop_record.py)")

    assert (view.status, view.message) == ("200", "OK")
    leg = exchange.pbx.leg(view)
    assert leg["duration_seconds"] > 0.2
    assert exchange.pbx.asterisk.rx("core show channels count") != "0 active channels"


def test_an_own_channel_that_is_not_recorded_is_409(exchange: Exchange[Phone]) -> None:
    view = exchange.ask("AGI(stop_record.py)")

    assert (view.status, view.agi_status) == ("409", "SUCCESS")


# ---- Through the server


@pytest.mark.parametrize(
    "way", ["start_record.py", "agi://127.0.0.1:{port}/start_record"], ids=["handed over", "FastAGI"]
)
def test_the_server_reaches_other_calls_as_the_program_does(exchange: Exchange[Phone], way: str) -> None:
    exchange.connect()
    with Served(exchange.site, manager.options(exchange.port)) as served:
        start = way.format(port=served.port)

        def by_server() -> tuple[View, View] | None:
            """On a busy machine a program may wait too long for the server, and go the plain way."""
            before = served.status()["sessions"]
            started = exchange.ask(f"AGI({start},at/410,served)\nWait(0.5)")
            stopped = exchange.ask(f"AGI({start.replace('start', 'stop')},at/410)")
            with suppress(AssertionError):
                served.wait_for("sessions", before + 2)
                return started, stopped
            return None

        started, stopped = wait_until(by_server, 60, "two sessions of the server's")

    assert (started.status, stopped.status, stopped.leg_id) == ("200", "200", started.leg_id)
    assert exchange.pbx.leg(started)["channel"] == exchange.channel("410")


# ---- The command line


def test_the_command_line_starts_stops_and_lists(exchange: Exchange[Phone]) -> None:
    exchange.connect()
    name = exchange.channel("410")

    started = exchange.site.record("start", "410", "--tag", "typed", "--login", "Fred")

    assert (started.returncode, started.stderr) == (0, "")
    (leg,) = exchange.site.wait_for_legs("--tag", "typed", status="recording")
    assert started.stdout.splitlines() == [
        f"200 OK, {which(exchange, name)}",
        f"leg   {leg['id']}",
        f"file  {leg['file']}",
    ]
    assert (leg["channel"], leg["owner"]) == (name, "Fred")
    listed = json.loads(exchange.site.cli("record", "list", "--json"))
    assert [(each["extension"], each["other_party"], each["recorded"], each["state"]) for each in listed] == [
        ("411", "410", True, "up"),
        ("410", "411", True, "up"),
    ]
    refused = exchange.site.record("stop", "410", "--login", "Ann")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "Error: 403 the recording is not Ann's: it stays as it is\n"
    assert exchange.site.record("stop", "410", "--login", "Fred").returncode == 0
    exchange.site.wait_for_legs("--tag", "typed", status="completed")
    assert [row.split()[-2] for row in exchange.site.cli("record", "list").splitlines()[1:]] == ["no", "no"]


def test_the_command_line_asks_for_the_key(exchange: Exchange[Phone]) -> None:
    exchange.connect()

    wrong = exchange.site.run_cli("record", "start", "410", text="not-the-key\n")
    right = exchange.site.run_cli("record", "start", "410", "--tag", "asked", text=f"{exchange.site.key}\n")

    assert (wrong.returncode, right.returncode) == (1, 0)
    assert wrong.stderr.startswith("Error: 401 ")
    exchange.site.wait_for_legs("--tag", "asked", status="recording")
    assert exchange.site.key not in exchange.site.log()


# ---- What goes wrong


def closed(exchange: Exchange[Phone]) -> None:
    exchange.configure(port=free_port())


def wrong_secret(exchange: Exchange[Phone]) -> None:
    exchange.configure(secret="not-the-secret")


def no_right_to_record(exchange: Exchange[Phone]) -> None:
    _use_rights(exchange, "call")


def no_right_to_set(exchange: Exchange[Phone]) -> None:
    _use_rights(exchange, "system,reporting")


def _use_rights(exchange: Exchange[Phone], rights: str) -> None:
    path = exchange.asterisk.folder / "etc/manager.conf"
    path.write_text(manager.manager_conf(exchange.port, write=rights))
    exchange.asterisk.rx("manager reload")


@pytest.fixture
def all_rights(exchange: Exchange[Phone]) -> Iterator[None]:
    yield
    path = exchange.asterisk.folder / "etc/manager.conf"
    path.write_text(manager.manager_conf(exchange.port))
    exchange.asterisk.rx("manager reload")


@pytest.mark.usefixtures("all_rights")
@pytest.mark.parametrize(
    ("ill", "sentence"),
    [
        (closed, "Connection refused"),
        (wrong_secret, "refuses user noojee"),
        (no_right_to_record, "may not MixMonitor: give it write = system,call"),
    ],
)
def test_a_manager_interface_that_cannot_be_used_is_503_and_nothing_is_left(
    exchange: Exchange[Phone], ill: Callable[[Exchange[Phone]], None], sentence: str
) -> None:
    exchange.connect()
    ill(exchange)

    view = exchange.ask(START.format("at/410"))

    assert (view.status, view.file, view.agi_status) == ("503", "", "SUCCESS")
    assert sentence in view.message
    assert_nothing_is_left(exchange)


@pytest.mark.usefixtures("all_rights")
def test_a_right_that_is_missing_is_found_by_check(exchange: Exchange[Phone]) -> None:
    no_right_to_set(exchange)

    assert "may not Setvar" in exchange.site.cli("check", may_fail=True)


@pytest.mark.parametrize("at", [b"Action: Challenge", b"Action: MixMonitor"])
def test_an_answer_that_never_comes_is_503_within_three_seconds(
    exchange: Exchange[Phone], tell: Callable[[str], None], at: bytes
) -> None:
    """Asterisk never hears of it. The program's own beginning, of which a busy machine makes seconds, is over
    when it asks.

    Other work on the machine may spoil a try; what waits longer does so in all of them.
    """
    for _ in range(ATTEMPTS):
        exchange.connect()
        with Proxy(exchange.port) as proxy:
            exchange.configure(port=proxy.port)
            proxy.freeze_at(at)
            begun = len(exchange.asterisk.log())
            line = "NoOp(GOES ON ${STRFTIME(,,%s.%6q)})"
            exchange.pbx.start_call(f"{START.format('at/410')}\n{line}", seconds=None)
            wait_until(lambda: proxy.is_frozen, 60, "the question")
            asked, view = time.time(), exchange.pbx.view()
        held = _went_on(exchange, begun) - asked

        tell(f"no answer to {at.decode()}: 503 after {held:.2f} s")
        assert (view.status, view.file) == ("503", "")
        assert "no answer in time" in view.message
        assert_nothing_is_left(exchange)
        if held < REFUSED_WITHIN_SECONDS:
            break
        exchange.end()
    assert held < REFUSED_WITHIN_SECONDS


def test_an_answer_that_is_lost_is_200_when_the_file_is_there(exchange: Exchange[Phone]) -> None:
    exchange.connect()
    with Proxy(exchange.port) as proxy:
        exchange.configure(port=proxy.port)
        proxy.freeze_at(b"Action: MixMonitor", is_heard=True)
        view = exchange.ask(START.format("at/410"))

    assert view.status == "200"
    assert "no answer in time" in view.message
    exchange.wait_for_audio(view.file, 1)
    exchange.end()
    assert exchange.pbx.leg(view)["channel"].startswith("PJSIP/410-")


def test_a_call_that_ends_between_finding_and_starting_is_404_and_nothing_is_left(
    exchange: Exchange[Phone],
) -> None:
    """The program waits for 2.5 s, in which a busy machine may not have ended the call."""
    for _ in range(ATTEMPTS):
        exchange.connect()
        with Proxy(exchange.port) as proxy:
            exchange.configure(port=proxy.port)
            proxy.freeze_at(b"Action: MixMonitor")
            exchange.pbx.start_call(START.format("at/410"), seconds=None)
            wait_until(lambda: proxy.is_frozen, 30, "the start")
            exchange.phones["410"].hang_up()
            wait_until(lambda: not exchange.channels(), 30, "the end of the call")
            proxy.thaw()
            view = exchange.pbx.view()

        assert_nothing_is_left(exchange)
        if "no answer in time" not in view.message:
            break
        exchange.end()
    assert (view.status, view.message) == ("404", "that call has just ended")


def assert_nothing_is_left(exchange: Exchange[Phone]) -> None:
    """Nothing records, no leg is open, and there is no file but those of other legs."""
    exchange.pbx.hang_up()
    assert not [
        name for name in exchange.channels() if "0x" in exchange.asterisk.rx(f"mixmonitor list {name}")
    ]

    def files_without_a_leg() -> set[str]:
        known = {leg["file"] for leg in exchange.site.legs() if leg["status"] != "failed"}
        return {str(path) for path in exchange.site.audio_files()} - known

    wait_until(lambda: not files_without_a_leg(), 20, "every file to have its leg")
    wait_until(lambda: not exchange.site.legs("--status", "recording"), 20, "no open leg")


def _went_on(exchange: Exchange[Phone], begun: int) -> float:
    """When the dialplan did, of time.time(), by what is in Asterisk's log behind so much."""

    def logged() -> list[str]:
        return re.findall(r'"GOES ON (\S+)"', exchange.asterisk.log()[begun:])

    return float(wait_until(logged, 20, "Asterisk's log")[-1])
