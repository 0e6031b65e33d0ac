"""A leg's file name, its events as JSON, and how the audio file says that it ended."""

from __future__ import annotations

import json
import os
import re
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noojee_agi.recordings import recording
from noojee_agi.recordings.recording import Access, Attachment, Ending, Event, Leg, Note
from unit.fakes import leg

LEG_ID = "0e5f6b1c-6a57-4a6e-8f5e-0123456789ab"
AT = datetime(2025, 3, 9, 23, 59, 58, 123456, tzinfo=timezone.utc)


def test_a_new_id_is_a_random_uuid_as_others_write_it() -> None:
    ids = [recording.new_id() for _ in range(1000)]

    assert len(set(ids)) == 1000
    for each in ids:
        parsed = uuid.UUID(each)
        assert (str(parsed), parsed.version, parsed.variant) == (each, 4, uuid.RFC_4122)


@pytest.mark.parametrize(
    ("uniqueid", "name"),
    [
        ("1762420501.77", "1762420501.77"),
        ("pbx1-1762420501.77", "pbx1-1762420501.77"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("/etc/passwd", "_etc_passwd"),
        ("..", "call"),
        (".hidden", "hidden"),
        ("...x", "x"),
        ("", "call"),
        ("a b,b,touch", "a_b_b_touch"),
        ("$(id)`id`${X}^{Y}", "__id__id___X___Y_"),
        ("a\nb\x00c\\d\"e'f", "a_b_c_d_e_f"),
        ("M\u00fcller\u0661\u7530", "M_ller__"),
        ("x" * 149, "x" * 64),
        ("." * 64 + "x", "call"),
        ("-rf", "-rf"),
    ],
)
def test_only_a_filtered_uniqueid_and_our_own_id_enter_the_file_name(uniqueid: str, name: str) -> None:
    path = recording.file_path("/srv/rec", uniqueid, LEG_ID, "wav", AT)

    assert path == f"/srv/rec/2025/03/09/{name}-0e5f6b1c.wav"


@given(st.text(max_size=200))
def test_no_uniqueid_leaves_the_days_folder_or_hides_the_file(uniqueid: str) -> None:
    path = recording.file_path("/srv/rec", uniqueid, LEG_ID, "wav", AT)

    assert re.fullmatch(r"/srv/rec/2025/03/09/[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}-0e5f6b1c\.wav", path)


@pytest.mark.parametrize(
    ("file_format", "suffix"), [("wav", "wav"), ("wav49", "WAV"), ("wav16", "wav16"), ("gsm", "gsm")]
)
def test_the_suffix_is_the_one_under_which_asterisk_stores_the_format(file_format: str, suffix: str) -> None:
    assert recording.file_path("/srv", "1.2", LEG_ID, file_format, AT).endswith(f"-0e5f6b1c.{suffix}")


def test_two_ids_differ_and_the_clock_has_a_zone() -> None:
    assert recording.new_id() != recording.new_id()
    assert recording.now().utcoffset() == timedelta(0)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
TIMES = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(timezone.utc))
LEGS = st.builds(
    leg,
    tag=TEXT,
    agent_login_name=TEXT,
    uniqueid=TEXT,
    channel=TEXT,
    extension=TEXT,
    extensions=st.lists(TEXT, max_size=4).map(tuple),
    agent_known=st.sampled_from([None, True, False]),
    file=TEXT,
    started_at=TIMES,
)
ENDINGS = st.builds(
    Ending,
    st.uuids().map(str),
    st.sampled_from(["completed", "empty", "failed"]),
    TIMES,
    st.none() | st.integers(0, 2**40),
    st.none() | st.floats(0, 1e6),
)


NOTES = st.builds(
    Note,
    st.uuids().map(str),
    TIMES,
    st.sampled_from(["stopped", "paused", "resumed", "held", "released", "purged"]),
    st.none() | TEXT,
    TEXT,
)
ACCESSES = st.builds(
    Access,
    st.uuids().map(str),
    st.uuids().map(str),
    TIMES,
    TEXT,
    st.sampled_from(["played", "downloaded", "exported"]),
    st.booleans(),
    TEXT,
)
ATTACHMENTS = st.builds(Attachment, TEXT, TIMES, TEXT)


@given(LEGS | ENDINGS | NOTES | ACCESSES | ATTACHMENTS)
def test_an_event_is_the_same_after_json(event: Event) -> None:
    assert recording.from_json(recording.to_json(event)) == event


def test_a_start_that_version_0_1_0_has_left_in_the_spool_has_no_partner() -> None:
    content = json.loads(recording.to_json(leg()))
    del content["peer_channel"], content["peer_uniqueid"]

    event = recording.from_json(json.dumps(content))

    assert isinstance(event, Leg)
    assert (event.peer_channel, event.peer_uniqueid) == ("", "")


def test_json_says_which_event_it_is_and_a_person_can_read_it() -> None:
    started = recording.to_json(leg(tag="M\u00fcller"))
    finished = recording.to_json(Ending(LEG_ID, "empty", AT, 44, 0.0))

    assert '"event": "started"' in started
    assert "M\u00fcller" in started
    assert '"event": "finished"' in finished
    assert '"ended_at": "2025-03-09T23:59:58.123456+00:00"' in finished


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "5",
        "null",
        "[]",
        '"text"',
        "{}",
        '{"event": "started"}',
        '{"event": "exploded"}',
        '{"event": ["started"]}',
        '{"event": "finished", "ended_at": 5}',
        '{"event": "finished", "ended_at": "yesterday"}',
        '{"event": "finished", "ended_at": "2025-03-09T00:00:00+00:00", "unknown": 1}',
        '{"event": "noted", "leg_id": "0e5f6b1c-6a57-4a6e-8f5e-0123456789ab", "what": "held"}',
        *(
            recording.to_json(event)
            for event in (
                Note(LEG_ID, AT, "started"),
                Note(LEG_ID, AT, "burnt"),
                Note("410", AT, "held"),
                Note("", AT, "held"),
                Note(LEG_ID, AT.replace(tzinfo=None), "held"),
                Note(LEG_ID, AT, "held", "fr\0ed"),
                Access("410", LEG_ID, AT, "fred", "played", True, ""),
                Access(LEG_ID, "410", AT, "fred", "played", True, ""),
                Access(LEG_ID, LEG_ID, AT, "fred", "held", True, ""),
                Access(LEG_ID, LEG_ID, AT, "fred", "played", 1, ""),  # type: ignore[arg-type]
                Attachment("4\x0010", AT, "fred"),
                Attachment("410", AT, None),  # type: ignore[arg-type]
            )
        ),
    ],
)
def test_what_is_no_event_of_ours_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        recording.from_json(text)


@pytest.mark.parametrize(
    "leg_id",
    ["", "1", f"../{LEG_ID}", f"{LEG_ID}\n", LEG_ID.upper(), f"{{{LEG_ID}}}", LEG_ID.replace("-", "")],
)
@pytest.mark.parametrize("event", [leg(), Ending(LEG_ID, "failed", AT)])
def test_an_event_whose_id_is_no_uuid_of_ours_is_refused(event: Event, leg_id: str) -> None:
    forged = json.dumps(
        {**json.loads(recording.to_json(event)), ("id" if isinstance(event, Leg) else "leg_id"): leg_id}
    )

    with pytest.raises(ValueError, match="is no leg's id"):
        recording.from_json(forged)


def _wav(bytes_per_second: int, audio_bytes: int) -> bytes:
    header = b"RIFF" + bytes(4) + b"WAVEfmt " + (16).to_bytes(4, "little") + bytes(8)
    header += bytes_per_second.to_bytes(4, "little") + bytes(4) + b"data" + bytes(4)
    return header + b"\x01" * audio_bytes


def test_a_leg_without_a_file_has_failed(tmp_path: Path) -> None:
    assert recording.ending("1", str(tmp_path / "missing.wav"), AT) == Ending("1", "failed", AT)


@pytest.mark.parametrize(
    ("content", "ending"),
    [
        (b"", Ending("1", "empty", AT, 0, 0.0)),
        (_wav(16000, 0), Ending("1", "empty", AT, 44, 0.0)),
        (_wav(16000, 1), Ending("1", "completed", AT, 45, 0.0)),
        (_wav(16000, 16000), Ending("1", "completed", AT, 16044, 1.0)),
        (_wav(16000, 32320), Ending("1", "completed", AT, 32364, 2.02)),
        (_wav(32000, 16000), Ending("1", "completed", AT, 16044, 0.5)),
        (_wav(0, 16000), Ending("1", "completed", AT, 16044, None)),
        (b"\x01" * 16000, Ending("1", "completed", AT, 16000, None)),
    ],
)
def test_a_closed_file_tells_status_size_and_length(tmp_path: Path, content: bytes, ending: Ending) -> None:
    file = tmp_path / "x.wav"
    file.write_bytes(content)
    os.utime(file, (AT.timestamp(), AT.timestamp()))

    assert recording.ending("1", str(file), recording.now()) == ending
