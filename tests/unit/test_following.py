"""What is to be done with a recording when the channels of its call change."""

from __future__ import annotations

from typing import Any

import pytest

from noojee_agi.asterisk import variables
from noojee_agi.asterisk.bridges import Bridges
from noojee_agi.asterisk.live import Switchboard
from noojee_agi.asterisk.live_channel import LiveChannel
from noojee_agi.asterisk.marks import Mark
from noojee_agi.server.following import Following, Step, that_ended

OURS, THEIRS = "0x7f01", "0x7f02"
CALLER, AGENT, OTHER, FOURTH = "1.1", "1.2", "1.3", "1.4"
LEG, FILE = "11111111-0000-4000-8000-000000000000", "/r/2026/11/30/1.1-11111111.wav"
NAMES = {CALLER: "PJSIP/trunk-01", AGENT: "PJSIP/410-02", OTHER: "PJSIP/412-03", FOURTH: "PJSIP/413-04"}


def channel(uniqueid: str, bridge: str = "", mixmonitor: str = "", **more: Any) -> LiveChannel:
    values = {variables.MIXMONITOR_ID: mixmonitor, variables.SYSTEMNAME: ""}
    if more.pop("is_transferred", False):
        values[variables.BLINDTRANSFER] = NAMES[AGENT]
    values[variables.LEG] = ""
    values[variables.PERSON_OF] = str(more.pop("mark", ""))
    return LiveChannel(NAMES[uniqueid], uniqueid, "1.1", bridge=bridge, values=values, **more)


def left(uniqueid: str, bridge: str = "", **more: Any) -> LiveChannel:
    """Of somebody who has talked in the leg that has ended."""
    return channel(uniqueid, bridge, mark=Mark(LEG, FILE), **more)


def followed(recorded: str = CALLER, mixmonitor: str = OURS, *persons: str) -> Following:
    return Following(
        LEG, FILE, recorded, NAMES[recorded], mixmonitor, {each: NAMES[each] for each in persons}
    )


def decided(following: Following, *channels: LiveChannel) -> tuple[Step, str, set[str]]:
    """What, at which channel, and with whom."""
    decision = following.decide(Switchboard(channels))
    return decision.step, decision.at.uniqueid if decision.at else "", {*decision.persons}


RECORDED = channel(CALLER, "b", OURS)
AT_THE_CALLER = followed(CALLER, OURS, AGENT)
AT_THE_AGENT = followed(AGENT, OURS, CALLER)
NOTHING, END, OVER = ((step, "", set[str]()) for step in (Step.NOTHING, Step.END, Step.OVER))


def test_the_persons_are_known_when_somebody_talks() -> None:
    alone = followed(CALLER, OURS)

    assert decided(alone, channel(CALLER, mixmonitor=OURS)) == NOTHING
    assert decided(alone, RECORDED, channel(AGENT, "b")) == (Step.FORMED, CALLER, {AGENT})


@pytest.mark.parametrize(
    "channels",
    [
        pytest.param([RECORDED, channel(AGENT, "b")], id="as before"),
        pytest.param([RECORDED, channel(AGENT, "b"), channel(OTHER, "c")], id="others elsewhere"),
        pytest.param([channel(CALLER, mixmonitor=OURS)], id="the dialplan goes on after the agent"),
        pytest.param([RECORDED, channel(AGENT, "c"), channel(OTHER, "c")], id="the agent asks another first"),
        pytest.param([RECORDED, channel(AGENT, "c")], id="the agent's other telephone rings"),
        pytest.param([channel(CALLER, mixmonitor=OURS), channel(AGENT)], id="between two bridges"),
    ],
)
def test_is_no_change(channels: list[LiveChannel]) -> None:
    assert decided(AT_THE_CALLER, *channels) == NOTHING


def test_another_partner_is_the_next_leg() -> None:
    assert decided(AT_THE_CALLER, RECORDED, channel(OTHER, "b")) == (Step.NEXT, CALLER, {OTHER})


def test_another_partner_is_the_next_leg_while_the_former_one_is_not_gone_yet() -> None:
    assert decided(AT_THE_CALLER, RECORDED, channel(OTHER, "b"), channel(AGENT)) == (
        Step.NEXT,
        CALLER,
        {OTHER},
    )


@pytest.mark.parametrize("agent", [[], [channel(AGENT)]], ids=["gone", "about to go"])
def test_a_blind_transfer_ends_the_leg_before_another_answers(agent: list[LiveChannel]) -> None:
    assert decided(AT_THE_CALLER, channel(CALLER, mixmonitor=OURS, is_transferred=True), *agent) == END


def test_a_parked_caller_is_not_recorded() -> None:
    waiting = followed(CALLER, "", AGENT)

    assert decided(AT_THE_CALLER, channel(CALLER, "parking", OURS, is_parked=True)) == END
    assert decided(waiting, left(CALLER, "parking", is_parked=True)) == NOTHING
    assert decided(waiting, left(CALLER, "b"), channel(OTHER, "b")) == (Step.NEXT, CALLER, {OTHER})


def test_a_caller_who_is_parked_before_anybody_has_talked_with_him_is_not_recorded_there() -> None:
    """The dialplan parks him, or he was sent on before we knew with whom he talked."""
    waiting = followed(CALLER, "")

    assert decided(followed(CALLER, OURS), channel(CALLER, "parking", OURS, is_parked=True)) == END
    assert decided(waiting, left(CALLER, "parking", is_parked=True)) == NOTHING
    assert decided(waiting, left(CALLER, "b"), channel(OTHER, "b")) == (Step.NEXT, CALLER, {OTHER})


@pytest.mark.parametrize("mark", ["", Mark(LEG, FILE, is_paused=True)], ids=["stopped", "paused"])
def test_a_call_that_was_stopped_or_paused_while_it_was_parked_does_not_begin_again(mark: object) -> None:
    waiting, talk = followed(CALLER, "", AGENT), [channel(CALLER, "b", mark=mark), channel(OTHER, "b")]

    assert decided(waiting, *talk) == OVER
    assert that_ended(talk) == []


def test_whom_the_recorded_agent_asks_while_the_caller_waits_is_not_recorded() -> None:
    asks = [channel(AGENT, "c", OURS), channel(OTHER, "c"), left(CALLER, "b")]

    assert decided(AT_THE_AGENT, *asks) == END
    assert decided(followed(AGENT, "", CALLER), left(AGENT, "c"), *asks[1:]) == NOTHING


def test_the_recorded_agent_who_comes_back_is_the_next_leg() -> None:
    back = [left(AGENT, "b"), left(CALLER, "b"), channel(OTHER)]

    assert decided(followed(AGENT, "", CALLER), *back) == (Step.NEXT, AGENT, {CALLER})


@pytest.mark.parametrize("agent", [[], [channel(AGENT, mixmonitor=OURS)]], ids=["gone", "about to go"])
def test_the_recorded_agent_has_left_and_the_next_leg_is_the_callers(agent: list[LiveChannel]) -> None:
    talk = [left(CALLER, "b"), channel(OTHER, "b")]

    assert decided(AT_THE_AGENT, *agent, *talk) == END
    assert decided(followed(AGENT, "", CALLER), *agent, *talk) == (Step.NEXT, CALLER, {OTHER})


def test_it_is_over_with_the_call() -> None:
    assert decided(AT_THE_CALLER) == OVER
    assert decided(followed(CALLER, "", AGENT)) == OVER


@pytest.mark.parametrize("mixmonitor", ["", THEIRS], ids=["stopped", "replaced"])
def test_it_is_over_with_its_mixmonitor(mixmonitor: str) -> None:
    assert decided(AT_THE_CALLER, channel(CALLER, "b", mixmonitor), channel(AGENT, "b")) == OVER


def test_a_conversation_that_is_recorded_already_has_no_other_leg() -> None:
    waiting = followed(AGENT, "", CALLER)

    assert decided(waiting, left(CALLER, "b"), channel(OTHER, "b", THEIRS)) == OVER
    assert decided(waiting, left(CALLER, "b"), channel(OTHER, "b"))[0] is Step.NEXT


def test_somebody_who_joins_is_no_change_and_his_leaving_neither() -> None:
    assert decided(AT_THE_CALLER, RECORDED, channel(AGENT, "b"), channel(OTHER, "b")) == NOTHING
    assert decided(AT_THE_CALLER, RECORDED, channel(AGENT, "b")) == NOTHING


@pytest.mark.parametrize("application", ["Dial", "ConfBridge"])
def test_whoever_was_there_is_gone_and_several_others_talk_there(application: str) -> None:
    others = [channel(OTHER, "b"), channel(FOURTH, "b")]
    recorded = channel(CALLER, "b", OURS, application=application)

    assert decided(AT_THE_CALLER, recorded, *others) == (Step.NEXT, CALLER, {OTHER, FOURTH})
    assert decided(followed(CALLER, OURS, OTHER, FOURTH), recorded, others[0]) == NOTHING
    assert decided(
        followed(CALLER, OURS, OTHER, FOURTH), recorded, channel(OTHER, "b"), channel(AGENT, "b")
    ) == (
        Step.NEXT,
        CALLER,
        {OTHER, AGENT},
    )


def test_those_who_stay_behind_in_a_conference_are_not_recorded() -> None:
    conference = [left(OTHER, "b", application="ConfBridge"), left(FOURTH, "b", application="ConfBridge")]

    assert decided(followed(CALLER, "", OTHER, FOURTH), *conference) == NOTHING


def test_an_agent_who_stays_logged_in_has_done_with_the_call_when_he_is_alone() -> None:
    agent = channel(AGENT, "pool", application="AgentLogin")
    talk = [channel(CALLER, "b", OURS), channel(OTHER, "b")]

    assert (
        decided(AT_THE_CALLER, channel(CALLER, "b", OURS), channel(AGENT, "b", application="AgentLogin"))
        == NOTHING
    )
    assert decided(AT_THE_CALLER, *talk, agent) == (Step.NEXT, CALLER, {OTHER})
    recorded = channel(AGENT, "pool", OURS, application="AgentLogin")
    assert decided(AT_THE_AGENT, recorded, left(CALLER, "b"), channel(OTHER, "b")) == END
    over = left(AGENT, "pool", application="AgentLogin")
    assert decided(followed(AGENT, "", CALLER), over) == OVER
    assert decided(followed(AGENT, "", CALLER), over, left(CALLER, "b"), channel(OTHER, "b")) == (
        Step.NEXT,
        CALLER,
        {OTHER},
    )


def test_whoever_comes_from_a_paused_conversation_is_not_recorded() -> None:
    comes = channel(OTHER, "b", mark=Mark("22222222-0000-4000-8000-000000000000", FILE, is_paused=True))

    assert decided(AT_THE_CALLER, RECORDED, comes) == END
    assert decided(followed(CALLER, "", AGENT), left(CALLER, "b"), comes) == OVER


def test_who_is_around_is_found_through_bridges_and_local_channels() -> None:
    bridges = Bridges()
    halves = "Local/410@agents-1;1", "Local/410@agents-1;2"
    for bridge, name in zip("aabbc", ("SIP/1", *halves, "SIP/2", "SIP/3"), strict=True):
        bridges.enter(bridge, name)

    assert bridges.around(["SIP/2"]) == {"SIP/1", "SIP/2", *halves}
    bridges.leave("SIP/1")
    bridges.leave("SIP/1")
    bridges.enter("c", "SIP/2")
    assert bridges.around(["SIP/2", "SIP/9"]) == {"SIP/2", "SIP/3", "SIP/9"}
