"""What is done with legs, and who wanted to hear them: events of the spool become rows and side-cars."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from unit import fakes

from integration.recorder import CALL_TIME, Recorder, after, ended
from noojee_agi.database.tables import access_log, metadata, recording_event, recording_leg
from noojee_agi.recordings import recording, sidecar
from noojee_agi.recordings.recording import Access, Event, Leg, Note


def rows(recorder: Recorder, table: str) -> list[dict[str, Any]]:
    """In the order of time."""
    of_table = metadata.tables[table]
    with recorder.store.reading() as connection:
        found = connection.execute(select(of_table).order_by(of_table.c.at))
        return [dict(row._mapping) for row in found]


def side_car(leg: Leg) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(sidecar.path_for(leg.file)).read_text())
    return content


@pytest.mark.parametrize(("login", "noted"), [("fred", "fred"), ("", None)])
def test_a_start_is_an_event_of_its_leg(recorder: Recorder, login: str, noted: str | None) -> None:
    leg = recorder.leg(agent_login_name=login)

    recorder.store_all(leg)
    recorder.store_all(leg)  # a drain that was killed does it again

    event = {"leg_id": leg.id, "at": CALL_TIME, "what": "started", "login": noted, "reason": ""}
    assert rows(recorder, "recording_event") == [event]


def test_what_is_done_with_a_leg_stands_in_its_rows_and_its_side_car_once(recorder: Recorder) -> None:
    leg = recorder.leg()
    notes = [
        Note(leg.id, after(1), "paused", None, "card number"),
        Note(leg.id, after(2), "resumed", "fred"),
        Note(leg.id, after(3), "stopped", "fred"),
    ]
    heard = Access(recording.new_id(), leg.id, after(90), "fred", "played", False, "192.0.2.7")
    recorder.store_all(leg, *notes, ended(leg))

    recorder.store_all(*notes, heard)
    recorder.store_all(heard)

    told = rows(recorder, "recording_event")
    assert [(row["what"], row["login"], row["reason"]) for row in told] == [
        ("started", None, ""),
        ("paused", None, "card number"),
        ("resumed", "fred", ""),
        ("stopped", "fred", ""),
    ]
    assert rows(recorder, "access_log") == [heard._asdict()]
    recorder.assert_side_cars_tell_the_same()
    assert [event["what"] for event in side_car(leg)["events"]] == ["started", "paused", "resumed", "stopped"]
    assert side_car(leg)["accesses"] == [
        {
            **{"id": heard.id, "at": after(90).isoformat(), "login": "fred"},
            **{"what": "played", "allowed": False, "address": "192.0.2.7"},
        }
    ]


@pytest.mark.parametrize("kind", ["note", "access"])
def test_what_comes_before_its_legs_start_waits_for_it(recorder: Recorder, kind: str) -> None:
    leg = recorder.leg(started_at=recording.now())
    early: dict[str, Event] = {
        "note": Note(leg.id, recording.now(), "held"),
        "access": Access(recording.new_id(), leg.id, recording.now(), "fred", "played", True, ""),
    }
    recorder.put(early[kind])

    assert recorder.drain().left == 1

    recorder.put(leg)
    assert recorder.drain().stored == 2
    assert (recorder.waiting(), recorder.reasons()) == ([], [])


def test_a_note_of_a_leg_that_never_comes_is_set_aside_with_the_reason(recorder: Recorder) -> None:
    recorder.put(Note(recording.new_id(), CALL_TIME, "held"))

    assert recorder.drain().rejected == 1

    assert "nothing is known of its start" in recorder.reasons()[0]


HOLDS = [(1, "held"), (2, "released"), (3, "held"), (4, "released"), (4, "held")]


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(HOLDS) - 1))))
@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_latest_of_hold_and_release_counts_in_whatever_order_they_come(
    recorder: Recorder, order: Sequence[int]
) -> None:
    leg = recorder.leg()
    recorder.store_all(leg)
    so_far = []

    for number in order:
        seconds, what = HOLDS[number]
        recorder.store_all(Note(leg.id, after(seconds), what))
        so_far.append(HOLDS[number])
        assert recorder.the_leg(leg)["held"] == (max(so_far)[1] == "held")
        assert side_car(leg)["held"] == (max(so_far)[1] == "held")


def test_hold_and_release_of_the_same_moment_are_a_hold(recorder: Recorder) -> None:
    """What is held too long can be released; what was deleted is gone."""
    one, other = recorder.leg(), recorder.leg()
    recorder.store_all(one, other)

    recorder.store_all(Note(one.id, after(1), "held"), Note(one.id, after(1), "released"))
    recorder.store_all(Note(other.id, after(1), "released"))
    recorder.store_all(Note(other.id, after(1), "held"))

    assert [row["held"] for row in recorder.legs()] == [True, True]


def test_a_purged_leg_keeps_its_row_and_its_side_car_and_has_no_file(recorder: Recorder) -> None:
    leg = recorder.leg()
    recorder.store_all(leg, ended(leg))

    recorder.store_all(Note(leg.id, after(5000), "purged", None, "older than 90 days"))
    recorder.store_all(Note(leg.id, after(6000), "purged", "fred", "again"))

    row = recorder.the_leg(leg)
    assert (row["file"], row["purged_file"], row["purged_at"]) == ("", leg.file, after(5000))
    recorder.assert_side_cars_tell_the_same()


def test_the_side_car_of_a_purged_leg_is_renewed_with_its_call(recorder: Recorder) -> None:
    purged, later = recorder.leg(), recorder.leg(started_at=after(100), tag="INV-22")
    recorder.store_all(purged, ended(purged))
    recorder.store_all(Note(purged.id, after(5000), "purged"))

    recorder.store_all(later)

    assert side_car(purged)["external_reference"] == "INV-22"
    recorder.assert_side_cars_tell_the_same()


def test_what_the_former_program_inserts_has_no_hold_and_no_purge(recorder: Recorder) -> None:
    """Its server goes on for a while after the tables were upgraded."""
    new_columns = {"held", "purged_at", "purged_file", "extensions"}
    leg = recorder.leg()
    recorder.store_all(leg)
    with recorder.store.transaction() as connection:
        values = dict(connection.execute(select(recording_leg)).one()._mapping)
        former = {name: value for name, value in values.items() if name not in new_columns}
        former |= {"id": fakes.leg()._replace(id=recording.new_id()).id, "leg": 2}
        connection.execute(recording_leg.insert(), former)

    stored = next(row for row in recorder.legs() if row["id"] == former["id"])
    assert {name: stored[name] for name in new_columns} == {
        **{"held": False, "purged_at": None, "purged_file": "", "extensions": []}
    }


@pytest.mark.parametrize("table", [recording_event, access_log])
def test_the_database_itself_refuses_what_is_none_of_ours(recorder: Recorder, table: Any) -> None:
    leg = recorder.leg()
    recorder.store_all(leg, Access(recording.new_id(), leg.id, after(1), "fred", "played", True, ""))

    with pytest.raises(Exception, match="what"):
        recorder.execute(update(table).values(what="burnt"))
