"""What the API tells of recordings that real telephones have made: by tag, by call, by hour."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lab import api, office
from lab.api import LEGS, Api
from lab.crm import Crm, parse_legs
from lab.curl import Answer
from lab.office import ANN, CUSTOMER

from noojee_agi.config import Config

pytestmark = pytest.mark.asterisk

TAG = "Büro 7 & Söhne <b>"
BY_TAG, BY_CALL, BY_HOUR = (f"{LEGS}/retrieveMetaData{of}" for of in ("", "ByUniqueId", "ByHour"))


class Made(NamedTuple):
    """A call of two legs that has ended, and another that is being recorded. legs: the database's."""

    api: Api
    legs: list[dict[str, Any]]
    running: dict[str, Any]


@pytest.fixture(scope="module", params=[pytest.param(22, id="asterisk22"), pytest.param(16, id="asterisk16")])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with ExitStack() as stack:
        asked = api.api(request.param, tmp_path_factory.mktemp("office"), stack)
        first = call(asked, "start", tag=TAG, agentLoginName="Ann")
        call(asked, "pause")
        second = call(asked, "resume")
        talk(asked)
        office.hang_up(asked.at)
        legs = [asked.leg(each, "completed") for each in (first, second)]
        other = call(asked, "start", tag="other")
        talk(asked)
        yield Made(asked, legs, asked.leg(other, "recording"))
        office.hang_up(asked.at)


def call(asked: Api, what: str, **arguments: str) -> Answer:
    """Of the call to Ann, which begins with it."""
    if what == "start":
        asked.at.phones[CUSTOMER].dial(ANN)
        asked.at.exchange.wait_bridged(ANN)
    talk(asked)
    answer = asked.call(what, ANN, **arguments)
    assert answer.status == 200
    return answer


def talk(asked: Api) -> None:
    office.talk(asked.at, CUSTOMER, ANN, seconds=0.2)


def ids(answer: Answer) -> list[str]:
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    return [leg["RecordingId"] for leg in json.loads(answer.content)]


def shown(moment: str) -> str:
    """In the server's local time."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:23]


def server_of(made: Made) -> str:
    return Config.load(str(made.api.at.exchange.site.conf)).server_name


def test_each_leg_of_a_tag_with_all_that_the_database_knows(made: Made) -> None:
    found = made.api.ask(BY_TAG, {"tag": TAG})

    assert [leg["leg"] for leg in made.legs] == [1, 2]
    assert json.loads(found.content) == [
        {
            "CallRecordId": leg["call_record_id"],
            "UniqueId": leg["call_uniqueid"],
            "Leg": str(leg["leg"]),
            "Source": CUSTOMER,
            "Destination": ANN,
            "DID": leg["did"],
            "Direction": "Internal",
            "Start": shown(leg["started_at"]),
            "callend": shown(leg["ended_at"]),
            "Duration": str(round(leg["duration_seconds"])),
            "Tag": TAG,
            "Username": "Ann",
            "RecordingId": leg["id"],
            "Status": "completed",
            "ExternalReference": TAG,
            "Server": server_of(made),
        }
        for leg in made.legs
    ]


def test_a_crm_reads_it(made: Made) -> None:
    """And finds the legs again by the call, and by the hour in which they ended."""
    asked = Crm(made.api.url, made.api.key)
    status, answer = asked.by_tag(TAG)
    first, second = parse_legs(answer)
    assert second.end is not None
    started, ended = (datetime.fromisoformat(made.legs[1][name]) for name in ("started_at", "ended_at"))
    of_call = asked.by_unique_id(first.unique_id)[1]
    of_hour = asked.by_hour(second.end, second.end.hour)[1]

    assert (status, first.leg, second.leg, first.tag, first.username) == (200, 1, 2, TAG, "Ann")
    assert (first.source, first.destination, first.direction) == (CUSTOMER, ANN, "Internal")
    assert abs((second.end - second.start) - (ended - started)) < timedelta(milliseconds=2)
    assert parse_legs(of_call) == [first, second]
    assert second in parse_legs(of_hour)


def test_however_it_is_asked(made: Made) -> None:
    expected = [leg["id"] for leg in made.legs]
    key = f"apiKey={made.api.key}"

    in_body = made.api.ask(BY_TAG, has_key=False, data_urlencode=[f"tag={TAG}", key])
    in_header = made.api.ask(BY_TAG, "TAG=other", has_key=False, header=f"X-Api-Key: {made.api.key}")

    assert ids(in_body) == expected
    assert ids(in_header) == [made.running["id"]]
    assert ids(made.api.ask(BY_TAG, {"tag": "nobody's"})) == []


def test_the_legs_of_a_call_by_each_of_its_ends(made: Made) -> None:
    expected = [leg["id"] for leg in made.legs]
    first = made.legs[0]
    ends = {first["call_uniqueid"], first["uniqueid"], first["peer_uniqueid"]}

    assert len(ends) == 2
    for uniqueid in ends:
        assert ids(made.api.ask(BY_CALL, {"uniqueId": uniqueid})) == expected


def test_what_ended_in_an_hour(made: Made) -> None:
    """Not what still runs, and nothing of the hour before."""
    ended = [datetime.fromisoformat(leg["ended_at"]).astimezone() for leg in made.legs]
    hours = dict.fromkeys((moment.strftime("%Y/%m/%d"), str(moment.hour)) for moment in ended)

    found = [made.api.ask(BY_HOUR, {"date": date, "hour": hour}) for date, hour in hours]
    long_ago = made.api.ask(BY_HOUR, {"date": "2001/09/09", "hour": "1"})

    assert [leg for answer in found for leg in ids(answer)] == [leg["id"] for leg in made.legs]
    assert ids(long_ago) == []


def test_a_call_that_runs_has_no_end_yet_and_its_audio_can_be_fetched(made: Made) -> None:
    (leg,) = json.loads(made.api.ask(BY_TAG, {"tag": "other"}).content)

    assert (leg["Status"], leg["callend"], leg["Duration"], leg["Username"]) == ("recording", "", "0", "Ann")
    assert made.api.audio(leg["RecordingId"]).status == 200


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        (BY_TAG, {}),
        (BY_TAG, {"tag": ""}),
        (BY_CALL, {"tag": "other"}),
        (BY_HOUR, {"date": "2026-11-30", "hour": "1"}),
        (BY_HOUR, {"date": "2026/02/30", "hour": "1"}),
        (BY_HOUR, {"date": "2026/11/30", "hour": "24"}),
        (BY_HOUR, {"date": "2026/11/30"}),
    ],
)
def test_what_cannot_be_asked_is_400(made: Made, path: str, arguments: dict[str, str]) -> None:
    answer = made.api.ask(path, arguments)

    assert (answer.status, answer.body["Code"]) == (400, -400)
    assert answer.body["Message"]


@pytest.mark.parametrize("path", [BY_TAG, BY_CALL, BY_HOUR])
def test_nobody_is_told_without_the_key_and_nobody_by_get(made: Made, path: str) -> None:
    keyless = made.api.ask(path, {"tag": TAG}, has_key=False, interface="127.0.0.30")
    got = made.api.ask(path, {"tag": TAG}, request="GET")

    assert (keyless.status, keyless.body["Code"]) == (401, -401)
    assert (got.status, got.body["Code"], got.headers["allow"]) == (405, -405, "POST")


def test_a_leg_without_audio_is_not_told(made: Made) -> None:
    """Its file is gone, such as deleted by hand."""
    first, second = made.legs
    file, aside = Path(first["file"]), Path(first["file"] + ".aside")
    file.rename(aside)
    try:
        assert ids(made.api.ask(BY_TAG, {"tag": TAG})) == [second["id"]]
    finally:
        aside.rename(file)


def test_a_disk_that_is_not_mounted_is_503_and_not_no_recordings(made: Made) -> None:
    """Or a CRM would take it that nothing was recorded in that hour."""
    recordings = made.api.at.exchange.site.recordings_directory
    away = recordings.with_name("away")
    recordings.rename(away)
    recordings.mkdir()  # the bare mount point
    try:
        answers = [made.api.ask(BY_TAG, {"tag": TAG}), made.api.audio(made.legs[0]["id"])]
    finally:
        shutil.rmtree(recordings)
        away.rename(recordings)

    for answer in answers:
        assert (answer.status, answer.body["Code"]) == (503, -503)
        assert str(recordings) in answer.body["Message"]
    assert ids(made.api.ask(BY_TAG, {"tag": TAG})) == [leg["id"] for leg in made.legs]
