"""Which legs are found, and who may hear them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import update

from integration.recorder import Recorder, after, ended
from noojee_agi.database import settings
from noojee_agi.database.queries import Filter
from noojee_agi.database.tables import account, extension_attachment, team, team_member
from noojee_agi.recordings import recording

DAY = 86_400.0
PEOPLE = {
    "admin": ("Administrator",),
    "manager": ("Agent", "Recording Manager"),
    "leader": ("Team Leader",),
    "fred": ("Agent",),
    "lena": ("Agent",),
}


@pytest.fixture
def floor(recorder: Recorder) -> Recorder:
    """Legs named by their tag: fred's of day 0 and day 10, lena's, the leader's, and nobody's."""
    with recorder.store.transaction() as connection:
        for login, groups in PEOPLE.items():
            settings.add_account(connection, login, login, groups)
    legs = [
        _leg(recorder, "fred-0", "fred", 0),
        _leg(recorder, "lena-1", "lena", 1),
        _leg(recorder, "leader-2", "leader", 2),
        _leg(recorder, "nobody-3", "", 3),
        _leg(recorder, "fred-10", "fred", 10),
    ]
    recorder.store_all(*legs, ended(legs[0]), ended(legs[1], status="empty", bytes=44, duration_seconds=0.0))
    return recorder


def _leg(recorder: Recorder, tag: str, login: str, day: int) -> Any:
    return recorder.leg(
        tag=tag,
        agent_login_name=login,
        agent_known=True if login else None,
        call_uniqueid=f"call.{day}",
        uniqueid=f"channel.{day}",
        started_at=after(day * DAY),
    )


def tags(recorder: Recorder, **wanted: Any) -> list[str]:
    return [row["tag"] for row in recorder.legs(Filter(**wanted))]


def join(
    recorder: Recorder,
    team_name: str,
    login: str,
    start: datetime,
    end: datetime | None = None,
    is_leader: bool = False,
) -> None:
    recorder.execute(
        team_member.insert().values(
            team_id=_TEAMS[team_name],
            account_id=settings.account_id(login),
            joined_at=start,
            left_at=end,
            is_leader=is_leader,
        )
    )


_TEAMS = {"sales": recording.new_id(), "support": recording.new_id()}


@pytest.fixture
def teams(floor: Recorder) -> Recorder:
    for name, team_id in _TEAMS.items():
        floor.execute(team.insert().values(id=team_id, name=name))
    return floor


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["fred-0", "lena-1", "leader-2", "nobody-3", "fred-10"]),
    ({"tag": "lena-1"}, ["lena-1"]),
    ({"tag": "lena"}, []),
    ({"tag": "%"}, []),
    ({"uniqueid": "call.1"}, ["lena-1"]),
    ({"uniqueid": "channel.1"}, ["lena-1"]),
    ({"owner": "fred"}, ["fred-0", "fred-10"]),
    ({"owner": "unknown"}, []),
    ({"owner": ""}, []),
    ({"status": "completed"}, ["fred-0"]),
    ({"status": "empty"}, ["lena-1"]),
    ({"status": "recording"}, ["leader-2", "nobody-3", "fred-10"]),
    ({"status": "failed"}, []),
    ({"started_from": after(2 * DAY)}, ["leader-2", "nobody-3", "fred-10"]),
    ({"started_to": after(2 * DAY)}, ["fred-0", "lena-1"]),
    ({"started_from": after(DAY), "started_to": after(3 * DAY)}, ["lena-1", "leader-2"]),
    ({"owner": "fred", "status": "recording"}, ["fred-10"]),
    ({"owner": "fred", "tag": "lena-1"}, []),
]


def test_each_filter_finds_its_legs_oldest_first(floor: Recorder) -> None:
    assert [(wanted, tags(floor, **wanted)) for wanted, _ in FILTERS] == FILTERS


SYSTEMS = {
    "bare": ("1762420501.7", "1762420501.8", "1762420501.9"),
    "pbx1": ("pbx1-1762420501.7", "pbx1-1762420501.8", "pbx1-1762420501.9"),
    "pbx-2": ("pbx-2-1762420501.7", "pbx-2-1762420501.8", "pbx-2-1762420501.9"),
}


@pytest.fixture
def systems(recorder: Recorder) -> Recorder:
    """A leg of each server, named by its tag; the uniqueids of its channel, of its partner, of its call."""
    recorder.store_all(
        *(
            recorder.leg(server=name, tag=name, uniqueid=own, peer_uniqueid=peer, call_uniqueid=of_call)
            for name, (own, peer, of_call) in SYSTEMS.items()
        ),
        recorder.leg(
            server="pbx3", tag="no uniqueid", uniqueid="at-410", peer_uniqueid="", call_uniqueid="x"
        ),
    )
    return recorder


UNIQUEIDS: list[tuple[str, set[str]]] = [
    ("1762420501.{}", {"bare", "pbx1", "pbx-2"}),
    ("pbx1-1762420501.{}", {"pbx1"}),
    ("pbx-2-1762420501.{}", {"pbx-2"}),
    ("2-1762420501.{}", set()),
    ("pbx3-1762420501.{}", set()),
    ("bare-1762420501.{}", {"bare"}),
    ("-1762420501.{}", {"bare", "pbx1", "pbx-2"}),
    ("762420501.{}", set()),
    ("1762420501.{}0", set()),
    ("1762420501_{}", set()),
    ("%1762420501.{}", set()),
]


@pytest.mark.parametrize("channel", [7, 8, 9], ids=["its own", "its partner's", "its call's"])
def test_a_uniqueid_is_found_with_and_without_the_name_of_its_system(systems: Recorder, channel: int) -> None:
    found = [(asked, set(tags(systems, uniqueid=asked.format(channel)))) for asked, _ in UNIQUEIDS]
    assert found == UNIQUEIDS


def test_what_is_no_uniqueid_of_asterisk_s_is_found_as_it_is(systems: Recorder) -> None:
    assert tags(systems, uniqueid="at-410") == ["no uniqueid"]
    assert tags(systems, uniqueid="410") == []
    assert tags(systems, uniqueid="x") == ["no uniqueid"]


def test_no_partner_is_found_by_no_uniqueid(systems: Recorder) -> None:
    assert tags(systems, uniqueid="") == []


def test_a_tag_finds_all_legs_of_the_call_whose_external_reference_it_is(floor: Recorder) -> None:
    floor.store_all(_leg(floor, "INV-22", "lena", 0)._replace(started_at=after(60)))

    assert sorted(tags(floor, tag="INV-22")) == ["INV-22", "fred-0"]
    assert tags(floor, tag="fred-0") == ["fred-0"]


HEARD_WITHOUT_A_TEAM = {
    "admin": ["fred-0", "lena-1", "leader-2", "nobody-3", "fred-10"],
    "manager": ["fred-0", "lena-1", "leader-2", "nobody-3", "fred-10"],
    "leader": ["leader-2"],
    "fred": ["fred-0", "fred-10"],
    "lena": ["lena-1"],
    "unknown": [],
    "": [],
    "FRED": [],
}


def test_without_a_team_everybody_hears_the_own_legs_and_managers_all(floor: Recorder) -> None:
    assert {login: tags(floor, heard_by=login) for login in HEARD_WITHOUT_A_TEAM} == HEARD_WITHOUT_A_TEAM


def test_a_disabled_account_hears_nothing(floor: Recorder) -> None:
    floor.execute(update(account).values(enabled=False))

    assert [tags(floor, heard_by=login) for login in PEOPLE] == [[]] * len(PEOPLE)


def test_the_legs_of_a_disabled_owner_stay_with_those_who_may_hear_all(floor: Recorder) -> None:
    floor.execute(update(account).where(account.c.login == "fred").values(enabled=False))

    assert tags(floor, heard_by="manager", owner="fred") == ["fred-0", "fred-10"]


def test_only_the_two_groups_hear_all(floor: Recorder) -> None:
    groups = ("recording manager", "Administrators", "Team Leader", "Agent", "Supervisor")
    with floor.store.transaction() as connection:
        for group in groups:
            settings.add_account(connection, f"guest of {group}", "guest", (group,))

    assert [tags(floor, heard_by=f"guest of {group}") for group in groups] == [[]] * len(groups)


@pytest.mark.parametrize(
    ("joined", "left", "heard"),
    [
        (-DAY, None, ["fred-0", "leader-2", "fred-10"]),
        (0, None, ["fred-0", "leader-2", "fred-10"]),
        (1, None, ["leader-2", "fred-10"]),
        (-DAY, 5 * DAY, ["fred-0", "leader-2"]),
        (-DAY, 10 * DAY, ["fred-0", "leader-2"]),
        (-DAY, 10 * DAY + 1, ["fred-0", "leader-2", "fred-10"]),
        (11 * DAY, None, ["leader-2"]),
        (-2 * DAY, -DAY, ["leader-2"]),
    ],
)
def test_a_leader_hears_what_a_member_recorded_while_in_the_team(
    teams: Recorder, joined: float, left: float | None, heard: list[str]
) -> None:
    join(teams, "sales", "leader", after(-DAY), is_leader=True)
    join(teams, "sales", "fred", after(joined), None if left is None else after(left))

    assert tags(teams, heard_by="leader") == heard


def test_a_member_who_left_and_came_back_was_not_heard_in_between(teams: Recorder) -> None:
    join(teams, "sales", "leader", after(-DAY), is_leader=True)
    join(teams, "sales", "fred", after(-DAY), after(-1))
    join(teams, "sales", "fred", after(9 * DAY))

    assert tags(teams, heard_by="leader") == ["leader-2", "fred-10"]


def test_a_leg_is_listed_once_although_two_teams_show_it(teams: Recorder) -> None:
    for name in _TEAMS:
        join(teams, name, "leader", after(-DAY), is_leader=True)
        join(teams, name, "fred", after(-DAY))

    assert tags(teams, heard_by="leader") == ["fred-0", "leader-2", "fred-10"]


def test_who_leads_no_more_hears_nothing_of_the_team(teams: Recorder) -> None:
    join(teams, "sales", "leader", after(-DAY), after(DAY), is_leader=True)
    join(teams, "sales", "fred", after(-DAY))

    assert tags(teams, heard_by="leader") == ["leader-2"]


def test_another_teams_leader_hears_nothing_of_this_team(teams: Recorder) -> None:
    join(teams, "support", "leader", after(-DAY), is_leader=True)
    join(teams, "sales", "fred", after(-DAY))
    join(teams, "support", "lena", after(-DAY))

    assert tags(teams, heard_by="leader") == ["lena-1", "leader-2"]


def test_a_member_hears_neither_the_leader_nor_the_others(teams: Recorder) -> None:
    join(teams, "sales", "leader", after(-DAY), is_leader=True)
    join(teams, "sales", "fred", after(-DAY))
    join(teams, "sales", "lena", after(-DAY))

    assert tags(teams, heard_by="fred") == ["fred-0", "fred-10"]


def test_nobodys_leg_is_heard_by_no_leader(teams: Recorder) -> None:
    for login in PEOPLE:
        join(teams, "sales", login, after(-DAY), is_leader=login == "leader")

    assert "nobody-3" not in tags(teams, heard_by="leader")


def test_hearing_narrows_the_other_filters(teams: Recorder) -> None:
    assert tags(teams, heard_by="fred", owner="lena") == []
    assert tags(teams, heard_by="fred", started_from=after(DAY)) == ["fred-10"]
    assert tags(teams, heard_by="fred", tag="lena-1") == []


def test_a_transferred_call_is_heard_leg_by_leg(floor: Recorder) -> None:
    """The External Reference is the call's, the hearing is the leg's."""
    floor.store_all(_leg(floor, "INV-22", "lena", 0)._replace(started_at=after(60)))

    assert tags(floor, heard_by="lena", tag="INV-22") == ["INV-22"]
    assert tags(floor, heard_by="fred", tag="INV-22") == ["fred-0"]


def test_an_attachment_gives_no_right_to_hear_what_was_recorded_before(floor: Recorder) -> None:
    floor.execute(
        extension_attachment.insert().values(
            extension="410", account_id=settings.account_id("lena"), attached_at=after(2 * DAY)
        )
    )
    floor.store_all(_leg(floor, "before", "", 1), _leg(floor, "behind", "", 4))

    assert tags(floor, heard_by="lena") == ["lena-1", "behind"]
