"""What is to be done with a recording when the channels of its call change."""

from __future__ import annotations

import pytest

from noojee_agi.asterisk import variables
from noojee_agi.asterisk.bridges import Bridges
from noojee_agi.asterisk.live import LiveChannel, Switchboard
from noojee_agi.server.following import Following, Step

OURS, THEIRS = "0x7f01", "0x7f02"
CALLER, AGENT, OTHER = "1.1", "1.2", "1.3"
NAMES = {CALLER: "PJSIP/trunk-01", AGENT: "PJSIP/410-02", OTHER: "PJSIP/412-03"}


def channel(uniqueid: str, bridge: str = "", mixmonitor: str = "", **more: object) -> LiveChannel:
    values = {variables.MIXMONITOR_ID: mixmonitor, variables.SYSTEMNAME: ""}
    if more.pop("is_transferred", False):
        values[variables.BLINDTRANSFER] = NAMES[AGENT]
    return LiveChannel(NAMES[uniqueid], uniqueid, "1.1", bridge=bridge, values=values, **more)  # type: ignore[arg-type]


def followed(recorded: str = CALLER, mixmonitor: str = OURS, *persons: str) -> Following:
    return Following(
        "leg", "file", recorded, NAMES[recorded], mixmonitor, {each: NAMES[each] for each in persons}
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
    parked = channel(CALLER, "parking", OURS, is_parked=True)
    waiting = followed(CALLER, "", AGENT)

    assert decided(AT_THE_CALLER, parked) == END
    assert decided(waiting, parked._replace(values=channel(CALLER).values)) == NOTHING
    assert decided(waiting, channel(CALLER, "b"), channel(OTHER, "b")) == (Step.NEXT, CALLER, {OTHER})


def test_whom_the_recorded_agent_asks_while_the_caller_waits_is_not_recorded() -> None:
    asks = [channel(AGENT, "c", OURS), channel(OTHER, "c"), channel(CALLER, "b")]

    assert decided(AT_THE_AGENT, *asks) == END
    assert decided(followed(AGENT, "", CALLER), *asks) == NOTHING


def test_the_recorded_agent_who_comes_back_is_the_next_leg() -> None:
    back = [channel(AGENT, "b"), channel(CALLER, "b"), channel(OTHER)]

    assert decided(followed(AGENT, "", CALLER), *back) == (Step.NEXT, AGENT, {CALLER})


@pytest.mark.parametrize("agent", [[], [channel(AGENT, mixmonitor=OURS)]], ids=["gone", "about to go"])
def test_the_recorded_agent_has_left_and_the_next_leg_is_the_callers(agent: list[LiveChannel]) -> None:
    talk = [channel(CALLER, "b"), channel(OTHER, "b")]

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

    assert decided(waiting, channel(CALLER, "b"), channel(OTHER, "b", THEIRS)) == OVER


def test_somebody_who_joins_is_no_change_and_his_leaving_neither() -> None:
    assert decided(AT_THE_CALLER, RECORDED, channel(AGENT, "b"), channel(OTHER, "b")) == NOTHING
    assert decided(AT_THE_CALLER, RECORDED, channel(AGENT, "b")) == NOTHING


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
