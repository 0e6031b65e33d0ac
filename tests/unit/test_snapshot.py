"""The snapshot: what the call path knows of the database without asking it."""

from __future__ import annotations

import functools
import json
import os
import resource
import stat
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from noojee_agi.recordings import people, recording, snapshot
from noojee_agi.recordings.people import Stay, Team
from noojee_agi.recordings.snapshot import Knowledge, Snapshot
from unit.fakes import Site, age_snapshot

AT = datetime(2025, 3, 9, 12, tzinfo=timezone.utc)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = str(tmp_path / "snapshot.json")
    before = recording.now()

    snapshot.save(path, Snapshot("digest", frozenset({"Fred", "M\u00fcller"}), recording.now()))
    loaded = snapshot.load(path)

    assert loaded is not None
    assert (loaded.key_digest, loaded.logins) == ("digest", frozenset({"Fred", "M\u00fcller"}))
    assert before <= loaded.read_at <= recording.now()
    assert stat.S_IMODE(os.stat(path).st_mode) & 0o027 == 0
    assert os.listdir(tmp_path) == ["snapshot.json"]


def test_a_snapshot_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        snapshot.save(str(tmp_path / "missing" / "snapshot.json"), Snapshot("", frozenset(), AT))


def saved(path: str, *snapshots: Snapshot) -> Snapshot | None:
    """What is there when these were saved one after the other."""
    for each in snapshots:
        snapshot.save(path, each)
    return snapshot.load(path)


def test_what_was_read_earlier_does_not_replace_what_was_read_later(tmp_path: Path) -> None:
    now = recording.now()
    late = Snapshot("new", frozenset({"Fred"}), now)
    early = Snapshot("old", frozenset({"Ann"}), now - timedelta(milliseconds=1))

    assert saved(str(tmp_path / "a"), late, early) == late
    assert saved(str(tmp_path / "b"), early, late) == late


def test_what_was_read_in_a_future_that_a_clock_set_back_has_left_is_replaced(tmp_path: Path) -> None:
    now = recording.now()
    future = Snapshot("old", frozenset(), now + timedelta(hours=1))

    assert saved(str(tmp_path / "a"), future, Snapshot("new", frozenset(), now)) == Snapshot(
        "new", frozenset(), now
    )


def test_a_database_without_a_key_takes_none_away(tmp_path: Path) -> None:
    now = recording.now()
    known, lost = Snapshot("digest", frozenset(), now), Snapshot("", frozenset(), now + timedelta(seconds=1))

    assert saved(str(tmp_path / "a"), known, lost) == known
    assert saved(str(tmp_path / "b"), lost) == lost


def test_one_that_lives_long_reads_the_file_when_it_has_changed_and_only_then(tmp_path: Path) -> None:
    path, other = str(tmp_path / "a"), str(tmp_path / "b")
    cached = snapshot.Cached()
    first = saved(path, Snapshot("one", frozenset(), AT))
    assert cached(path) == first
    assert cached(path) is cached(path)

    second = saved(path, Snapshot("two", frozenset(), AT + timedelta(seconds=1)))
    assert cached(path) == second
    assert cached(other) is None
    os.unlink(path)
    assert cached(path) is None


def test_one_that_cannot_be_read_for_a_moment_is_read_anew_and_what_was_known_holds(tmp_path: Path) -> None:
    """As in a server's process that is out of descriptors."""
    path = str(tmp_path / "a")
    cached = snapshot.Cached()
    first = saved(path, Snapshot("one", frozenset(), AT))
    assert cached(path) == first
    second = saved(path, Snapshot("two", frozenset(), AT + timedelta(seconds=1)))

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        meanwhile = cached(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert meanwhile == first
    assert cached(path) == second


GOOD = {"key_digest": "d", "logins": ["Fred"], "read_at": "2025-03-09T12:00:00+00:00"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        json.dumps({}),
        json.dumps({**GOOD, "read_at": 5}),
        json.dumps({**GOOD, "read_at": "yesterday"}),
        json.dumps({**GOOD, "read_at": "2025-03-09T12:00:00"}),
        json.dumps({**GOOD, "logins": None}),
        json.dumps({**GOOD, "logins": [["Fred"]]}),
        json.dumps({**GOOD, "key_digest": None}),
    ],
)
def test_a_damaged_snapshot_is_none_at_all(tmp_path: Path, content: str) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text(content)

    assert snapshot.load(str(path)) is None


def test_a_missing_or_binary_snapshot_is_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")

    assert snapshot.load(str(tmp_path / "missing")) is None
    assert snapshot.load(str(tmp_path / "binary")) is None
    assert snapshot.load(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("age", "is_fresh"), [(0, True), (4.9, True), (5, False), (3600, False), (-4.9, True), (-3600, False)]
)
def test_a_snapshot_is_fresh_for_5_seconds_and_not_after_a_clock_that_was_set_back(
    age: float, is_fresh: bool
) -> None:
    assert Snapshot("", frozenset(), AT).is_fresh(AT + timedelta(seconds=age)) is is_fresh


def _knowledge(site: Site) -> Knowledge:
    return Knowledge(site.config.snapshot_file, lambda: site.database(site.config))


def test_what_is_known_is_had_without_the_database(tmp_path: Path) -> None:
    site = Site(tmp_path)
    age_snapshot(site.config, 3600)

    current = _knowledge(site).current()

    assert current is not None
    assert current.logins == {"Fred"}
    assert site.database.times_read == 0


def test_a_fresh_snapshot_is_not_renewed(tmp_path: Path) -> None:
    site = Site(tmp_path)

    knowledge = _knowledge(site)

    assert knowledge.renewed() == knowledge.current()
    assert site.database.times_read == 0


def test_an_old_snapshot_is_renewed_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    age_snapshot(site.config, 6)
    site.database.logins = frozenset({"Anna"})
    knowledge = _knowledge(site)

    renewed = knowledge.renewed()

    assert renewed is not None
    assert renewed.logins == {"Anna"}
    assert knowledge.current() == renewed
    assert knowledge.renewed() == renewed
    assert site.database.times_read == 1


@pytest.mark.parametrize("is_there", [True, False], ids=["file", "file gone"])
def test_without_an_answer_the_old_knowledge_stands(tmp_path: Path, is_there: bool) -> None:
    site = Site(tmp_path)
    age_snapshot(site.config, 6)
    site.database.is_up = False
    knowledge = _knowledge(site)
    before = knowledge.current()
    if not is_there:
        os.unlink(site.config.snapshot_file)

    assert before is not None
    assert knowledge.renewed() == before


def test_nothing_is_known_before_the_database_was_ever_read(tmp_path: Path) -> None:
    site = Site(tmp_path)
    os.unlink(site.config.snapshot_file)
    site.database.is_up = False
    knowledge = _knowledge(site)

    assert knowledge.current() is None
    assert knowledge.renewed() is None
    assert site.database.times_read == 1


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"hear_all": []},
        {"teams": []},
        {"hear_all": [], "teams": 5},
        {"hear_all": [], "teams": [5]},
        {"hear_all": [], "teams": [{}]},
        {"hear_all": [], "teams": [{"leaders": [], "stays": {"fred": 5}}]},
        {"hear_all": [], "teams": [{"leaders": [], "stays": {"fred": "yesterday/"}}]},
    ],
)
def test_a_former_versions_snapshot_and_a_damaged_one_know_nobody_and_the_rest_holds(
    tmp_path: Path, damage: dict[str, object]
) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps({**GOOD, **damage}))

    loaded = snapshot.load(str(path))

    assert loaded is not None
    assert (loaded.logins, loaded.people()) == (frozenset({"Fred"}), None)


def test_a_thousand_people_in_fifty_teams_are_loaded_in_no_time(
    tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """A caller waits for it: for all else that is in it, and for half a millisecond more."""
    logins = [f"agent.person{number}" for number in range(1000)]
    stay = (Stay(AT + timedelta(microseconds=1), None),)
    parts = (logins[first : first + 20] for first in range(0, 1000, 20))
    teams = people.as_json(Team(frozenset(part[:1]), dict.fromkeys(part, stay)) for part in parts)
    without = Snapshot("digest", frozenset(logins), AT, frozenset(map(str, range(1000, 2000))))
    paths = {"without": str(tmp_path / "without"), "with": str(tmp_path / "with")}
    snapshot.save(paths["without"], without)
    snapshot.save(paths["with"], without._replace(hear_all=frozenset(["agent.person0"]), teams=teams))
    spent: dict[str, list[float]] = {name: [] for name in (*paths, "people")}

    for _ in range(100):
        for name, path in paths.items():
            spent[name].append(_seconds(functools.partial(snapshot.load, path)))
        loaded = snapshot.load(paths["with"])
        assert loaded is not None
        spent["people"].append(_seconds(loaded.people))

    best = {name: min(seconds) * 1000 for name, seconds in spent.items()}
    tell(
        f"snapshot of 1000 people: {best['without']:.2f} ms without teams, {best['with']:.2f} ms with 50,"
        f" and {best['people']:.2f} ms for who is asked whether one may hear a leg"
    )
    assert best["with"] - best["without"] < 3
    assert best["people"] < 15


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
