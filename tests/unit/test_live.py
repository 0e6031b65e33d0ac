"""Which live channel an extension or a uniqueid means."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from noojee_agi.asterisk import target, variables
from noojee_agi.asterisk.live import Switchboard
from noojee_agi.asterisk.live_channel import LiveChannel
from noojee_agi.errors import NoSuchCall

RINGING = 5
OUR_MIXMONITOR = "0x7f3500000001"


def channel(name: str, uniqueid: str, **fields: object) -> LiveChannel:
    """A channel in a call of its own unless the test says more."""
    values = {**dict.fromkeys(target.READ, ""), **dict(fields.pop("values", {}))}  # type: ignore[call-overload]
    ordinary = {"linkedid": uniqueid, "values": values, **fields}
    return LiveChannel(name, uniqueid, **ordinary)  # type: ignore[arg-type]


def found(asked: str, *channels: LiveChannel) -> str:
    """The name of the channel that is meant; the order in which Asterisk lists them says nothing."""
    names = {Switchboard(order).find(asked).channel.name for order in (channels, channels[::-1])}
    assert len(names) == 1
    return names.pop()


TELEPHONE = channel("PJSIP/410-00000001", "1762420501.7")
ELSEWHERE = channel("PJSIP/411-00000002", "1762420501.8")


@pytest.mark.parametrize(
    "asked",
    [
        "410",
        "PJSIP/410",
        "pjsip/410",
        "Local/410@agents",
        "1762420501.7",
        "PJSIP/410-00000001",
        "pjsip/410-00000001",
    ],
)
def test_a_call_is_named_by_extension_technology_uniqueid_or_channel(asked: str) -> None:
    assert found(asked, TELEPHONE, ELSEWHERE) == TELEPHONE.name


@pytest.mark.parametrize("asked", ["trunk-a", "TRUNK-A", "SIP/Trunk-A"])
def test_letter_case_does_not_matter_and_the_last_hyphen_counts(asked: str) -> None:
    assert found(asked, channel("SIP/trunk-a-00000003", "1.1"), TELEPHONE) == "SIP/trunk-a-00000003"


@pytest.mark.parametrize("asked", ["41", "4100", "IAX2/410", "1762420501", "762420501.7", "PJSIP", ""])
def test_what_names_no_live_call_is_refused(asked: str) -> None:
    with pytest.raises(NoSuchCall):
        Switchboard([TELEPHONE, ELSEWHERE]).find(asked)


def test_sip_is_pjsip_where_there_is_no_such_call() -> None:
    """As whoever had chan_sip before has written it everywhere."""
    of_chan_sip = channel("SIP/410-00000004", "1762420501.9")
    assert found("SIP/410", TELEPHONE, ELSEWHERE) == TELEPHONE.name
    assert found("SIP/410", TELEPHONE, of_chan_sip) == of_chan_sip.name
    with pytest.raises(NoSuchCall):
        Switchboard([of_chan_sip, ELSEWHERE]).find("PJSIP/410")


@pytest.mark.parametrize("asked", ["pbx1-1762420501.7", "1762420501.7"])
def test_a_uniqueid_is_found_with_and_without_the_systems_name(asked: str) -> None:
    here = {"values": {variables.SYSTEMNAME: "pbx1"}}
    ours = channel("PJSIP/410-00000001", "pbx1-1762420501.7", **here)
    assert found(asked, ours, channel("PJSIP/411-00000002", "pbx1-1762420501.8", **here)) == ours.name


def test_another_systems_uniqueid_is_not_ours() -> None:
    ours = channel("PJSIP/410-00000001", "pbx1-1.7", values={variables.SYSTEMNAME: "pbx1"})
    with pytest.raises(NoSuchCall):
        Switchboard([ours]).find("pbx2-1.7")


def test_a_call_whose_first_channel_is_gone_is_still_found_by_its_uniqueid() -> None:
    assert (
        found("1.1", channel("PJSIP/410-00000002", "1.2", linkedid="1.1"), ELSEWHERE) == "PJSIP/410-00000002"
    )


def test_a_uniqueid_that_is_written_like_an_extension_comes_first() -> None:
    chosen = channel("PJSIP/500-00000009", "410")
    assert found("410", chosen, TELEPHONE) == chosen.name


@pytest.mark.parametrize(
    ("meant", "other"),
    [
        pytest.param({"seconds": 90}, {"seconds": 1, "state": RINGING}, id="up before ringing"),
        pytest.param({"seconds": 1}, {"seconds": 90}, id="the newest"),
        pytest.param({"seconds": 90}, {"seconds": 1, "is_parked": True}, id="talking before parked"),
        pytest.param({"state": RINGING, "seconds": 1}, {"state": RINGING, "seconds": 9}, id="newest ringing"),
        pytest.param({"is_parked": True}, {"state": RINGING}, id="parked before ringing"),
    ],
)
def test_of_two_calls_on_one_handset(meant: dict[str, object], other: dict[str, object]) -> None:
    one = channel("PJSIP/410-00000001", "1.1", **meant)
    assert found("410", one, channel("PJSIP/410-00000002", "1.2", **other)) == one.name


def test_of_two_calls_of_one_second_the_one_with_the_higher_number_is_newer() -> None:
    """As numbers, not as text."""
    newer = channel("PJSIP/410-0000000b", "1.10", seconds=3)
    assert found("410", newer, channel("PJSIP/410-00000009", "1.9", seconds=3)) == newer.name


def test_it_is_said_how_many_other_calls_there_were() -> None:
    handset = [channel(f"PJSIP/410-0000000{n}", f"1.{n}", seconds=n) for n in range(3)]
    assert Switchboard([*handset, ELSEWHERE]).find("410").others == 2
    assert Switchboard([TELEPHONE, ELSEWHERE]).find("410").others == 0


def test_two_channels_of_one_call_are_one_call() -> None:
    both = [channel(f"PJSIP/410-0000000{n}", f"1.{n}", linkedid="1.1") for n in (1, 2)]
    assert Switchboard(both).find("410").others == 0


@pytest.mark.parametrize(
    "name",
    [
        "PJSIP/410-00000005<ZOMBIE>",
        "Snoop/410-00000005",
        "Announcer/410-00000005",
        "Recorder/410-00000005",
        "CBAnn/410-00000005",
        "Message/410",
    ],
)
def test_nobody_sits_at_zombies_and_at_asterisks_own_channels(name: str) -> None:
    with pytest.raises(NoSuchCall):
        Switchboard([channel(name, "1.5")]).find("410")


@pytest.mark.parametrize("holder", ["AsyncGoto", "Surrogate", "Parked"])
def test_a_channel_that_is_being_moved_is_still_its_owners(holder: str) -> None:
    moved = channel(f"{holder}/PJSIP/410-00000005", "1.5")
    assert found("410", moved, ELSEWHERE) == moved.name


def test_the_telephone_is_meant_and_not_the_local_channel_that_rings_it() -> None:
    halves = [channel(f"Local/410@agents-00000001;{n}", f"1.{n}", linkedid="1.1", bridge="b") for n in (1, 2)]
    ringing = channel("PJSIP/410-00000001", "1.3", linkedid="1.1", state=RINGING)
    assert found("410", *halves, ringing) == ringing.name


def test_a_telephone_that_rings_for_another_call_comes_after_a_local_channel_that_is_up() -> None:
    """410 follows its user to a mobile, and rings for somebody else."""
    half = channel("Local/410@followme-00000001;1", "1.2", linkedid="1.1", bridge="b")
    assert found("410", half, channel("PJSIP/410-00000001", "1.3", state=RINGING)) == half.name


def test_where_there_is_no_telephone_the_bridged_half_of_a_local_channel_is_meant() -> None:
    one, two = (channel(f"Local/410@agents-00000001;{n}", f"1.{n}", linkedid="1.1") for n in (1, 2))
    bridged = channel(one.name, one.uniqueid, linkedid="1.1", bridge="b")
    assert found("410", bridged, two) == bridged.name


# ---- What is recorded already


def in_a_queue() -> tuple[LiveChannel, ...]:
    """A caller whose call is recorded, the two halves of a queue's Local member, and the agent at 410."""
    recorded = {variables.MIXMONITOR_ID: OUR_MIXMONITOR, variables.MEMBERINTERFACE: "Local/410@agents/n"}
    return (
        channel("PJSIP/trunk-a-00000001", "1.1", bridge="b1", values=recorded),
        channel("Local/410@agents-00000001;1", "1.2", linkedid="1.1", bridge="b1"),
        channel("Local/410@agents-00000001;2", "1.3", linkedid="1.1", bridge="b2"),
        channel("PJSIP/410-00000002", "1.4", linkedid="1.1", bridge="b2"),
    )


def test_a_conversation_that_is_recorded_at_its_other_end_is_meant_there() -> None:
    """So a new leg replaces the former one, and stop finds what it shall stop."""
    answer = Switchboard(in_a_queue()).find("410")
    assert (answer.channel.name, answer.extension, answer.extensions) == (
        "PJSIP/trunk-a-00000001",
        "410",
        ("410",),
    )


def test_a_channel_that_is_recorded_itself_is_meant_itself() -> None:
    *others, agent = in_a_queue()
    own = channel(
        agent.name,
        agent.uniqueid,
        linkedid="1.1",
        bridge="b2",
        values={variables.MIXMONITOR_ID: OUR_MIXMONITOR},
    )
    assert found("410", *others, own) == agent.name


def test_who_sits_in_a_conference_is_recorded_alone() -> None:
    recorded = {variables.MIXMONITOR_ID: OUR_MIXMONITOR}
    conference = [
        channel("PJSIP/410-00000001", "1.1", linkedid="1.1", bridge="b"),
        channel("PJSIP/411-00000002", "1.2", linkedid="1.1", bridge="b", values=recorded),
        channel("PJSIP/412-00000003", "1.3", linkedid="1.1", bridge="b"),
    ]
    assert found("410", *conference) == "PJSIP/410-00000001"


def test_the_callers_of_a_parking_lot_are_in_no_conversation() -> None:
    recorded = {variables.MIXMONITOR_ID: OUR_MIXMONITOR}
    lot = [
        channel("PJSIP/410-00000001", "1.1", bridge="lot", is_parked=True),
        channel("PJSIP/411-00000002", "1.2", bridge="lot", is_parked=True, values=recorded),
    ]
    assert found("410", *lot) == "PJSIP/410-00000001"


def test_who_was_parked_by_the_dialplan_and_is_fetched_talks_with_who_has_fetched_him() -> None:
    """The application is still Park."""
    recorded = {variables.MIXMONITOR_ID: OUR_MIXMONITOR}
    fetched = channel("PJSIP/trunk-00000001", "1.1", bridge="b", application="Park", values=recorded)
    assert found("412", fetched, channel("PJSIP/412-00000002", "1.2", bridge="b")) == fetched.name


@pytest.mark.parametrize(
    ("asked", "owners"),
    [
        ("410", ("410",)),
        ("1.1", ("410", "trunk-a")),
        ("1.4", ("410", "trunk-a")),
        ("PJSIP/trunk-a-00000001", ("410", "trunk-a")),
    ],
)
def test_whose_the_leg_may_be(asked: str, owners: Sequence[str]) -> None:
    """The extension that was named, and no other; of a uniqueid the queue's agent, its own, its peer's."""
    assert Switchboard(in_a_queue()).find(asked).extensions == owners


def test_an_agent_who_has_left_owns_nothing_any_more() -> None:
    """He has transferred the caller to 420: his name is still in the caller's variable."""
    caller, *_ = in_a_queue()
    now = channel("PJSIP/420-00000007", "1.7", linkedid="1.1", bridge="b1")
    assert Switchboard([caller, now]).find("1.1").extensions == ("trunk-a", "420")


@pytest.mark.parametrize("application", ["ConfBridge", "MeetMe"])
def test_two_in_a_conference_are_no_conversation_either(application: str) -> None:
    recorded = {variables.MIXMONITOR_ID: OUR_MIXMONITOR}
    one = channel("PJSIP/410-00000001", "1.1", bridge="b", application=application)
    other = channel("PJSIP/411-00000002", "1.2", bridge="b", application=application, values=recorded)
    assert found("410", one, other) == one.name


def test_a_bridge_with_a_channel_of_asterisks_own_is_still_a_conversation_of_two() -> None:
    recorded = {variables.MIXMONITOR_ID: OUR_MIXMONITOR}
    one = channel("PJSIP/410-00000001", "1.1", bridge="b")
    other = channel("PJSIP/411-00000002", "1.2", bridge="b", values=recorded)
    assert found("410", one, other, channel("Snoop/1.1-00000003", "1.3", bridge="b")) == other.name


def test_of_two_ends_that_are_recorded_the_named_one_is_meant() -> None:
    recorded = {variables.MIXMONITOR_ID: OUR_MIXMONITOR}
    one = channel("PJSIP/410-00000001", "1.1", bridge="b", seconds=9, values=recorded)
    other = channel("PJSIP/411-00000002", "1.2", bridge="b", seconds=1, values=recorded)
    assert found("410", one, other) == one.name


def test_who_stops_means_a_call_that_is_recorded_and_not_the_newest() -> None:
    """A consultation before a transfer is the newest."""
    recorded = {variables.MIXMONITOR_ID: OUR_MIXMONITOR}
    first = channel("PJSIP/410-00000001", "1.1", seconds=90, bridge="b1")
    peer = channel("PJSIP/411-00000002", "1.2", linkedid="1.1", seconds=90, bridge="b1", values=recorded)
    newest = channel("PJSIP/410-00000003", "1.3", seconds=1)
    board = Switchboard([newest, first, peer])

    assert board.find("410", prefers_recorded=True).channel == peer
    assert board.find("410").channel == newest
    assert board.find("410", prefers_recorded=True).others == 1


# ---- Who is listed


def test_a_list_has_telephones_and_the_oldest_first() -> None:
    *_, agent = in_a_queue()
    listed = Switchboard([*in_a_queue(), channel("PJSIP/500-00000009", "1.9", seconds=7)]).telephones()
    assert [each.name for each in listed] == ["PJSIP/500-00000009", "PJSIP/trunk-a-00000001", agent.name]


def test_a_local_channel_is_listed_where_nobody_else_is_in_the_call() -> None:
    halves = [channel(f"Local/410@agents-00000001;{n}", f"1.{n}", linkedid="1.1") for n in (1, 2)]
    assert [each.name for each in Switchboard(halves).telephones()] == [each.name for each in halves]
