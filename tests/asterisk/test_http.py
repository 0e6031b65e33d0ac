"""The API by HTTP records live calls: real Asterisks with telephones, asked by curl and by a CRM."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab import api, office, readme, tones
from lab.api import CALLS, WAYS, Api, Way, by_crm
from lab.curl import Answer
from lab.office import ANN, CUSTOMER, TONES
from lab.process_watch import ProcessWatch
from lab.transitions import ALONE, CONSULTING
from lab.waiting import wait_until

pytestmark = pytest.mark.asterisk

BY_EACH_WAY = pytest.mark.parametrize("way", WAYS)
HOSTILE = "Büro 7 & Söhne <b>+50%"
LOUD = 0.12  # a telephone's tone has 0.24


@pytest.fixture(
    scope="module", params=[pytest.param(22, id="asterisk22"), pytest.param(16, id="asterisk16")], name="own"
)
def api_of_module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with ExitStack() as stack:
        yield api.api(request.param, tmp_path_factory.mktemp("office"), stack)


@pytest.fixture
def asked(own: Api) -> Iterator[Api]:
    """The customer talks with Ann at 410."""
    own.at.phones[CUSTOMER].dial(ANN)
    own.at.exchange.wait_bridged(ANN)
    yield own
    office.hang_up(own.at)


def the_call(asked: Api) -> str:
    """What a message says of it."""
    channels = asked.at.exchange.channels()
    name = asked.at.exchange.channel(ANN)
    return f"the call of {name} (uniqueid {channels[name]})"


def talk(asked: Api, seconds: float = 0.4) -> None:
    office.talk(asked.at, CUSTOMER, ANN, seconds=seconds)


def loudest(leg: dict[str, object], hertz: int) -> float:
    return max(tones.levels(Path(str(leg["file"])), hertz, 20))


# ---- start, stop, pause, resume


@BY_EACH_WAY
def test_a_start_finds_the_call_by_each_of_its_names(asked: Api, way: Way) -> None:
    name = asked.at.exchange.channel(ANN)
    uniqueid = asked.at.exchange.channels()[name]
    said = the_call(asked)

    answers = []
    for number, named in enumerate([ANN, f"PJSIP/{ANN}", f"SIP/{ANN}", uniqueid], 1):
        status, body = way(asked, "start", named, tag=f"tag {number}", agentLoginName="Ann")
        assert (status, body["Code"], body["Message"]) == (200, 0, f"OK, {said}")
        answers.append(body)
    talk(asked)
    office.hang_up(asked.at)

    leg = asked.leg_of(answers[-1]["RecordingId"], "completed")
    legs = [asked.at.exchange.site.legs("--id", each["RecordingId"])[0] for each in answers]
    assert [each["File"] for each in answers] == [each["file"] for each in legs]
    assert [(each["leg"], each["tag"], each["owner"]) for each in legs] == [
        (number, f"tag {number}", "Ann") for number in (1, 2, 3, 4)
    ]
    assert {(each["channel"], each["uniqueid"]) for each in legs} == {(name, uniqueid)}
    assert (leg["source"], leg["destination"]) == (CUSTOMER, ANN)
    assert min(loudest(leg, TONES[who]) for who in (ANN, CUSTOMER)) > LOUD
    audio = asked.audio(leg["id"])
    assert (audio.status, audio.content) == (200, Path(leg["file"]).read_bytes())


@BY_EACH_WAY
def test_a_pause_a_resume_and_a_stop(asked: Api, way: Way) -> None:
    _, first = way(asked, "start", ANN, tag="paused", agentLoginName="Ann")
    talk(asked)
    status, paused = way(asked, "pause", CUSTOMER)
    assert (status, paused["Code"], paused["RecordingId"]) == (200, 0, first["RecordingId"])
    for who, hertz in ((CUSTOMER, ALONE), (ANN, CONSULTING)):
        asked.at.phones[who].say(hertz)
    talk(asked)
    for who in (CUSTOMER, ANN):
        asked.at.phones[who].say(TONES[who])
    talk(asked)  # what is on its way has another tone
    status, second = way(asked, "resume", ANN)
    assert (status, second["Code"]) == (200, 0)
    talk(asked)
    status, stopped = way(asked, "stop", ANN, agentLoginName="Ann")
    assert (status, stopped["Code"], stopped["RecordingId"]) == (200, 0, second["RecordingId"])
    assert [stopped["File"], paused["File"]] == [second["File"], first["File"]]

    status, body = way(asked, "stop", ANN)
    assert (status, body["Code"], body["RecordingId"], body["File"]) == (409, -409, "", "")

    legs = [asked.leg_of(each["RecordingId"], "completed") for each in (first, second)]
    assert [(leg["leg"], leg["tag"], leg["owner"]) for leg in legs] == [
        (1, "paused", "Ann"),
        (2, "paused", "Ann"),
    ]
    for leg in legs:
        assert min(loudest(leg, TONES[who]) for who in (ANN, CUSTOMER)) > LOUD
        assert max(loudest(leg, hertz) for hertz in (ALONE, CONSULTING)) < LOUD / 4


SEQUENCE: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("start", "499", {}),
    ("start", ANN, {"tag": "t" * 256}),
    ("start", ANN, {"tag": "told"}),
    ("pause", ANN, {"agentLoginName": "Carl"}),
    ("resume", ANN, {}),
    ("start", ANN, {"agentLoginName": "Nobody"}),
    ("pause", ANN, {}),
    ("pause", ANN, {}),
    ("resume", CUSTOMER, {}),
    ("stop", ANN, {}),
    ("stop", ANN, {}),
)
OPTIONS = {"tag": "--tag", "agentLoginName": "--login"}


def test_it_says_what_the_command_line_says(asked: Api) -> None:
    """Each time the same, also for what is refused."""
    typed, sent = [], []
    for what, named, arguments in SEQUENCE:
        wait_stored(asked, arguments, 1)
        options = [word for name, value in arguments.items() for word in (OPTIONS[name], value)]
        done = asked.at.exchange.site.record(what, named, *options)
        typed.append((done.stdout or done.stderr.removeprefix("Error: ")).splitlines()[0])
    for what, named, arguments in SEQUENCE:
        wait_stored(asked, arguments, 2)
        answer = asked.call(what, named, **arguments)
        sent.append(f"{answer.status} {answer.body['Message']}")
        is_remark = "Nobody" in arguments.values()
        assert answer.body["Code"] == (int(is_remark) if answer.status == 200 else -answer.status)

    assert sent == typed
    assert [line[:3] for line in sent] == [
        *("404", "400", "200", "403", "409", "200", "200", "409", "200", "200", "409"),
    ]


def wait_stored(asked: Api, arguments: dict[str, str], count: int) -> None:
    """Where somebody may be refused, until the database knows whose so many legs of that tag are."""
    legs = asked.at.exchange.site.legs

    def are_there() -> bool:
        return len([leg for leg in legs() if leg["tag"] == "told"]) == count

    if arguments.get("agentLoginName") == "Carl":
        wait_until(are_there, 20, "the leg", legs)


# ---- Arguments


def test_arguments_arrive_as_they_were_meant_however_they_are_sent(asked: Api) -> None:
    start = f"{CALLS}/start"
    key = f"apiKey={asked.key}"
    call = f"extenOrUniqueId={ANN}"
    coded = "B%C3%BCro+7%20%26%20S%C3%B6hne%20%3Cb%3E%2b50%25"
    sent = {
        "query": asked.ask(start, {"extenOrUniqueId": ANN, "tag": HOSTILE}),
        "as another client encodes it": asked.ask(start, f"{call}&tag={coded}"),
        "body": asked.ask(start, has_key=False, data_urlencode=[call, f"tag={HOSTILE}", key]),
        "the body wins": asked.ask(
            start, "extenOrUniqueId=499&tag=query&apiKey=no", has_key=False, data=f"{call}&tag={coded}&{key}"
        ),
        "both": asked.ask(start, call, data=f"tag={coded}"),
        "letter case": asked.ask(
            start, f"EXTENORUNIQUEID={ANN}&Tag={coded}&APIKEY={asked.key}", has_key=False
        ),
        "header": asked.ask(
            start, f"{call}&tag={coded}", has_key=False, header=f"X-Api-Key: {asked.key}", data=""
        ),
    }

    assert {how: (answer.status, answer.body["Code"]) for how, answer in sent.items()} == dict.fromkeys(
        sent, (200, 0)
    )
    for answer in sent.values():
        (leg,) = asked.at.exchange.site.wait_for_legs("--id", answer.body["RecordingId"])
        assert (leg["tag"], leg["external_reference"]) == (HOSTILE, HOSTILE)
    assert asked.at.exchange.mixmonitors() == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("extenOrUniqueId=410&extenoruniqueid=411", "extenOrUniqueId is given twice"),
        ("", "extenOrUniqueId is missing"),
        ("extenOrUniqueId=%20", "extenOrUniqueId is missing"),
        ("extenOrUniqueId=410&tag=%FF", "UTF-8"),
        (f"extenOrUniqueId=410&tag={'t' * 256}", "tag has 256 characters"),
        ("extenOrUniqueId=at/", "at/ names no call"),
    ],
)
def test_arguments_that_cannot_be_are_400(own: Api, arguments: str, says: str) -> None:
    answer = own.ask(f"{CALLS}/start", arguments)

    assert (answer.status, answer.body["Code"]) == (400, -400)
    assert says in answer.body["Message"]


def test_an_argument_that_nobody_knows_is_a_warning(asked: Api) -> None:
    answer = asked.call("start", ANN, tga="22")

    assert (answer.status, answer.body["Code"]) == (200, 1)
    assert "other names" in answer.body["Message"]


def test_get_starts_and_stops_where_it_is_allowed_with_its_tag_that_is_none(asked: Api) -> None:
    written = f"extenOrUniqueId={ANN}&tag22&agentLoginName=Ann"
    assert asked.ask(f"{CALLS}/start", written, request="GET").status == 405

    with configured(asked, allow_get="yes"):
        started = wait_until(lambda: done(asked.ask(f"{CALLS}/start", written, request="GET")), 30, "a GET")
        talk(asked)
        stopped = asked.ask(f"{CALLS}/stop", f"extenOrUniqueId={ANN}", request="GET")
        others = [asked.ask(f"{CALLS}/{what}", request="GET") for what in ("pause", "resume")]

    assert (started.body["Code"], stopped.status) == (0, 200)
    leg = asked.leg(started, "completed")
    assert (leg["tag"], leg["owner"]) == ("", "Ann")
    assert [(answer.status, answer.headers["allow"]) for answer in others] == [(405, "POST")] * 2


def done(answer: Answer) -> Answer | None:
    """It, if it is no refusal."""
    return answer if answer.status == 200 else None


@contextmanager
def configured(asked: Api, **options: str) -> Iterator[None]:
    asked.configure(**options)
    try:
        yield
    finally:
        asked.configure()


# ---- Refusals


@pytest.mark.parametrize(
    ("path", "verbs", "allowed"),
    [
        (f"{CALLS}/start", ("GET", "PUT", "DELETE", "HEAD"), "POST"),
        (f"{CALLS}/resume", ("GET", "OPTIONS"), "POST"),
        ("/recordings/x/audio", ("POST", "DELETE"), "GET, HEAD"),
    ],
)
def test_another_verb_is_405(own: Api, path: str, verbs: tuple[str, ...], allowed: str) -> None:
    for verb in verbs:
        answer = own.ask(path, request=verb)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        if verb != "HEAD":
            assert (answer.body["Code"], allowed in answer.body["Message"]) == (-405, True)


def test_a_wrong_key_is_401_and_ten_of_them_close_the_door_to_their_address(asked: Api) -> None:
    start, call = f"{CALLS}/start", f"extenOrUniqueId={ANN}"
    guessing: dict[str, Any] = {"interface": "127.0.0.9"}
    missing = asked.ask(start, call, has_key=False, **guessing)
    wrong = [
        asked.ask(start, f"{call}&apiKey=guess-{number}", has_key=False, **guessing) for number in range(9)
    ]
    in_header = asked.ask(start, call, has_key=False, header="X-Api-Key: guess-9", **guessing)
    shut = asked.ask(start, call, **guessing)
    elsewhere = asked.ask(start, call, interface="127.0.0.10")

    for answer in (missing, *wrong, in_header):
        assert (answer.status, answer.body["Code"]) == (401, -401)
        assert "apiKey" in answer.body["Message"]
    assert (shut.status, shut.body["Code"]) == (429, -429)
    assert 50 < int(shut.headers["retry-after"]) <= 60
    assert elsewhere.status == 200


def test_a_body_that_is_no_form_is_415_and_one_that_is_too_large_is_413(own: Api) -> None:
    start = f"{CALLS}/start"
    no_form = own.ask(start, data='{"tag": "22"}', header="Content-Type: application/json")
    too_large = own.ask(start, data=f"tag={'t' * 20_000}")

    assert (no_form.status, no_form.body["Code"]) == (415, -415)
    assert (too_large.status, too_large.body["Code"]) == (413, -413)


def test_what_is_not_there_is_404(own: Api) -> None:
    nobody = own.call("start", "499")
    nowhere = own.ask("/nowhere")
    no_leg = own.audio("00000000-0000-4000-8000-000000000000")
    no_id = own.audio("..%2f..%2fetc%2fpasswd")

    for answer in (nobody, nowhere, no_leg, no_id):
        assert (answer.status, answer.body["Code"]) == (404, -404)
        assert answer.body["Message"]


def test_an_address_that_is_not_allowed_is_403(own: Api) -> None:
    with configured(own, allow="127.0.0.8"):
        refused = wait_until(lambda: is_status(own.call("start", ANN), 403), 30, "allow to hold")
        allowed = own.ask(f"{CALLS}/start", {"extenOrUniqueId": "499"}, interface="127.0.0.8")

    assert (refused.body["Code"], allowed.status) == (-403, 404)
    assert "[http] allow" in refused.body["Message"]


def test_without_space_a_manager_interface_or_a_right_configuration(asked: Api) -> None:
    """507, 503 and 500: nothing begins, and each says what is to be mended."""
    started = asked.call("start", ANN)
    leg = asked.leg(started, "recording")
    trouble = {
        507: ({"recordings_min_free_percent": "100"}, "min_free_percent"),
        503: ({"manager_port": "1"}, "manager"),
    }
    for status, (options, says) in trouble.items():
        with configured(asked, **options):
            answer = wait_until(
                lambda status=status: is_status(asked.call("start", ANN, tag="never"), status),  # type: ignore[misc]
                30,
                f"{status}",
            )
        assert answer.body["Code"] == -status
        assert says in answer.body["Message"]
    with configured(asked, database_url="nonsense"):
        answer = wait_until(
            lambda: is_status(asked.audio(leg["id"]), 500),
            30,
            "500",
            lambda: (asked.audio(leg["id"]), asked.at.exchange.site.log()[-3000:]),
        )

    assert answer.body["Code"] == -500
    assert "[database] url" in answer.body["Message"]
    assert asked.at.exchange.mixmonitors() == 1


def is_status(answer: Answer, status: int) -> Answer | None:
    return answer if answer.status == status else None


# ---- Audio


def test_audio_whole_and_in_ranges(asked: Api) -> None:
    started = asked.call("start", ANN, tag="audio", agentLoginName="Ann")
    leg = asked.leg(started, "recording")
    asked.at.exchange.wait_for_audio(leg["file"], 0.3)
    running = asked.audio(leg["id"])
    file = Path(leg["file"])
    assert running.status == 200
    assert 0 < len(running.content) <= file.stat().st_size
    asked.call("stop", ANN)
    asked.leg(started, "completed")
    content = file.read_bytes()
    size = len(content)
    assert running.content[44:] == content[44 : len(running.content)]

    whole, head = asked.audio(leg["id"]), asked.audio(leg["id"], request="HEAD")
    middle = asked.audio(leg["id"], range="1000-2999")
    last = asked.audio(leg["id"], range="-500")
    two = asked.audio(leg["id"], range="0-99,2000-2099")
    beyond = asked.audio(leg["id"], range=f"{size}-")
    unread = asked.audio(leg["id"], header="Range: bytes=all")

    assert (whole.status, whole.content) == (200, content)
    assert (head.status, head.content) == (200, b"")
    for name, value in {
        "content-type": "audio/wav",
        "content-length": f"{size}",
        "accept-ranges": "bytes",
    }.items():
        assert (whole.headers[name], head.headers[name]) == (value, value)
    assert file.name in whole.headers["content-disposition"]
    assert (middle.status, middle.content) == (206, content[1000:3000])
    assert middle.headers["content-range"] == f"bytes 1000-2999/{size}"
    assert (last.status, last.content) == (206, content[-500:])
    assert [(answer.status, answer.content) for answer in (two, unread)] == [(200, content)] * 2
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert (beyond.body["Code"], f"{size} bytes" in beyond.body["Message"]) == (-416, True)


def test_audio_for_who_may_hear_it_until_it_is_purged(asked: Api) -> None:
    started = asked.call("start", ANN, tag="heard", agentLoginName="Ann")
    leg = asked.leg(started, "recording")
    asked.at.exchange.wait_for_audio(leg["file"], 0.2)
    asked.call("stop", ANN)
    asked.leg(started, "completed")
    audio = f"/recordings/{leg['id']}/audio"

    for login, status in (("Ann", 200), ("Carl", 403), ("Nobody", 403)):
        answer = asked.ask(audio, {"agentLoginName": login}, request="GET")
        assert answer.status == status
        if status != 200:
            assert answer.body["Code"] == -status
    assert asked.audio(leg["id"], request="HEAD").status == 200
    asked.ask(audio, {"agentLoginName": "Ann"}, request="GET", range="0-9")

    noted = wait_until(lambda: accesses(asked, leg["id"], 3), 30, "the accesses")
    assert noted == [
        (login, "downloaded", login == "Ann", "HTTP 127.0.0.1") for login in ("Ann", "Carl", "Nobody")
    ]
    purge(asked, "heard")
    gone = asked.audio(leg["id"])
    assert (gone.status, gone.body["Code"], Path(leg["file"]).exists()) == (410, -410, False)


def accesses(asked: Api, leg_id: str, count: int) -> list[tuple[Any, ...]] | None:
    """Who has asked for it, once there are so many."""
    ask = "SELECT login, what, allowed, address FROM access_log WHERE leg_id = ? ORDER BY at"
    with closing(sqlite3.connect(asked.at.exchange.site.state_directory / "noojee.db")) as database:
        found = database.execute(ask, (leg_id,)).fetchall()
    return found if len(found) >= count else None


def purge(asked: Api, tag: str) -> None:
    """As if it were old."""
    site = asked.at.exchange.site
    with closing(sqlite3.connect(site.state_directory / "noojee.db", timeout=60)) as database, database:
        database.execute(
            "UPDATE recording_leg SET started_at = '2020-01-01 00:00:00.000000' WHERE tag = ?", (tag,)
        )
    assert "1 recordings purged" in site.cli("purge", "--older-than", "1d", "--tag", tag)


# ---- agi/README.md


def test_the_lines_of_the_readme_record_a_call_find_it_and_fetch_it(asked: Api, tmp_path: Path) -> None:
    shown = readme.blocks("HTTP", readme.AGI)[1].replace("http://127.0.0.1:8080", asked.url)
    curls = [line for line in shown.splitlines() if line.startswith("curl")]
    settings = shown.partition("curl")[0]
    *calls, find, fetch = curls
    (tmp_path / "noojee.key").write_text(f"X-Api-Key: {asked.key}\n")

    def run(line: str) -> bytes:
        words = ["bash", "-euc", settings + line]
        environment = {**os.environ, "no_proxy": "*"}
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=True).stdout

    answers = []
    for line in calls:
        answers.append(json.loads(run(line)))
        talk(asked)

    assert [line.rpartition("/")[2] for line in calls] == ["start", "pause", "resume", "stop"]
    assert [answer["Code"] for answer in answers] == [0] * 4
    assert answers[0]["Message"] == f"OK, {the_call(asked)}"
    leg = asked.leg_of(answers[-1]["RecordingId"], "completed")
    assert (leg["tag"], leg["owner"]) == ("INV 22", "Ann")
    found = [each["RecordingId"] for each in json.loads(run(find))]
    assert found == [answers[0]["RecordingId"], leg["id"]]
    run(fetch.replace("the-RecordingId", leg["id"]))
    assert (tmp_path / "INV-22.wav").read_bytes() == Path(leg["file"]).read_bytes()


# ---- The key


def test_the_key_is_found_nowhere(asked: Api) -> None:
    """Nor what was taken for one: somebody's slip may be nearly right."""
    wrong = "an-almost-right-key"
    start, call = f"{CALLS}/start", f"extenOrUniqueId={ANN}"
    watch = ProcessWatch(asked.key.encode())
    site, folder = asked.at.exchange.site, asked.at.exchange.asterisk.folder
    with watch:
        for key in (asked.key, wrong):
            for sent in (
                asked.ask(start, f"{call}&apiKey={key}", has_key=False, interface="127.0.0.20"),
                asked.ask(start, call, has_key=False, data=f"apiKey={key}", interface="127.0.0.20"),
                asked.ask(start, call, has_key=False, header=f"X-Api-Key: {key}", interface="127.0.0.20"),
                asked.ask("/recordings/x/audio", f"apiKey={key}", "GET", False, interface="127.0.0.20"),
                asked.ask(f"{CALLS}/begin", f"{call}&apiKey={key}", has_key=False),
                asked.ask(start, f"{call}&apiKey={key}&APIKEY={key}", has_key=False),
            ):
                assert key not in f"{sent.content!r}{sent.headers}"
        by_crm(asked, "stop", ANN)
        office.hang_up(asked.at)
        asked.at.exchange.pbx.wait_until_idle()

    assert watch.looks > 10
    assert watch.found == set()
    files = [path for place in (site.folder, folder) for path in place.rglob("*") if path.is_file()]
    assert [path.name for path in files if shows(path, asked.key)] == ["extensions.conf"]
    assert [path.name for path in files if shows(path, wrong)] == []


def shows(path: Path, secret: str) -> bool:
    """Asterisk itself logs each global that it reads at its start (pbx_variables.c); README says so."""
    lines: list[bytes] = []
    with contextlib.suppress(FileNotFoundError):  # SQLite has just removed it
        lines = path.read_bytes().splitlines()
    return any(secret.encode() in line and b"Setting global variable" not in line for line in lines)
