"""Events of the spool become call records, legs and side-cars."""

from __future__ import annotations

import json
import os
import shutil
import signal
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as on

from integration.recorder import CALL_TIME, Recorder, after, ended, exit_code, forked
from integration.silent_legs import write_audio
from noojee_agi.database import intake
from noojee_agi.recordings import files, recording, rejected, sidecar, spool
from noojee_agi.recordings.recording import Ending, Event, OpenLeg
from noojee_agi.sync import closing, drain

FORMER_ID = "c6a1f3ce-3a6b-5f0e-9d0c-2f0d4f6c1a77"

# --- rows ---


def test_a_started_leg_is_stored_with_every_column(recorder: Recorder) -> None:
    leg = recorder.leg(extension="600", tag="INV-22", agent_login_name="fred", agent_known=False)
    leg = leg._replace(peer_channel="PJSIP/411-00000a20", peer_uniqueid="1700000000.8")

    recorder.store_all(leg)

    [call] = recorder.calls()
    assert recorder.legs() == [
        {
            "id": leg.id,
            "call_record_id": call["id"],
            "leg": 1,
            "uniqueid": "1700000000.9",
            "call_uniqueid": "1700000000.7",
            "server": "pbx1",
            "channel": "PJSIP/410-00000a1f",
            "extension": "600",
            "source": "01234567",
            "destination": "600",
            "did": "0987654",
            "external_reference": "INV-22",
            "call_started_at": CALL_TIME,
            "tag": "INV-22",
            "owner": None,
            "agent_login_name": "fred",
            "file": leg.file,
            "status": "recording",
            "started_at": CALL_TIME,
            "ended_at": None,
            "duration_seconds": None,
            "bytes": None,
            "peer_channel": "PJSIP/411-00000a20",
            "peer_uniqueid": "1700000000.8",
            "extensions": ["410", "600"],
            "held": False,
            "purged_at": None,
            "purged_file": "",
        }
    ]
    assert call == {
        "id": call["id"],
        "server": "pbx1",
        "uniqueid": "1700000000.7",
        "source": "01234567",
        "destination": "600",
        "did": "0987654",
        "external_reference": "INV-22",
        "started_at": CALL_TIME,
        "ended_at": None,
    }


def test_the_legs_of_a_call_are_numbered_as_they_came(recorder: Recorder) -> None:
    first, second, third = (recorder.leg(started_at=after(number)) for number in range(3))

    recorder.store_all(first, second)
    recorder.store_all(third)

    assert [(row["id"], row["leg"]) for row in recorder.legs()] == [
        (first.id, 1),
        (second.id, 2),
        (third.id, 3),
    ]
    assert len(recorder.calls()) == 1


def test_a_batch_takes_no_more_statements_when_more_calls_begin_and_end_in_it(recorder: Recorder) -> None:
    def taken(calls: int) -> int:
        asked: list[str] = []
        old, new = ([recorder.leg(call_uniqueid=recording.new_id()) for _ in range(calls)] for _ in "ab")
        with recorder.store.transaction() as connection:
            intake.store(connection, old)
            on.listen(connection, "before_cursor_execute", lambda *about: asked.append(about[2]))
            intake.store(connection, [*new, *map(ended, [*old, *new])])
        return len(asked)

    assert taken(2) == taken(50) < 12


@pytest.mark.parametrize(
    ("tags", "reference"),
    [
        (["INV-22"], "INV-22"),
        (["", "INV-22"], "INV-22"),
        (["INV-22", ""], "INV-22"),
        (["INV-22", "INV-23", ""], "INV-23"),
        (["", ""], ""),
    ],
)
@pytest.mark.parametrize("in_one_batch", [True, False])
def test_the_external_reference_is_the_last_tag_and_each_leg_keeps_its_own(
    recorder: Recorder, tags: list[str], reference: str, in_one_batch: bool
) -> None:
    legs = [recorder.leg(tag=tag, started_at=after(number)) for number, tag in enumerate(tags)]

    if in_one_batch:
        recorder.store_all(*legs)
    else:
        for leg in legs:
            recorder.store_all(leg)

    assert [row["tag"] for row in recorder.legs()] == tags
    assert {row["external_reference"] for row in recorder.legs()} == {reference}
    recorder.assert_side_cars_tell_the_same()


def test_a_call_starts_with_its_first_leg_and_ends_with_its_last(recorder: Recorder) -> None:
    first, second = recorder.leg(), recorder.leg(started_at=after(30))

    recorder.store_all(first, second, ended(first, ended_at=after(40)))
    assert [(call["started_at"], call["ended_at"]) for call in recorder.calls()] == [(CALL_TIME, None)]

    recorder.store_all(ended(second, ended_at=after(90)))
    assert [(call["started_at"], call["ended_at"]) for call in recorder.calls()] == [(CALL_TIME, after(90))]


def test_an_end_that_is_told_by_whoever_saw_the_file_closed_and_by_asterisk_is_one(
    recorder: Recorder,
) -> None:
    leg = recorder.leg(started_at=recording.now())
    write_audio(leg.file)
    [seen] = closing.ended([OpenLeg(leg.id, leg.file, leg.started_at)])
    recorder.store_all(leg, seen)
    before = recorder.legs(), recorder.calls()
    changes = []

    with recorder.store.transaction() as connection:
        on.listen(connection, "before_cursor_execute", lambda *about: changes.append(about[2].split()[0]))
        intake.store(connection, [recording.ending(leg.id, leg.file, recording.now())])

    assert (recorder.legs(), recorder.calls()) == before
    assert set(changes) == {"SELECT"}


def test_a_call_that_is_recorded_again_has_not_ended(recorder: Recorder) -> None:
    first, second = recorder.leg(), recorder.leg(started_at=after(100))
    recorder.store_all(first, ended(first))

    recorder.store_all(second)
    assert recorder.calls()[0]["ended_at"] is None

    recorder.store_all(ended(second, ended_at=after(130)))
    assert recorder.calls()[0]["ended_at"] == after(130)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("completed", after(60), 960_044, 60.0)),
        ({"duration_seconds": 59.5}, ("completed", after(60), 960_044, 59.5)),
        ({"duration_seconds": None}, ("completed", after(60), 960_044, 60.0)),
        ({"duration_seconds": None, "ended_at": after(-5)}, ("completed", after(-5), 960_044, 0.0)),
        (
            {"status": "empty", "bytes": 44, "duration_seconds": 0.0},
            ("empty", after(60), 44, 0.0),
        ),
        ({"status": "failed", "bytes": None, "duration_seconds": None}, ("failed", after(60), None, None)),
        ({"bytes": 2**40}, ("completed", after(60), 2**40, 60.0)),
    ],
    ids=["told", "told less", "computed", "clock set back", "empty", "failed", "a terabyte"],
)
def test_an_ending_closes_its_leg(
    recorder: Recorder, changes: dict[str, Any], expected: tuple[object, ...]
) -> None:
    leg = recorder.leg()

    recorder.store_all(leg, ended(leg, **changes))

    row = recorder.the_leg(leg)
    assert (row["status"], row["ended_at"], row["bytes"], row["duration_seconds"]) == expected


@pytest.mark.parametrize("order", [("completed", "failed"), ("failed", "completed")])
@pytest.mark.parametrize("in_one_batch", [True, False])
def test_failed_never_wins_over_completed(
    recorder: Recorder, order: tuple[str, str], in_one_batch: bool
) -> None:
    leg = recorder.leg()
    endings = {
        "completed": ended(leg),
        "failed": ended(leg, status="failed", bytes=None, duration_seconds=None, ended_at=after(61)),
    }
    recorder.store_all(leg)

    if in_one_batch:
        recorder.store_all(*(endings[status] for status in order))
    else:
        for status in order:
            recorder.store_all(endings[status])

    row = recorder.the_leg(leg)
    assert (row["status"], row["bytes"], row["duration_seconds"]) == ("completed", 960_044, 60.0)
    assert row["ended_at"] == recorder.calls()[0]["ended_at"] == after(60)


@pytest.mark.parametrize("times", [2, 10])
def test_every_event_many_times_is_as_good_as_once(recorder: Recorder, times: int) -> None:
    first, second = recorder.leg(tag="INV-22"), recorder.leg(started_at=after(30), tag="INV-23")
    failed = recorder.leg(call_uniqueid="1700000001.1")
    events: list[Event] = [
        *(first, second, ended(first), ended(second)),
        *(failed, ended(failed, status="failed", bytes=None, duration_seconds=None)),
    ]
    recorder.store_all(*events)
    once = recorder.legs(), recorder.calls()

    for event in events:
        recorder.store_all(*[event] * times)
    recorder.store_all(*events * times)
    recorder.store_all(*reversed(events))

    assert (recorder.legs(), recorder.calls()) == once
    recorder.assert_side_cars_tell_the_same()


def test_an_ending_that_waits_before_its_start_is_stored(recorder: Recorder) -> None:
    leg = recorder.leg()
    recorder.put(ended(leg), leg)

    assert recorder.drain().stored == 2

    assert recorder.the_leg(leg)["status"] == "completed"
    assert recorder.waiting() == []


def test_the_same_uniqueid_on_two_servers_is_two_calls(recorder: Recorder) -> None:
    one, other = recorder.leg(server="pbx1", tag="INV-1"), recorder.leg(server="pbx2", tag="INV-2")

    recorder.store_all(one, other, ended(one))

    assert [(call["server"], call["external_reference"], call["ended_at"]) for call in recorder.calls()] == [
        ("pbx1", "INV-1", after(60)),
        ("pbx2", "INV-2", None),
    ]
    assert [row["leg"] for row in recorder.legs()] == [1, 1]


def test_times_come_back_aware_and_in_utc(recorder: Recorder) -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    leg = recorder.leg(started_at=CALL_TIME.astimezone(india))

    recorder.store_all(leg, ended(leg, ended_at=after(60).astimezone(india)))

    row = recorder.the_leg(leg)
    for name, expected in (
        ("started_at", CALL_TIME),
        ("call_started_at", CALL_TIME),
        ("ended_at", after(60)),
    ):
        assert row[name] == expected
        assert row[name].tzinfo == timezone.utc


def test_the_order_is_that_of_time_with_and_without_microseconds(recorder: Recorder) -> None:
    whole = CALL_TIME.replace(microsecond=0)
    times = [whole, whole + timedelta(microseconds=1), whole + timedelta(seconds=1)]
    legs = [recorder.leg(started_at=moment) for moment in times]

    recorder.store_all(*reversed(legs))

    assert [row["started_at"] for row in recorder.legs()] == times


# --- nasty text ---

NASTY = {
    "quotes": """'single' "double" `back` ''""",
    "backslashes": r"\ \\ \n %s %(x)s {} :name ?",
    "dialplan": "${SHELL(id)} ${CHANNEL(name)} $(id) ; exten =>",
    "sql": "'); DROP TABLE recording_leg; --",
    "emoji": "☎️ 👩🏽‍🚒 家族 שלום é e\u0301",
    "control": "a\tb\nc\x01\x7f\x9f",
    "blanks at the ends": "  x  ",
    "percent and comma": "100 %, a=b, x&y",
    "255 two byte characters": "é" * 255,
    "255 emoji": "📞" * 255,
}
TEXT_FIELDS = ("channel", "source", "destination", "did", "tag", "uniqueid", "call_uniqueid", "server")


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_nasty_text_arrives_exactly(recorder: Recorder, text: str) -> None:
    leg = recorder.leg(
        **dict.fromkeys(TEXT_FIELDS, text), agent_login_name=text[:100], extension=text, agent_known=False
    )

    recorder.store_all(leg)

    row = recorder.the_leg(leg)
    assert {name: row[name] for name in TEXT_FIELDS} == dict.fromkeys(TEXT_FIELDS, text)
    assert (row["agent_login_name"], row["extension"]) == (text[:100], text)
    recorder.assert_side_cars_tell_the_same()


def test_a_lone_surrogate_becomes_a_question_mark_in_the_spool(recorder: Recorder) -> None:
    """UTF-8 has no such character; the recording counts more than the character."""
    leg = recorder.leg(tag="INV\udcff22")

    recorder.store_all(leg)

    assert recorder.the_leg(leg)["tag"] == "INV?22"


def test_a_nul_is_set_aside_with_a_reason(recorder: Recorder) -> None:
    """PostgreSQL has no such character; the call path makes a blank of it."""
    leg, good = recorder.leg(tag="a\0b"), recorder.leg()
    recorder.put(leg, good)

    recorder.drain()

    assert recorder.waiting() == []
    assert [row["id"] for row in recorder.legs()] == [good.id]
    assert "NUL" in recorder.reasons()[0]


def test_an_escaped_lone_surrogate_is_set_aside_with_a_reason(recorder: Recorder) -> None:
    good = recorder.leg()
    recorder.put_changed(recorder.leg(), {"tag": "INV\udcff22"})
    recorder.put(good)

    assert recorder.drain().rejected == 1

    assert [row["id"] for row in recorder.legs()] == [good.id]
    assert "surrogates not allowed" in recorder.reasons()[0]


# --- what is set aside ---

DAMAGED = {
    "no object": "hello}",
    "a list": "[1, 2]",
    "a list of pairs": '[["event", "started"]]',
    "a number": "7",
    "null": "null",
    "no event": '{"leg_id": "x"}',
    "unknown event": '{"event": "paused"}',
    "missing fields": '{"event": "started", "id": "x", "extensions": []}',
    "unknown fields": '{"event": "finished", "leg_id": "x", "status": "empty", "colour": "blue"}',
    "bad time": '{"event": "finished", "leg_id": "x", "status": "empty", "ended_at": "yesterday"}',
    "time of another type": '{"event": "finished", "leg_id": "x", "status": "empty", "ended_at": 7}',
    "no time": '{"event": "finished", "leg_id": "x", "status": "empty", "ended_at": null}',
    "deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "blanks around it": ' \t{"event": "paused"}',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_is_set_aside_and_the_others_are_stored(recorder: Recorder, text: str) -> None:
    before, behind = recorder.leg(), recorder.leg()
    recorder.put(before)
    recorder.put_text(text)
    recorder.put(behind)

    result = recorder.drain()

    assert (result.stored, result.rejected) == (2, 1)
    assert recorder.waiting() == []
    [aside] = rejected.paths(recorder.spool)
    assert Path(aside).read_text() == text
    assert "not an event" in Path(f"{aside}.reason").read_text()


TORN = {
    "one character": b"{",
    "a name's middle": b'{"eve',
    "before the last brace": b'{"event": "finished", "leg_id": "x"',
    "in a character": b'{"event": "started", "tag": "\xc3',
    "deep": b"[" * 100_000,
    "what a power cut leaves": bytes(512),
}


@pytest.mark.parametrize("part", TORN.values(), ids=TORN)
def test_a_line_that_was_never_finished_is_dropped_and_told(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, part: bytes
) -> None:
    """Its writer has been told so, or was killed before MixMonitor began."""
    before, behind = recorder.leg(), recorder.leg()
    recorder.put(before)
    with Path(recorder.spool, "journal").open("ab") as file:
        file.write(b"\n" + part)
    recorder.put(behind)

    result = recorder.drain()

    assert (result.stored, result.rejected, result.left) == (2, 0, 0)
    assert (recorder.waiting(), recorder.reasons()) == ([], [])
    assert caplog.text.count("never written to its end") == 1


def test_a_line_that_is_not_utf_8_is_set_aside_as_it_is(recorder: Recorder) -> None:
    line = b'{"event": "started", "tag": "\xff"}'
    spool.append(recorder.spool, line)
    good = recorder.leg()
    recorder.put(good)

    assert recorder.drain().rejected == 1

    assert [row["id"] for row in recorder.legs()] == [good.id]
    assert Path(rejected.paths(recorder.spool)[0]).read_bytes() == line


@pytest.mark.parametrize("name", ["journal.1", "journal.x", f"{1:020d}-started-x.json"])
def test_a_folder_with_a_name_of_ours_keeps_nothing_back(recorder: Recorder, name: str) -> None:
    files.make_folder(recorder.spool)
    os.mkdir(os.path.join(recorder.spool, name))
    good = recorder.leg()
    recorder.put(good)

    recorder.drain()

    assert [row["id"] for row in recorder.legs()] == [good.id]


def test_a_refused_event_is_tried_again_when_a_person_has_mended_it(recorder: Recorder) -> None:
    """Also in several lines, as an editor may make them of one."""
    leg = recorder.leg()
    recorder.put_changed(leg, {"tag": ["a", "list"]})
    assert recorder.drain().rejected == 1
    [aside] = rejected.paths(recorder.spool)
    Path(aside).write_text(json.dumps(json.loads(recording.to_json(leg)), indent=1) + "\n")

    assert spool.retry_rejected(recorder.spool) == 1
    assert os.listdir(os.path.dirname(aside)) == []
    assert recorder.drain().stored == 1

    assert recorder.the_leg(leg)["tag"] == leg.tag


def test_what_was_refused_and_is_no_object_stays_where_it_is(recorder: Recorder) -> None:
    """In the journal it would be taken for a line that was never finished, and dropped."""
    recorder.put_text("7")
    recorder.drain()
    aside = rejected.paths(recorder.spool)

    assert spool.retry_rejected(recorder.spool) == 0

    assert (rejected.paths(recorder.spool), recorder.waiting()) == (aside, [])


def test_refused_starts_are_tried_again_before_the_endings(recorder: Recorder) -> None:
    legs = [recorder.leg(started_at=after(number)) for number in range(250)]
    events: list[Event] = [*map(ended, legs), *legs]
    for event in events:
        line = recording.to_json(event).encode()
        files.make_folder(recorder.spool)
        name = f"{recording.kind(event)}-{recording.leg_id(event)}"
        rejected.set_aside(recorder.spool, line, "because", name)

    assert spool.retry_rejected(recorder.spool) == 500
    assert (recorder.drain().stored, recorder.reasons()) == (500, [])


WRONG_START = {
    "tag is a list": {"tag": ["INV-22"]},
    "tag is an object": {"tag": {"a": 1}},
    "tag is null": {"tag": None},
    "login is a number": {"agent_login_name": 7},
    "login is a list": {"agent_login_name": ["fred"]},
    "id is a list": {"id": ["x"]},
    "id is null": {"id": None},
    "uniqueid is an object": {"call_uniqueid": {}},
    "extensions of lists": {"extensions": [["410"]]},
    "extensions of objects": {"extensions": [{}]},
    "extensions is null": {"extensions": None},
    "time is a number": {"started_at": 7},
    "file is a list": {"file": ["/tmp/x.wav"]},
    "file with NUL": {"file": "/tmp/x\0.wav"},
}


@pytest.mark.parametrize("changes", WRONG_START.values(), ids=WRONG_START)
def test_a_start_with_wrong_types_is_set_aside_and_the_others_are_stored(
    recorder: Recorder, changes: dict[str, Any]
) -> None:
    before, behind = recorder.leg(), recorder.leg()
    recorder.put(before)
    recorder.put_changed(recorder.leg(), changes)
    recorder.put(behind)

    recorder.drain()

    assert {row["id"] for row in recorder.legs()} == {before.id, behind.id}
    assert recorder.waiting() == []
    assert len(recorder.reasons()) == 1


WRONG_ENDING = {
    "duration is text": {"duration_seconds": "long"},
    "duration is a list": {"duration_seconds": [1]},
    "bytes is text": {"bytes": "many"},
    "bytes beyond all": {"bytes": 2**80},
    "status unknown": {"status": "lost"},
    "status is null": {"status": None},
    "status is a list": {"status": ["completed"]},
    "leg is a list": {"leg_id": ["x"]},
    "leg is an object": {"leg_id": {}},
    "leg is null": {"leg_id": None},
}


@pytest.mark.parametrize("changes", WRONG_ENDING.values(), ids=WRONG_ENDING)
def test_an_ending_with_wrong_types_is_set_aside_and_the_others_are_stored(
    recorder: Recorder, changes: dict[str, Any]
) -> None:
    leg, behind = recorder.leg(), recorder.leg()
    recorder.put(leg)
    recorder.put_changed(ended(leg), changes)
    recorder.put(behind)

    recorder.drain()

    assert [(row["id"], row["status"]) for row in recorder.legs()] == [
        (row_id, "recording") for row_id in sorted([leg.id, behind.id])
    ]
    assert recorder.waiting() == []
    assert len(recorder.reasons()) == 1


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        ({"source": None}, ""),
        ({"tag": "x\udcff"}, "surrogates"),
        ({"started_at": "yesterday"}, "not an event"),
        ({"tag": ["a", "list"]}, ""),
    ],
    ids=["no source", "surrogate", "no time", "a list"],
)
def test_one_poisoned_event_of_fifty_is_set_aside_and_49_are_stored(
    recorder: Recorder, poison: dict[str, Any], reason: str
) -> None:
    legs = [recorder.leg(started_at=after(number), call_uniqueid=f"17.{number}") for number in range(50)]
    for number, leg in enumerate(legs):
        if number == 25:
            recorder.put_changed(leg, poison)
        else:
            recorder.put(leg)

    result = recorder.drain()

    assert (result.stored, result.rejected) == (49, 1)
    assert [row["id"] for row in recorder.legs()] == [leg.id for leg in legs if leg is not legs[25]]
    assert {call["uniqueid"] for call in recorder.calls()} == {
        leg.call_uniqueid for leg in legs if leg is not legs[25]
    }
    assert legs[25].id in Path(rejected.paths(recorder.spool)[0]).read_text()
    assert reason in recorder.reasons()[0]


def test_a_text_too_long_for_its_column_is_set_aside_on_postgresql(recorder: Recorder, backend: str) -> None:
    """The call path keeps to the limits; SQLite has none."""
    leg = recorder.leg(source="0" * 256)
    recorder.put(leg)

    recorder.drain()

    assert recorder.waiting() == []
    if backend == "sqlite":
        assert recorder.the_leg(leg)["source"] == "0" * 256
    else:
        assert "too long" in recorder.reasons()[0]


# --- an ending without its start ---


def test_a_young_ending_waits_for_its_start(recorder: Recorder) -> None:
    leg = recorder.leg(started_at=recording.now() - timedelta(seconds=1))
    other = recorder.leg(call_uniqueid="1700000001.1")
    lines = recorder.put(Ending(leg.id, "completed", recording.now(), 960_044, 1.0))
    recorder.put(other)

    result = recorder.drain()

    assert (result.stored, result.rejected, result.left) == (1, 0, 1)
    assert recorder.waiting() == lines

    recorder.put(leg)
    assert recorder.drain().stored == 2
    assert recorder.the_leg(leg)["status"] == "completed"


def test_an_old_ending_without_its_start_is_set_aside(recorder: Recorder) -> None:
    leg = recorder.leg()
    recorder.put(Ending(leg.id, "completed", recording.now() - timedelta(seconds=61), 960_044, 1.0))

    result = recorder.drain()

    assert (result.stored, result.rejected, result.left) == (0, 1, 0)
    assert recorder.reasons() == [f"leg {leg.id} has ended, but nothing is known of its start\n"]
    assert recorder.waiting() == []


def test_more_young_endings_than_a_batch_holds_hold_back_nobody(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_BATCH", 20)
    orphans = [Ending(recording.new_id(), "empty", recording.now(), 44, 0.0) for _ in range(25)]
    legs = [recorder.leg(started_at=after(number)) for number in range(3)]
    recorder.put(*orphans, *legs, *map(ended, legs))

    result = recorder.drain()

    assert (result.stored, result.left) == (6, 25)
    assert [row["status"] for row in recorder.legs()] == ["completed"] * 3


# --- side-cars ---


def test_the_side_car_says_what_the_database_says(recorder: Recorder) -> None:
    first, second = recorder.leg(tag="INV-22"), recorder.leg(started_at=after(30), tag="☎ 'INV' \"23\"")

    recorder.store_all(first)
    recorder.assert_side_cars_tell_the_same()
    recorder.store_all(second, ended(first))
    recorder.assert_side_cars_tell_the_same()

    earlier = json.loads(Path(sidecar.path_for(first.file)).read_text())
    assert (earlier["tag"], earlier["external_reference"]) == ("INV-22", "☎ 'INV' \"23\"")
    assert earlier["started_at"] == "2026-03-01T09:30:15.123456+00:00"


def written(recorder: Recorder, *events: Event) -> set[str]:
    """The legs whose side-cars a drain of these events writes."""

    def states() -> dict[str, tuple[int, int]]:
        found = {path: path.stat() for path in recorder.directory.rglob("*.json")}
        return {str(path): (state.st_ino, state.st_mtime_ns) for path, state in found.items()}

    before = states()
    recorder.store_all(*events)
    changed = {path for path, state in states().items() if before.get(path) != state}
    return {row["id"] for row in recorder.legs() if sidecar.path_for(row["file"]) in changed}


@pytest.mark.parametrize("backend", ["sqlite"])
def test_an_event_writes_the_side_cars_that_have_changed_and_no_others(recorder: Recorder) -> None:
    """Of a call of a thousand legs, which goes round and round."""
    legs = [recorder.leg(started_at=after(10 * number), tag="INV-22") for number in range(1000)]
    recorder.store_all(*legs)
    everybody = {leg.id for leg in legs}
    same, silent, other = (
        recorder.leg(started_at=after(20_000 + number), tag=tag)
        for number, tag in enumerate(["INV-22", "", "INV-23"])
    )
    older = recorder.leg(started_at=after(9905))

    for leg in (same, silent):
        assert written(recorder, leg) == {leg.id}
        assert written(recorder, ended(leg)) == {leg.id}
    assert written(recorder, ended(legs[500])) == {legs[500].id}
    assert written(recorder, older) == {older.id, *(leg.id for leg in legs[991:]), same.id, silent.id}
    assert written(recorder, other) == {*everybody, same.id, silent.id, older.id, other.id}
    recorder.assert_side_cars_tell_the_same()


def test_an_event_waits_until_the_side_cars_of_other_legs_can_be_written(recorder: Recorder) -> None:
    first, second = recorder.leg(tag="INV-1"), recorder.leg(tag="INV-2", started_at=after(30))
    recorder.store_all(first)
    in_the_way = Path(sidecar.path_for(first.file))
    in_the_way.unlink()
    in_the_way.mkdir()
    recorder.put(second)

    assert recorder.drain().left == 1

    in_the_way.rmdir()
    Path(first.file).touch()
    assert recorder.drain().stored == 1
    recorder.assert_side_cars_tell_the_same()


def test_no_side_car_is_made_for_a_leg_whose_recording_lies_on_another_host(recorder: Recorder) -> None:
    """It would never be renewed here, and tell of a leg that records for ever."""
    theirs, ours = recorder.leg(tag="INV-1"), recorder.leg(tag="INV-2", started_at=after(30))
    recorder.store_all(theirs)
    Path(sidecar.path_for(theirs.file)).unlink()

    recorder.store_all(ours)

    assert not os.path.exists(sidecar.path_for(theirs.file))


@pytest.mark.parametrize("kills", [0, 1, 2])
def test_what_a_start_on_another_host_has_changed_is_in_the_side_cars_when_its_leg_has_ended(
    recorder: Recorder, tmp_path: Path, kills: int
) -> None:
    """The FastAGI server's host stores the start, Asterisk's host, where the recordings are, the end."""
    server = Recorder(recorder.store, tmp_path / "server")
    legs = [recorder.leg(tag=f"INV-{number}", started_at=after(-number)) for number in range(3)]
    for leg in legs:
        away = recorder.directory.rename(tmp_path / "away")
        server.store_all(leg)
        away.rename(recorder.directory)
        recorder.put(ended(leg))
        if kills and leg is legs[-1]:
            code = exit_code(forked(lambda: killed_at_side_car(recorder, kills)))
            assert code == -signal.SIGKILL
        recorder.drain()

    assert recorder.waiting() == []
    assert [row["leg"] for row in recorder.legs()] == [1, 2, 3]
    recorder.assert_side_cars_tell_the_same()


def killed_at_side_car(recorder: Recorder, number: int) -> None:
    """A drain, in a process that dies just before it writes that many."""
    write, done = sidecar.write, [0]

    def write_or_die(leg: dict[str, Any]) -> bool:
        done[0] += 1
        if done[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(leg)

    sidecar.write = write_or_die
    recorder.drain()


def test_a_side_car_is_closed_to_other_users(recorder: Recorder) -> None:
    leg = recorder.leg()

    recorder.store_all(leg)

    assert os.stat(sidecar.path_for(leg.file)).st_mode & 0o007 == 0


def test_a_leg_whose_folder_is_gone_is_stored_all_the_same(recorder: Recorder) -> None:
    gone = recorder.leg()
    shutil.rmtree(os.path.dirname(gone.file))
    here = recorder.leg(started_at=after(86400), call_uniqueid="1700000001.1")

    recorder.store_all(gone, here, ended(gone), ended(here))

    assert [row["status"] for row in recorder.legs()] == ["completed", "completed"]
    assert os.path.exists(sidecar.path_for(here.file))


def test_a_leg_whose_folder_is_no_folder_keeps_nobody_else_back(recorder: Recorder) -> None:
    """Somebody moved the recordings away and left a file in their place."""
    gone = recorder.leg()
    folder = os.path.dirname(gone.file)
    shutil.rmtree(folder)
    Path(folder).touch()
    here = recorder.leg(started_at=after(86400), call_uniqueid="1700000001.1")

    recorder.store_all(gone, here)

    assert {row["id"] for row in recorder.legs()} == {gone.id, here.id}


def test_a_drain_of_nothing_does_nothing(recorder: Recorder) -> None:
    result = recorder.drain()

    assert (result.stored, result.rejected, result.busy, result.left) == (0, 0, False, 0)


def test_the_caller_is_told_of_every_event_that_is_stored(recorder: Recorder) -> None:
    told: list[Event] = []
    leg = recorder.leg()
    recorder.put(leg, *[ended(leg)] * 250)
    recorder.put_text("{}")

    drain.run(recorder.store, recorder.spool, told.extend)

    assert told == [leg, *[ended(leg)] * 250]


def test_unfinished_temporary_files_are_no_events(recorder: Recorder) -> None:
    leg = recorder.leg()
    for name in ("journal.4711.tmp", "journal.1.0123456789abcdef.tmp", f"{1:020d}-started-x.json.4711.tmp"):
        recorder.put_file(name, "{}")

    recorder.store_all(leg)

    assert recorder.reasons() == []


def test_an_older_leg_that_arrives_later_takes_nothing_back(recorder: Recorder) -> None:
    """From a spool that was away."""
    older = recorder.leg(tag="INV-1")
    late = recorder.leg(tag="INV-2", started_at=after(30))._replace(source="other", destination="700", did="")
    recorder.store_all(late, ended(late))

    recorder.store_all(older, ended(older))

    [call] = recorder.calls()
    assert (call["external_reference"], call["started_at"], call["ended_at"]) == (
        "INV-2",
        CALL_TIME,
        after(90),
    )
    assert (call["source"], call["destination"], call["did"]) == ("01234567", "600", "0987654")
    assert [(row["id"], row["leg"]) for row in recorder.legs()] == [(older.id, 1), (late.id, 2)]
    recorder.assert_side_cars_tell_the_same()


def test_a_call_that_a_former_version_has_begun_goes_on(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id was made in another way."""
    first, second = recorder.leg(tag="INV-1"), recorder.leg(tag="INV-2", started_at=after(30))
    with monkeypatch.context() as former:
        former.setattr(intake, "call_record_id", lambda server, uniqueid: FORMER_ID)
        recorder.store_all(first)

    recorder.store_all(ended(first), second, ended(second))

    [call] = recorder.calls()
    assert (call["id"], call["external_reference"], call["ended_at"]) == (FORMER_ID, "INV-2", after(90))
    assert [(row["id"], row["leg"]) for row in recorder.legs()] == [(first.id, 1), (second.id, 2)]
    recorder.assert_side_cars_tell_the_same()


def test_newer_calls_have_greater_ids_whatever_the_server_s_name() -> None:
    """So their rows and index entries stand together."""
    uniqueids = ("1700000000.7", "pbx-1-1700000001.2", "1700000002.1")

    ids = [intake.call_record_id(server, each) for each, server in zip(uniqueids, "cab", strict=True)]

    assert ids == sorted(ids)
    assert len({intake.call_record_id("a", each) for each in (*uniqueids, "x", "y.z")}) == 5


def test_replaying_a_start_does_not_change_what_is_known(recorder: Recorder) -> None:
    leg = recorder.leg(tag="INV-22")
    recorder.store_all(leg)

    recorder.store_all(leg._replace(tag="INV-99", started_at=after(5)))

    assert (recorder.the_leg(leg)["tag"], recorder.the_leg(leg)["started_at"]) == ("INV-22", CALL_TIME)
    assert recorder.calls()[0]["external_reference"] == "INV-22"
