"""start_record and stop_record for another live call than the asking one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from noojee_agi.actions import channel_lock, start_record
from noojee_agi.actions.result import Report
from noojee_agi.asterisk import manager
from noojee_agi.session import session
from unit.fake_manager import FakeChannel, FakeManager
from unit.fakes import KEY, PROGRAMS, FakeAsterisk, FakeDatabase, Site

NAME, UNIQUEID = "PJSIP/410-00000009", "1762420502.88"
ASKER = "1762420501.77"
OK = f"OK, the call of {NAME} (uniqueid {UNIQUEID})"


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_record, "FILE_SEEN_WITHIN_SECONDS", 0.05)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as all answers that do come may take on a busy machine, too."""
    monkeypatch.setattr(manager, "PATIENCE_SECONDS", 1.0)


@pytest.fixture
def asterisk() -> FakeAsterisk:
    """The supervisor's call."""
    return FakeAsterisk()


@pytest.fixture
def other() -> FakeChannel:
    fields = {"BridgeID": "b", "CallerIDNum": "0301234567", "Exten": "800", "DNID": "4930800"}
    return FakeChannel(NAME, UNIQUEID, fields)


@pytest.fixture
def pbx(other: FakeChannel) -> Iterator[FakeManager]:
    with FakeManager(FakeChannel("PJSIP/trunk-a-0000001f", ASKER), other) as running:
        yield running
    assert running.complaints == []


@pytest.fixture
def site(tmp_path: Path, pbx: FakeManager) -> Site:
    site = Site(tmp_path, FakeDatabase(logins=("Fred",)))
    site.configure(**pbx.options)
    return site


def told(asterisk: FakeAsterisk) -> tuple[str, str]:
    return asterisk.answers()["RECORDING_STATUS"], asterisk.answers()["RECORDING_MESSAGE"]


def of_ours(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith("RECORDING_")}


# ---- start


def test_the_other_call_is_recorded_and_both_dialplans_are_told(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    site.run(asterisk, "at/410", "INV-22", "Fred")

    (leg,) = site.legs()
    assert told(asterisk) == ("200", OK)
    assert {**asterisk.answers(), "RECORDING_STATE": "recording"} == of_ours(other.variables)
    assert asterisk.answers()["RECORDING_FILE"] == leg.file
    assert list(other.mixmonitors.values()) == [leg.file] == site.audio_files()
    assert asterisk.mixmonitors == []


def test_the_leg_is_the_other_calls(site: Site, asterisk: FakeAsterisk) -> None:
    site.run(asterisk, "at/PJSIP/410", "INV-22")

    (leg,) = site.legs()
    assert (leg.channel, leg.uniqueid, leg.call_uniqueid, leg.server) == (NAME, UNIQUEID, UNIQUEID, "pbx1")
    assert (leg.source, leg.destination, leg.did) == ("0301234567", "800", "4930800")
    assert (leg.extension, leg.extensions, leg.tag) == ("410", ("410",), "INV-22")


def test_what_is_said_to_start_mixmonitor_there(site: Site, asterisk: FakeAsterisk, pbx: FakeManager) -> None:
    site.configure(path="/etc/asterisk/noojee_agi.conf", recordings_mixmonitor_options="b")

    site.run(asterisk, "at/410")

    (leg,) = site.legs()
    assert pbx.names("MixMonitor") == [
        {
            "Channel": NAME,
            "File": leg.file,
            "Options": "bi(NOOJEE_MIXMONITOR_ID)",
            "Command": f"{PROGRAMS}/finish_record.py /etc/asterisk/noojee_agi.conf {leg.id} {leg.file}",
        }
    ]


def test_it_is_on_record_before_it_records(site: Site, asterisk: FakeAsterisk, pbx: FakeManager) -> None:
    seen: list[int] = []

    def look(action: dict[str, str]) -> bool:
        if action["Action"] == "MixMonitor":
            seen.append(len(site.legs()))
        return True

    pbx.before = look
    site.run(asterisk, "at/410")
    assert seen == [1]


def test_the_former_leg_ends_before_a_new_one_begins(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    for tag in ("one", "two"):
        site.run(asterisk, "at/410", tag)

    one, two = site.legs()
    assert list(other.mixmonitors.values()) == [two.file]
    there = [action for action in pbx.actions if action.get("Channel") == NAME]
    done = [action["Action"] for action in there if "MixMonitor" in action["Action"]]
    assert done == ["MixMonitor", "StopMixMonitor", "MixMonitor"]
    assert (other.variables["NOOJEE_LEG"], one.tag) == (two.id, "one")


def test_a_right_that_is_missing_is_noticed_before_the_former_leg_ends(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    """Asterisk lets a user with the right `call` stop a MixMonitor, and not start one."""
    site.run(asterisk, "at/410")
    pbx.refused_actions = {"MixMonitor"}

    site.run(asterisk, "at/410")

    assert (told(asterisk)[0], len(other.mixmonitors)) == ("503", 1)
    assert "nothing records" not in told(asterisk)[1]
    assert [ending.leg_id for ending in site.endings()] == [site.legs()[1].id]


def test_the_asking_channel_keeps_what_it_knows_of_its_own_leg(site: Site, asterisk: FakeAsterisk) -> None:
    site.run(asterisk)
    own = asterisk.variables["NOOJEE_LEG"]

    site.run(asterisk, "at/410")

    assert asterisk.variables["NOOJEE_LEG"] == own


def test_a_call_on_the_same_handset_besides_is_mentioned(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager
) -> None:
    pbx.channels.append(FakeChannel("PJSIP/410-0000000a", "1762420503.99", {"Seconds": "0"}))

    site.run(asterisk, "at/410")

    newest = "the call of PJSIP/410-0000000a (uniqueid 1762420503.99)"
    said = f"OK, {newest}, but there are 2 live calls: name a uniqueid for another"
    assert told(asterisk) == ("200", said)
    assert site.legs()[0].uniqueid == "1762420503.99"


def test_the_key_is_checked_before_anybody_is_asked(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager
) -> None:
    asterisk.variables["apiKey"] = "wrong"

    site.run(asterisk, "at/410")

    assert (told(asterisk)[0], pbx.connections, site.events()) == ("401", 0, [])


def test_an_extension_on_this_call_asks_nobody(site: Site, asterisk: FakeAsterisk, pbx: FakeManager) -> None:
    asterisk.variables["MEMBERINTERFACE"] = "PJSIP/410"
    asterisk.add("PJSIP/410-00000020", "1762420501.78")

    site.run(asterisk, "410")

    assert (told(asterisk), pbx.connections, len(asterisk.running())) == (("200", "OK"), 0, 1)


def test_no_such_call_is_404_and_nothing_is_left(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager
) -> None:
    site.run(asterisk, "at/499")

    assert (told(asterisk)[0], site.events(), site.audio_files()) == ("404", [], [])
    assert pbx.names("MixMonitor") == []


@pytest.mark.parametrize("at", ["MixMonitor", "Setvar"])
def test_a_call_that_ends_while_it_is_found_is_404_and_its_leg_is_closed(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel, at: str
) -> None:
    if at == "Setvar":  # the first thing that is done to one that is recorded already
        site.run(asterisk, "at/410", "former")

    def hang_up(action: dict[str, str]) -> bool:
        if action["Action"] == at and other in pbx.channels:
            pbx.channels.remove(other)
        return True

    pbx.before = hang_up
    site.run(asterisk, "at/410", "late")

    assert told(asterisk)[0] == "404"
    late = [leg.id for leg in site.legs() if leg.tag == "late"]
    assert [ending.leg_id for ending in site.endings() if ending.status == "failed"] == late
    assert not [file for file in site.audio_files() if late[0][:8] in file]


def test_a_call_that_ends_just_after_it_began_to_be_recorded_is_200(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    def hang_up(action: dict[str, str]) -> bool:
        if action["Action"] == "Setvar" and other in pbx.channels:
            pbx.channels.remove(other)
        return True

    pbx.before = hang_up
    site.run(asterisk, "at/410")
    assert (told(asterisk)[0], site.endings()) == ("200", [])


def test_no_file_is_503_and_what_was_started_is_stopped(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    pbx.creates_files = False

    site.run(asterisk, "at/410")

    assert (told(asterisk)[0], other.mixmonitors) == ("503", {})
    assert other.variables["NOOJEE_MIXMONITOR_ID"] == ""
    assert [ending.status for ending in site.endings()] == ["failed"]
    assert of_ours(other.variables) == {}


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("silent", ["Challenge", "Login", "Status", "MixMonitor"])
def test_an_answer_that_never_comes_is_503_and_nothing_records(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel, silent: str
) -> None:
    pbx.before = lambda action: action["Action"] != silent

    site.run(asterisk, "at/410")

    status, message = told(asterisk)
    assert (status, other.mixmonitors, site.audio_files()) == ("503", {}, [])
    assert "no answer in time" in message
    assert len(site.endings()) == len(site.legs())


@pytest.mark.usefixtures("_impatient")
def test_a_start_whose_answer_is_lost_but_whose_file_is_there_is_200(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    def lose(action: dict[str, str]) -> bool:
        if action["Action"] == "MixMonitor":
            pbx._mixmonitor(action)
        return action["Action"] != "MixMonitor"

    pbx.before = lose
    site.run(asterisk, "at/410")

    status, message = told(asterisk)
    assert (status, len(other.mixmonitors), site.endings()) == ("200", 1, [])
    assert message.startswith(f"{OK}, but manager interface at 127.0.0.1:")


@pytest.mark.usefixtures("_impatient")
def test_when_the_former_leg_cannot_be_stopped_it_goes_on_and_no_other_begins(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    site.run(asterisk, "at/410")
    pbx.before = lambda action: action["Action"] != "StopMixMonitor"

    site.run(asterisk, "at/410")

    status, message = told(asterisk)
    assert (status, len(other.mixmonitors)) == ("503", 1)
    assert "no answer in time" in message
    assert [ending.leg_id for ending in site.endings()] == [site.legs()[1].id]


@pytest.mark.usefixtures("_impatient")
def test_when_the_other_dialplan_cannot_be_told_it_is_said(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager
) -> None:
    pbx.before = lambda action: action.get("Variable") != "RECORDING_STATUS"

    site.run(asterisk, "at/410")

    status, message = told(asterisk)
    assert status == "200"
    assert message.startswith(f"{OK}, but that call's variables could not be set: ")


def test_neither_key_nor_secret_is_written_anywhere(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager
) -> None:
    site.run(asterisk, "at/410")
    site.configure(manager_secret="wrong")
    site.run(asterisk, "at/410")

    said = str(pbx.actions) + site.texts() + "".join(asterisk.console) + str(asterisk.answers())
    assert KEY not in said
    assert str(pbx.options["manager_secret"]) not in said


def test_two_who_start_at_once_leave_one_recording(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    """Both have found the call before either has begun."""
    both_found = threading.Barrier(2)
    seen = threading.local()

    def meet(action: dict[str, str]) -> bool:
        if action["Action"] == "Status" and not hasattr(seen, "it"):
            seen.it = True  # one thread of the fake serves one connection
            both_found.wait(20)
        return True

    pbx.before = meet
    calls = [asterisk, FakeAsterisk()]
    threads = [threading.Thread(target=site.run, args=(call, "at/410")) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [told(call) for call in calls] == [("200", OK)] * 2
    assert (len(other.mixmonitors), len(site.legs())) == (1, 2)
    assert list(other.mixmonitors) == [other.variables["NOOJEE_MIXMONITOR_ID"]]


def test_an_unknown_login_and_another_call_are_both_said(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager
) -> None:
    pbx.channels.append(FakeChannel("PJSIP/410-0000000a", "1762420503.99", {"Seconds": "0"}))

    site.run(asterisk, "at/410", "", "Nemo")

    _, message = told(asterisk)
    assert ", but there is no enabled account Nemo: " in message
    assert message.endswith("; there are 2 live calls: name a uniqueid for another")


# ---- stop


def test_the_other_calls_leg_ends(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    site.run(asterisk, "at/410")
    (leg,) = site.legs()

    site.run(asterisk, "at/410", program="stop_record")

    assert (told(asterisk), other.mixmonitors) == (("200", OK), {})
    assert (asterisk.answers()["RECORDING_ID"], other.variables["NOOJEE_MIXMONITOR_ID"]) == (leg.id, "")


def test_an_end_that_hangs_up_while_it_is_asked_keeps_no_other_from_being_stopped(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    peer = FakeChannel("PJSIP/411-0000000a", "1762420502.89", {"BridgeID": "b", "Linkedid": UNIQUEID})
    pbx.channels.append(peer)
    peer.fields, other.fields = {**peer.fields, "BridgeID": ""}, {**other.fields, "BridgeID": ""}
    site.run(asterisk, "at/410")
    site.run(asterisk, "at/411")
    peer.fields, other.fields = {**peer.fields, "BridgeID": "b"}, {**other.fields, "BridgeID": "b"}
    assert (len(other.mixmonitors), len(peer.mixmonitors)) == (1, 1)

    def hang_up(action: dict[str, str]) -> bool:
        if action["Action"] == "Getvar" and peer in pbx.channels:
            pbx.channels.remove(peer)
        return True

    pbx.before = hang_up
    site.run(asterisk, "at/411", program="stop_record")

    assert (told(asterisk)[0], other.mixmonitors) == ("200", {})


def test_another_call_that_is_not_recorded_is_409(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager
) -> None:
    site.run(asterisk, "at/410", program="stop_record")

    assert (told(asterisk)[0], pbx.names("StopMixMonitor")) == ("409", [])


def test_of_two_calls_the_recorded_one_is_stopped_and_the_other_mentioned(
    site: Site, asterisk: FakeAsterisk, pbx: FakeManager, other: FakeChannel
) -> None:
    site.run(asterisk, "at/410")
    pbx.channels.append(FakeChannel("PJSIP/410-0000000a", "1762420503.99", {"Seconds": "0"}))
    said = "there are 2 live calls: name a uniqueid for another"

    site.run(asterisk, "at/410", program="stop_record")
    assert (told(asterisk), other.mixmonitors) == (("200", f"{OK}, but {said}"), {})

    site.run(asterisk, "at/410", program="stop_record")
    assert told(asterisk)[0] == "409"
    assert said in told(asterisk)[1]


def test_who_does_not_own_the_other_calls_leg_may_not(
    site: Site, asterisk: FakeAsterisk, other: FakeChannel
) -> None:
    site.run(asterisk, "at/410", "", "Fred")

    site.run(asterisk, "at/410", "Ann", program="stop_record")

    assert (told(asterisk)[0], len(other.mixmonitors)) == ("403", 1)


# ---- Without a channel of one's own


def from_command_line(site: Site, program: str, *words: str, key: str = KEY) -> Report:
    return session.run_from_command_line(session.Invocation(program, words), key, site.surroundings)


def test_the_command_line_starts_and_stops(site: Site, other: FakeChannel) -> None:
    started = from_command_line(site, "start_record", "410", "INV-22")
    (leg,) = site.legs()
    assert (started.result.status, started.result.leg_id, leg.tag) == (200, leg.id, "INV-22")

    assert from_command_line(site, "stop_record", UNIQUEID).result.status == 200
    assert other.mixmonitors == {}


@pytest.mark.parametrize(("asked", "status"), [("AT/410", 200), ("at/", 400)])
def test_the_command_line_takes_at_as_the_dialplan_does(site: Site, asked: str, status: int) -> None:
    assert from_command_line(site, "start_record", asked).result.status == status


def test_the_command_line_waits_for_its_turn_where_a_call_would_go_on(
    site: Site, other: FakeChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many may start at once by HTTP; who goes on without his turn leaves a MixMonitor that no stop finds."""
    monkeypatch.setattr(channel_lock, "WAIT_SECONDS", 0.01)
    with ThreadPoolExecutor(1) as pool:
        with channel_lock.of(site.config.state_directory, UNIQUEID, time.sleep):
            started = pool.submit(from_command_line, site, "start_record", "410")
            assert wait([started], 0.3).not_done
            assert other.mixmonitors == {}
        assert started.result(10).result.status == 200
    assert len(other.mixmonitors) == 1


def test_the_command_line_needs_the_key(site: Site, pbx: FakeManager) -> None:
    for key in ("", "wrong"):
        assert from_command_line(site, "start_record", "410", key=key).result.status == 401
    assert (pbx.connections, site.events()) == (0, [])


def test_each_connection_is_closed(site: Site, asterisk: FakeAsterisk, pbx: FakeManager) -> None:
    site.run(asterisk, "at/410")
    for peer in pbx._open:
        peer.settimeout(2)
        assert peer.recv(1) == b""
