"""Groups and teams, as a sysadmin changes them: what is heard follows, and what was stays known."""

from __future__ import annotations

import json
import os
import re
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from lab.postgresql import PrivatePostgreSQL
from lab.site import Site

from integration.conftest import BACKENDS
from integration.recorder import Recorder
from integration.test_cli import assert_one_line_error, run_here
from noojee_agi.database import hearing, settings, teams
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.database.tables import team_member
from noojee_agi.errors import BadArgument, StoreDuplicate
from noojee_agi.recordings import people, recording, snapshot

# What a test leaves behind, in an order in which it can be deleted.
_TABLES = (
    *("access_log", "recording_event", "recording_leg", "call_record"),
    *("team_member", "team", "account_group", "account"),
)


@pytest.fixture(scope="module", params=BACKENDS)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One installation per database for the whole module; see `site`."""
    url = ""
    if request.param == "postgresql":
        server: PrivatePostgreSQL = request.getfixturevalue("postgresql")
        url = server.url(server.create_database())
    return Site(tmp_path_factory.mktemp("teams") / "site", url)


@pytest.fixture
def site(installed: Site) -> Site:
    """An installation with Lea, who may lead, Fred and Ann."""
    with Store(installed.database_url).transaction() as connection:
        for table in _TABLES:
            connection.exec_driver_sql(f"DELETE FROM {table}")
        for login in ("lea", "fred", "ann"):
            settings.add_account(connection, login, login.title(), ())
    (installed.recordings_directory / ".settings.json").unlink(missing_ok=True)
    return installed


@pytest.fixture
def recorder(site: Site, tmp_path: Path) -> Recorder:
    return Recorder(Store(site.database_url), tmp_path / "recordings")


def run(site: Site, *lines: str) -> None:
    for line in lines:
        done = run_here(site, *line.split())
        assert (done.returncode, done.stderr) == (0, ""), done


def listed(site: Site) -> Any:
    return json.loads(run_here(site, "team", "list", "--json").stdout)


def record(recorder: Recorder, login: str) -> str:
    """A leg of that owner that begins now; its id."""
    leg = recorder.leg(
        agent_login_name=login,
        agent_known=True,
        call_uniqueid=recording.new_id(),
        started_at=recording.now(),
    )
    recorder.store_all(leg)
    return leg.id


def heard(recorder: Recorder, login: str) -> list[str]:
    return [leg["id"] for leg in recorder.legs(Filter(heard_by=login))]


def test_a_leader_hears_what_was_recorded_between_join_and_leave(site: Site, recorder: Recorder) -> None:
    run(site, "team add sales", "team join sales lea", "team lead sales lea")
    record(recorder, "fred")
    run(site, "team join sales fred")
    between = record(recorder, "fred")
    run(site, "team leave sales fred")
    record(recorder, "fred")

    assert heard(recorder, "lea") == [between]
    run(site, "team lead sales lea --not")
    assert heard(recorder, "lea") == []
    run(site, "team lead sales lea")
    assert heard(recorder, "lea") == [between]
    run(site, "team leave sales lea")
    assert heard(recorder, "lea") == []


def test_a_member_is_heard_without_a_gap_when_it_begins_to_lead_and_ends(
    site: Site, recorder: Recorder
) -> None:
    run(site, "team add sales", "team join sales ann", "team lead sales ann", "team join sales lea")
    legs = [record(recorder, "lea")]
    for line in ("team lead sales lea", "team lead sales lea --not"):
        run(site, line)
        legs.append(record(recorder, "lea"))

    assert heard(recorder, "ann") == legs
    [sales] = listed(site)
    of_lea = [stay for stay in sales["members"] if stay["login"] == "lea"]
    assert [stay["is_leader"] for stay in of_lea] == [False, True, False]
    assert [stay["left_at"] for stay in of_lea] == [*(stay["joined_at"] for stay in of_lea[1:]), None]
    assert all(datetime.fromisoformat(stay["joined_at"]).tzinfo for stay in of_lea)


def test_the_call_path_knows_at_once(site: Site) -> None:
    run(site, "team add sales", "team join sales lea", "team lead sales lea", "team join sales fred")

    known = snapshot.load(str(site.snapshot))
    assert known is not None
    house = known.people()
    assert house is not None
    now = recording.now()
    assert people.may_hear("lea", "fred", now, house)
    assert not people.may_hear("fred", "lea", now, house)
    run(site, "account group add fred Administrator")
    known = snapshot.load(str(site.snapshot))
    assert known is not None
    house = known.people()
    assert house is not None
    assert people.may_hear("fred", "lea", now, house)


def test_groups_come_and_go(site: Site, recorder: Recorder) -> None:
    leg = record(recorder, "fred")
    assert run_here(site, "account", "group", "add", "lea", "Recording Manager").returncode == 0
    run(site, "account group add lea night")
    assert heard(recorder, "lea") == [leg]
    assert "Recording Manager, night" in run_here(site, "account", "list").stdout

    assert run_here(site, "account", "group", "remove", "lea", "Recording Manager").returncode == 0
    assert heard(recorder, "lea") == []


def test_teams_are_a_table_of_who_is_in_them_now(site: Site) -> None:
    run(site, "team add sales", "team add empty", "team join sales lea", "team lead sales lea")
    run(site, "team join sales fred", "team join sales ann", "team leave sales ann")

    head, *rows = (re.split(r" {2,}", line) for line in run_here(site, "team", "list").stdout.splitlines())

    [sales] = [team for team in listed(site) if team["name"] == "sales"]
    [joined, _] = [stay["joined_at"] for stay in sales["members"] if stay["login"] == "lea"]
    since = datetime.fromisoformat(joined).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert head == ["team", "login", "since", "leads"]
    assert [[row[0], row[1], row[3]] for row in rows] == [
        ["empty", "-", "-"],
        ["sales", "fred", "no"],
        ["sales", "lea", "yes"],
    ]
    assert rows[2][2] == since


WHAT_CANNOT_BE = {
    "team add sales": ["there is a team sales already"],
    "team remove sales": ["has had members", "noojee-agi team leave sales LOGIN"],
    "team remove nosuch": ["no team nosuch", "noojee-agi team list"],
    "team join nosuch fred": ["no team nosuch", "noojee-agi team list"],
    "team join sales nobody": ["no account nobody", "noojee-agi account list"],
    "team join sales lea": ["lea is in sales already"],
    "team leave sales fred": ["fred is not in sales", "noojee-agi team list"],
    "team leave sales nobody": ["no account nobody"],
    "team lead sales fred": ["fred is not in sales"],
    "team lead sales ann": ["ann leads sales already"],
    "team lead sales lea --not": ["lea does not lead sales"],
    "account group add nobody Agent": ["no account nobody"],
    "account group add lea Agent": ["lea is in the group Agent already"],
    "account group add lea administrator": ["the group is spelled Administrator"],
    "account group remove lea Night": ["lea is not in the group Night"],
    "account group remove nobody Agent": ["no account nobody"],
    "account add guest --group agent": ["the group is spelled Agent"],
}


def test_what_cannot_be_is_said_and_nothing_changes(site: Site) -> None:
    run(site, "team add sales", "team join sales lea", "team join sales ann", "team lead sales ann")
    run(site, "account group add lea Agent")
    before = listed(site), run_here(site, "account", "list").stdout

    for line, words in WHAT_CANNOT_BE.items():
        assert_one_line_error(run_here(site, *line.split()), *words)

        assert (listed(site), run_here(site, "account", "list").stdout) == before


def test_a_team_has_a_name_that_can_be_typed(site: Site) -> None:
    for name in ("", " sales", "a\nb", "x" * 256):
        assert_one_line_error(run_here(site, "team", "add", name), "NAME must have")
    assert listed(site) == []


def test_a_team_without_a_history_is_removed(site: Site) -> None:
    run(site, "team add sales", "team remove sales")

    assert listed(site) == []


def test_who_comes_back_has_two_stays(site: Site) -> None:
    run(site, "team add sales", "team join sales fred", "team leave sales fred", "team join sales fred")

    [sales] = listed(site)
    assert [stay["left_at"] is None for stay in sales["members"]] == [False, True]


def test_two_hosts_that_let_somebody_join_at_once_make_one_stay(site: Site) -> None:
    run(site, "team add sales")
    refused: list[Exception] = []
    begin = threading.Barrier(4)

    def join() -> None:
        store = Store(site.database_url)
        begin.wait()
        try:
            with store.transaction() as connection:
                teams.join(connection, "sales", "fred")
        except (BadArgument, StoreDuplicate) as exc:
            refused.append(exc)

    hosts = [threading.Thread(target=join) for _ in range(4)]
    for each in hosts:
        each.start()
    for each in hosts:
        each.join()

    [sales] = listed(site)
    assert (len(sales["members"]), len(refused)) == (1, 3)


def test_a_lost_database_gets_them_back_with_their_dates_and_groups(site: Site, recorder: Recorder) -> None:
    run(site, "team add sales", "team add empty", "team join sales lea", "team lead sales lea")
    run(site, "team join sales fred", "team leave sales fred", "account group add ann Agent")
    before = listed(site), run_here(site, "account", "list", "--json").stdout
    with Store(site.database_url).transaction() as connection:
        for table in ("team_member", "team", "account_group", "account"):
            connection.exec_driver_sql(f"DELETE FROM {table}")

    # What is changed meanwhile does not make the copy forget.
    assert run_here(site, "team", "add", "new").returncode == 0
    run(site, "sync --rebuild")

    after = listed(site), run_here(site, "account", "list", "--json").stdout
    assert [team for team in after[0] if team["name"] != "new"] == before[0]
    assert after[1] == before[1]
    with recorder.store.reading() as connection:
        assert [team.leaders for team in hearing.people(connection).teams] == [{"lea"}]


def test_an_older_backup_gets_back_who_leads_now(site: Site, recorder: Recorder) -> None:
    run(site, "team add sales", "team join sales lea")
    with recorder.store.reading() as connection:
        [backup] = [dict(row._mapping) for row in connection.execute(team_member.select())]
    run(site, "team lead sales lea")
    now = listed(site)
    recorder.execute(team_member.delete())
    recorder.execute(team_member.insert().values(**backup))
    assert listed(site) != now

    run(site, "sync --rebuild")

    assert listed(site) == now


def test_a_membership_that_the_database_has_lost_stays_in_the_copy(site: Site, recorder: Recorder) -> None:
    run(site, "team add sales", "team join sales lea")
    copy = site.recordings_directory / ".settings.json"
    before = json.loads(copy.read_text())["team_member"]
    recorder.execute(team_member.delete())

    done = run_here(site, "account", "disable", "ann")

    assert "knows settings that the database has lost" in done.stderr
    assert json.loads(copy.read_text())["team_member"] == before
    assert os.path.exists(copy)
