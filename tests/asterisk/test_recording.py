"""The main job: who is recorded, for whom, and what is in the file."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from lab import tones
from lab.pbx import Pbx
from lab.waiting import wait_until

from noojee_agi.recordings.recording import EMPTY_FILE_BYTES

pytestmark = pytest.mark.asterisk

AUDIBLE = 0.02  # of a file's power: noise is below 0.001
TALKED = 0.1  # seconds: of Pbx.dial's 0.4 the first and the last frames may be missing


def audio_bytes(leg: dict[str, Any]) -> int:
    """Of its file so far, which Asterisk writes two seconds at a time; none when it is not there yet."""
    audio = Path(leg["file"])
    return audio.stat().st_size if audio.exists() else 0


def test_both_sides_are_in_the_file_and_the_leg_tells_its_length(pbx: Pbx) -> None:
    begun = time.monotonic()
    view = pbx.dial("AGI(start_record.py,,INV-22,Fred)")
    seconds = time.monotonic() - begun

    assert (view.status, view.message, view.agi_status) == ("200", "OK", "SUCCESS")
    leg = pbx.leg(view)
    audio = Path(leg["file"])
    assert view.file == leg["file"]
    assert tones.share(audio, 425) > AUDIBLE
    assert tones.share(audio, 1004) > AUDIBLE
    assert leg["duration_seconds"] == pytest.approx(tones.duration(audio), abs=0.01)
    assert TALKED < leg["duration_seconds"] < seconds
    assert leg["bytes"] == audio.stat().st_size
    assert (leg["external_reference"], leg["tag"], leg["owner"]) == ("INV-22", "INV-22", "Fred")
    assert (leg["leg"], leg["agent_login_name"]) == (1, "Fred")


def test_the_file_lies_in_its_days_folder_with_its_side_car(pbx: Pbx) -> None:
    view = pbx.dial("AGI(start_record.py,,side-car)")

    leg = pbx.leg(view)
    audio = Path(leg["file"])
    day = leg["started_at"][:10].replace("-", "/")
    assert audio.parent == pbx.site.recordings_directory / day
    assert audio.name == f"{leg['uniqueid']}-{leg['id'][:8]}.wav"
    assert oct(audio.parent.stat().st_mode & 0o777) == "0o750"

    def side_car() -> dict[str, Any]:
        path = audio.with_suffix(".json")
        told = json.loads(path.read_text()) if path.exists() else {}
        return {name: told.get(name) for name in leg}

    wait_until(lambda: side_car() == leg, 60, "the side-car to follow the row", side_car)


def test_a_queues_recording_belongs_to_whom_the_answering_agents_extension_is_attached(pbx: Pbx) -> None:
    pbx.start_call('Queue(support,,,,20,"start_record.py,,queue,")', seconds=None)
    (leg,) = pbx.site.wait_for_legs("--tag", "queue", status="recording")
    wait_until(lambda: audio_bytes(leg) > EMPTY_FILE_BYTES, 60, "some talk")
    pbx.hang_up()
    view = pbx.view()

    leg = pbx.leg(view)
    assert (view.status, leg["owner"], leg["extension"]) == ("200", "Ann", "410")
    assert tones.share(Path(leg["file"]), 425) > AUDIBLE
    assert tones.share(Path(leg["file"]), 1004) > AUDIBLE


def test_an_outbound_calls_recording_belongs_to_the_channels_own_extension(pbx: Pbx) -> None:
    pbx.site.cli("attach", "Fred", "511")

    view = pbx.dial("Gosub(own-extension,s,1)", extension="511")  # where the dialled extension is s

    leg = pbx.leg(view)
    assert (leg["owner"], leg["extension"]) == ("Fred", "511")


def test_without_login_and_attachment_the_recording_belongs_to_nobody(pbx: Pbx) -> None:
    view = pbx.dial("AGI(start_record.py,,nobody's)")

    leg = pbx.leg(view)
    assert (view.status, view.message, leg["owner"]) == ("200", "OK", None)


def test_an_unknown_login_is_recorded_for_nobody_and_the_dialplan_is_warned(pbx: Pbx) -> None:
    view = pbx.dial("AGI(start_record.py,,warned,Nemo)")

    leg = pbx.leg(view)
    assert (view.status, leg["owner"], leg["agent_login_name"]) == ("200", None, "Nemo")
    assert "no enabled account Nemo" in view.message


def test_an_unknown_login_is_refused_when_the_configuration_says_so(pbx: Pbx) -> None:
    pbx.site.configure({"recordings.unknown_agent": "refuse"})

    assert pbx.dial("AGI(start_record.py,,refused,Nemo)").status == "400"
    assert pbx.dial("AGI(start_record.py,,refused,Fred)").status == "200"


@pytest.mark.parametrize(
    "arguments",
    [
        "500,forms,Fred",
        "${CHANNEL},forms,Fred",
        "agentLoginName=Fred,tag=forms,extenOrUniqueId=${UNIQUEID}",
    ],
)
def test_every_form_of_the_arguments_means_the_same(pbx: Pbx, arguments: str) -> None:
    """unit/test_arguments.py has more of them."""
    leg = pbx.leg(pbx.dial(f"AGI(start_record.py,{arguments})"))

    assert (leg["tag"], leg["owner"], leg["extension"]) == ("forms", "Fred", "500")


@pytest.mark.parametrize("other", ["1234567890.99", "at/499"])
def test_another_call_is_not_found_without_the_manager_interface(pbx: Pbx, other: str) -> None:
    view = pbx.dial(f"AGI(start_record.py,{other},elsewhere)")

    assert (view.status, view.leg_id) == ("404", "")
    assert pbx.site.legs("--tag", "elsewhere") == []


def test_a_second_start_makes_a_new_leg_and_then_ends_the_first(pbx: Pbx) -> None:
    view = pbx.dial("AGI(start_record.py,,one,Fred)\nWait(0.3)\nAGI(start_record.py,,two,Ann)")

    last = pbx.leg(view)
    # Each end is told by a program of its own.
    uniqueid = last["uniqueid"]
    first, second = pbx.site.wait_for_legs("--uniqueid", uniqueid, count=2, status="completed")
    assert [(leg["leg"], leg["tag"], leg["owner"]) for leg in (first, second)] == [
        (1, "one", "Fred"),
        (2, "two", "Ann"),
    ]
    assert first["external_reference"] == second["external_reference"] == "two"
    assert first["call_record_id"] == second["call_record_id"]
    assert first["started_at"] < second["started_at"] <= first["ended_at"] < second["ended_at"]


def test_a_failed_second_start_leaves_the_first_leg_running(pbx: Pbx) -> None:
    view = pbx.dial(
        "AGI(start_record.py,,kept,Fred)\nSet(KEPT=${RECORDING_ID})\nWait(0.2)\n"
        "Set(apiKey=wrong)\nAGI(start_record.py,,refused,Ann)\nSet(RECORDING_ID=${KEPT})"
    )

    leg = pbx.leg(view)
    assert view.status == "401"
    assert tones.share(Path(leg["file"]), 1004) > AUDIBLE  # of whom is called after that


@pytest.mark.parametrize(
    ("audio_format", "suffix"), [("gsm", ".gsm"), ("wav49", ".WAV"), ("wav16", ".wav16"), ("sln", ".sln")]
)
def test_other_formats_of_asterisk_are_seen_and_measured(pbx: Pbx, audio_format: str, suffix: str) -> None:
    pbx.site.configure({"recordings.format": audio_format})

    begun = time.monotonic()
    view = pbx.dial("AGI(start_record.py,,format)")
    seconds = time.monotonic() - begun

    leg = pbx.leg(view)
    assert (view.status, Path(view.file).suffix) == ("200", suffix)
    assert TALKED < leg["duration_seconds"] < seconds


def test_only_bridged_audio_is_recorded_with_option_b(pbx: Pbx) -> None:
    pbx.site.configure({"recordings.mixmonitor_options": "b"})

    begun = time.monotonic()
    view = pbx.dial("AGI(start_record.py,,bridged)\nWait(1)")
    seconds = time.monotonic() - begun

    assert TALKED < pbx.leg(view)["duration_seconds"] < seconds - 1


def test_a_caller_who_gives_up_in_the_queue_leaves_an_empty_leg(pbx: Pbx) -> None:
    pbx.site.configure({"recordings.mixmonitor_options": "b"})

    pbx.start_call("AGI(start_record.py,,gave-up)\nWait(60)", seconds=None)
    (leg,) = pbx.site.wait_for_legs("--tag", "gave-up", status="recording")
    wait_until(Path(leg["file"]).exists, 60, "its file")
    pbx.hang_up()

    leg = pbx.leg(pbx.view(), status="empty")
    assert (leg["bytes"], leg["duration_seconds"]) == (44, 0)
