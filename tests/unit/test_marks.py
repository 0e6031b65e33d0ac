"""What is paused, stopped or followed by the marks on a call's channels, with Asterisk's side played."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from noojee_agi.actions import channel_lock
from noojee_agi.actions.result import Result
from noojee_agi.asterisk import manager, variables
from noojee_agi.asterisk.live import Switchboard
from noojee_agi.server.following import Following, Step, that_ended
from noojee_agi.server.legs import Legs
from noojee_agi.server.pauses import Pauses
from noojee_agi.session import session
from unit.fake_manager import FakeChannel, FakeManager
from unit.fakes import KEY, FakeAsterisk, FakeDatabase, Site

CALLER, ANN, CARL, DORA = "1.1", "1.2", "1.3", "1.4"
NAMES = {CALLER: "PJSIP/trunk-1", ANN: "PJSIP/410-2", CARL: "PJSIP/412-3", DORA: "PJSIP/413-4"}


@pytest.fixture
def pbx() -> Iterator[FakeManager]:
    with FakeManager() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, pbx: FakeManager) -> Site:
    made = Site(tmp_path, FakeDatabase(logins=("Fred",)))
    made.database.attached = frozenset({"410", "412"})
    made.database(made.config)
    made.configure(**pbx.options)
    return made


@pytest.fixture
def legs(site: Site) -> Legs:
    return Legs(manager.Manager(site.config), site.config, str(site.surroundings.programs), lambda: True)


def add(
    pbx: FakeManager, uniqueid: str, bridge: str, application: str = "", call: str = CALLER
) -> FakeChannel:
    fields = {"BridgeID": bridge, "Application": application, "Linkedid": call}
    made = FakeChannel(NAMES.get(uniqueid, f"PJSIP/trunk-{uniqueid}"), uniqueid, fields, {})
    pbx.channels.append(made)
    return made


def move(channel: FakeChannel, bridge: str, application: str = "") -> None:
    channel.fields = {**channel.fields, "BridgeID": bridge, "Application": application}


def run(site: Site, program: str, *words: str) -> Result:
    report = session.run_from_command_line(
        session.Invocation(f"{program}_record", words), KEY, site.surroundings
    )
    assert report.failure is None
    return report.result


def recorded(site: Site, legs: Legs, at: FakeChannel, *words: str) -> Following:
    """A leg that begins there, and the follower has seen who talks in it."""
    result = run(site, "start", at.uniqueid, *words)
    assert result.status == 200
    mixmonitor_id = at.variables[variables.MIXMONITOR_ID]
    followed = Following(result.leg_id, result.file, at.uniqueid, at.name, mixmonitor_id, {})
    listed = legs.channels(None)
    decision = followed.decide(Switchboard(listed))
    return legs.form(followed, decision.at, listed) if decision.at else followed


def step(legs: Legs, followed: Following) -> Step:
    return followed.decide(Switchboard(legs.channels(None))).step


@pytest.mark.parametrize("program", ["pause", "stop"])
def test_a_third_one_in_the_bridge_hides_no_recording(
    site: Site, pbx: FakeManager, legs: Legs, program: str
) -> None:
    caller, _ = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    recorded(site, legs, caller, "INV-22")
    add(pbx, CARL, "b")

    assert run(site, program, "at/410").status == 200
    assert caller.mixmonitors == {}


def test_who_asks_another_first_pauses_what_is_recorded_of_the_one_who_waits(
    site: Site, pbx: FakeManager, legs: Legs
) -> None:
    caller, ann = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    followed = recorded(site, legs, caller, "INV-22")
    move(ann, "c")
    add(pbx, CARL, "c")

    assert run(site, "pause", "at/410").status == 200
    assert caller.mixmonitors == {}
    move(ann, "b")
    assert step(legs, followed) is Step.OVER


def test_a_pause_in_doubt_does_not_say_paused(site: Site, pbx: FakeManager, legs: Legs) -> None:
    caller, ann = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    recorded(site, legs, caller, "INV-22")
    pbx.refused_actions.add("StopMixMonitor")

    assert run(site, "pause", "at/410").status == 503
    assert variables.PAUSED not in (ann.variables.get(variables.STATE), caller.variables[variables.STATE])


def test_who_comes_from_a_paused_call_is_not_recorded_elsewhere(
    site: Site, pbx: FakeManager, legs: Legs
) -> None:
    caller, ann = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    carl, dora = add(pbx, CARL, "c", call=CARL), add(pbx, DORA, "c", call=CARL)
    run(site, "start", CALLER, "INV-22")
    assert run(site, "pause", CALLER).status == 200
    followed = recorded(site, legs, carl, "INTERNAL")

    for gone in (ann, dora):
        pbx.channels.remove(gone)
    move(caller, "c")
    listed = legs.channels(None)
    assert followed.decide(Switchboard(listed)).step is Step.END
    (at,) = (channel for channel in listed if channel.uniqueid == CARL)
    ended = legs.end(followed, at, listed)

    assert carl.mixmonitors == {}
    assert ended is not None
    assert step(legs, ended) is Step.OVER


def test_free_agents_of_a_pool_do_not_talk_with_each_other(site: Site, pbx: FakeManager, legs: Legs) -> None:
    caller, agent = add(pbx, CALLER, "b"), add(pbx, ANN, "b", "AgentLogin")
    add(pbx, CARL, "pool", "AgentLogin", call=CARL)
    followed = recorded(site, legs, caller, "INV-22")
    pbx.channels.remove(caller)
    move(agent, "pool", "AgentLogin")

    ended = legs.end(followed, None, legs.channels(None))
    assert ended is not None
    assert step(legs, ended) is Step.OVER


def test_an_agent_who_stays_logged_in_brings_nothing_into_his_next_call(
    site: Site, pbx: FakeManager, legs: Legs
) -> None:
    """Also when the server was away meanwhile."""
    caller, agent = add(pbx, CALLER, "b"), add(pbx, ANN, "b", "AgentLogin")
    followed = recorded(site, legs, caller, "INV-22")
    pbx.channels.remove(caller)
    add(pbx, DORA, "b2", call=DORA)
    move(agent, "b2", "AgentLogin")

    assert that_ended(legs.channels(None)) == []
    assert step(legs, followed._replace(mixmonitor_id="")) is Step.OVER


def test_an_agent_who_is_free_is_not_paused_any_more(site: Site, pbx: FakeManager, legs: Legs) -> None:
    caller, agent = add(pbx, CALLER, "b"), add(pbx, ANN, "b", "AgentLogin")
    run(site, "start", CALLER, "INV-22")
    assert run(site, "pause", "at/410").status == 200
    pbx.channels.remove(caller)
    move(agent, "", "AgentLogin")

    Pauses().look(legs.channels(None), legs)

    assert agent.variables[variables.PERSON_OF] == ""


def test_a_pause_does_not_spread_over_a_conference(site: Site, pbx: FakeManager, legs: Legs) -> None:
    caller, ann = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    dora = add(pbx, DORA, "conference", "ConfBridge", call=DORA)
    run(site, "start", CALLER, "INV-22")
    assert run(site, "pause", "at/410").status == 200
    pbx.channels.remove(ann)
    move(caller, "conference", "ConfBridge")

    Pauses().look(legs.channels(None), legs)

    assert variables.PERSON_OF not in dora.variables


def test_whoever_resumes_a_call_before_the_newcomer_is_marked_has_resumed_it_for_him_too(
    site: Site, pbx: FakeManager, legs: Legs
) -> None:
    """Or he would be paused, and his recording end, while the dialplan was told that it goes on."""
    caller, ann = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    run(site, "start", CALLER, "INV-22")
    assert run(site, "pause", "at/410").status == 200
    pbx.channels.remove(ann)
    move(caller, "c")
    carl = add(pbx, CARL, "c")
    before = legs.channels(None)
    assert run(site, "resume", CALLER).status == 200

    Pauses().look(before, legs)

    assert variables.PERSON_OF not in carl.variables
    assert caller.variables[variables.STATE] == variables.RECORDING


def test_a_newcomer_to_a_paused_call_is_paused_too(site: Site, pbx: FakeManager, legs: Legs) -> None:
    caller, ann = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    run(site, "start", CALLER, "INV-22")
    assert run(site, "pause", "at/410").status == 200
    pbx.channels.remove(ann)
    move(caller, "c")
    carl, pauses = add(pbx, CARL, "c"), Pauses()

    pauses.look(legs.channels(None), legs)

    assert carl.variables[variables.PERSON_OF] == caller.variables[variables.PERSON_OF]
    assert carl.variables[variables.STATE] == variables.PAUSED
    assert pauses.names == {caller.name, carl.name}


def test_who_follows_the_call_waits_until_whoever_acts_on_it_has_done(
    site: Site, pbx: FakeManager, legs: Legs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes on a busy machine: its marks would take those of a pause away."""
    monkeypatch.setattr(channel_lock, "WAIT_SECONDS", 0.01)
    caller, _ = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    result = run(site, "start", CALLER, "INV-22")
    mixmonitor_id = caller.variables[variables.MIXMONITOR_ID]
    begun = Following(result.leg_id, result.file, CALLER, caller.name, mixmonitor_id, {})
    listed = legs.channels(None)
    (at,) = (channel for channel in listed if channel.uniqueid == CALLER)
    forming = threading.Thread(target=legs.form, args=(begun, at, listed))

    with channel_lock.of(site.config.state_directory, CALLER, lambda seconds: None) as is_held:
        assert is_held
        forming.start()
        forming.join(0.2)
        marks_meanwhile = caller.variables.get(variables.PERSONS)
    forming.join(20)

    assert marks_meanwhile is None
    assert str(caller.variables[variables.PERSONS]).startswith(result.leg_id)


def test_a_login_stays_only_with_its_extension(site: Site, pbx: FakeManager, legs: Legs) -> None:
    """None was named, and the trunk's own says of nobody that he still talks."""
    caller, ann = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    followed = recorded(site, legs, caller, "INV-22", "Fred")
    pbx.channels.remove(ann)
    add(pbx, CARL, "b")
    listed = legs.channels(None)
    decision = followed.decide(Switchboard(listed))
    assert decision.at is not None

    legs.next(followed, decision.at, listed)

    assert [leg.agent_login_name for leg in site.legs()] == ["Fred", ""]


@pytest.mark.parametrize("is_other", [False, True], ids=["the same", "somebody else"])
def test_a_resumed_call_is_his_with_whom_the_caller_talks_by_then(
    site: Site, pbx: FakeManager, is_other: bool
) -> None:
    """Without a server, which would have marked it."""
    caller, ann = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    run(site, "start", CALLER, "INV-22", "Fred")
    assert run(site, "pause", "at/410").status == 200
    if is_other:
        pbx.channels.remove(ann)
        move(caller, "c")
        add(pbx, CARL, "c")

    assert run(site, "resume", CALLER).status == 200

    assert [leg.agent_login_name for leg in site.legs()] == ["Fred", "" if is_other else "Fred"]
    assert {leg.tag for leg in site.legs()} == {"INV-22"}


def test_a_call_whose_recorded_channel_has_gone_is_paused_and_resumed_before_the_drain(
    site: Site, pbx: FakeManager, legs: Legs
) -> None:
    caller, ann = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    followed = recorded(site, legs, ann, "INV-22")
    pbx.channels.remove(ann)
    move(caller, "")

    paused = run(site, "pause", CALLER)
    assert (paused.status, paused.leg_id) == (200, followed.leg_id)
    assert run(site, "resume", CALLER).status == 200


def test_a_resume_whose_marks_stay_is_200_and_says_so(
    site: Site, pbx: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, _ = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    run(site, "start", CALLER, "INV-22")
    assert run(site, "pause", "at/410").status == 200

    def before(action: dict[str, str]) -> bool:
        is_mark = action["Action"] == "Setvar" and action.get("Variable") == variables.PERSON_OF
        return not is_mark

    pbx.before = before
    monkeypatch.setattr(manager, "PATIENCE_SECONDS", 1.0)
    result = run(site, "resume", "at/410")

    assert (result.status, len(caller.mixmonitors)) == (200, 1)
    assert "marks are still there" in result.message


def test_a_call_stops_its_own_recording_over_agi_when_the_manager_interface_dies(
    site: Site, pbx: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    asterisk = FakeAsterisk()
    own = FakeChannel("PJSIP/trunk-a-0000001f", "1762420501.77", {"BridgeID": "b"}, {})
    pbx.channels.append(own)
    site.run(asterisk)
    own.variables.update(
        {name: asterisk.variables[name] for name in (variables.MIXMONITOR_ID, variables.LEG)}
    )
    monkeypatch.setattr(manager, "PATIENCE_SECONDS", 0.5)
    pbx.before = lambda action: action["Action"] in ("Challenge", "Login", "Status", "ParkedCalls")

    site.run(asterisk, program="pause_record")

    assert asterisk.answers()["RECORDING_STATUS"] == "503"
    assert asterisk.running() == []


@pytest.mark.parametrize("said", ["", f"{CALLER} of the leg before"], ids=["nothing", "another leg"])
def test_a_leg_that_its_start_has_not_named_at_the_channel_yet_is_paused_and_resumed(
    site: Site, pbx: FakeManager, said: str
) -> None:
    """A dialplan's start has let go of the call before its variables are set; no drain has run."""
    caller, ann = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    started = run(site, "start", CALLER, "INV-22")
    caller.variables[variables.LEG] = said

    paused = run(site, "pause", "at/410")

    assert (paused.status, paused.leg_id) == (200, started.leg_id)
    assert ann.variables[variables.PERSON_OF] == f"paused {started.leg_id} {started.file}"
    assert run(site, "resume", "at/410").status == 200


def test_a_pause_of_a_leg_that_is_known_nowhere_says_how_to_go_on(site: Site, pbx: FakeManager) -> None:
    caller, _ = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    assert run(site, "start", CALLER, "INV-22").status == 200
    caller.variables[variables.LEG] = ""
    shutil.rmtree(site.config.spool_directory)

    paused = run(site, "pause", "at/410")

    assert (paused.status, caller.mixmonitors) == (200, {})
    assert "start_record begins the next one" in paused.message


def test_a_pause_beside_somebody_who_does_not_let_go_of_the_call_is_in_doubt(
    site: Site, pbx: FakeManager, legs: Legs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He may begin a recording after it; what runs has ended."""
    monkeypatch.setattr(channel_lock, "PATIENT_SECONDS", 0.05)
    caller, _ = add(pbx, CALLER, "b"), add(pbx, ANN, "b")
    recorded(site, legs, caller, "INV-22")

    with channel_lock.of(site.config.state_directory, CALLER, lambda seconds: None) as is_held:
        assert is_held
        result = run(site, "pause", "at/410")

    assert (result.status, caller.mixmonitors) == (503, {})
    assert "somebody else acts on this call too" in result.message
