"""The journal between many writers and a drain: killed, stopped, on a full disk; nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.small_disk import fill, small_disk
from lab.waiting import wait_until

from integration.lines import first_and_last, killed_at, lines_of
from integration.recorder import Recorder, after, die_after, ended, exit_code, forked
from noojee_agi.recordings import event_files, files, journal, recording, rejected, spool
from noojee_agi.recordings.recording import Ending, Event, Leg
from noojee_agi.sync import drain

Tell = Callable[[str], None]
sqlite_only = pytest.mark.parametrize("backend", ["sqlite"])


class Started:
    """Processes that begin together, once all are there."""

    def __init__(self) -> None:
        self._hears, self._told = os.pipe()
        self.children: list[int] = []

    def add(self, work: Callable[[], object]) -> None:
        def wait_and_work() -> None:
            os.close(self._told)
            os.nice(19)  # so the drain comes between them as often as it can
            os.read(self._hears, 1)
            work()

        self.children.append(forked(wait_and_work))

    def begin(self) -> None:
        os.close(self._hears)
        os.close(self._told)

    def are_at_work(self) -> bool:
        """Also sees that those who have ended ended well."""
        for child in list(self.children):
            ended_child, status = os.waitpid(child, os.WNOHANG)
            if ended_child:
                assert status == 0
                self.children.remove(child)
        return bool(self.children)


def put_endings(spool_directory: str, ids: list[str]) -> None:
    for leg_id in ids:
        spool.put(spool_directory, Ending(leg_id, "failed", after(0)))


def take_all(spool_directory: str) -> list[str]:
    """As a drain that is done with everything at once: the legs of the events."""
    path = journal.take(spool_directory)
    if not path:
        return []
    found = [json.loads(line) for batch in journal.batches(path, 100) for line in batch]
    journal.keep_only(path, [])
    return [event.get("id") or event["leg_id"] for event in found]


# --- many at once ---


@pytest.fixture
def writer_count(is_long: bool) -> int:
    """Each is a fork of pytest, which takes longer than what it writes."""
    return 200 if is_long else 50


def test_many_writers_lose_nothing_while_the_journal_is_taken_again_and_again(
    tmp_path: Path, is_long: bool, writer_count: int, tell: Tell
) -> None:
    directory, each = str(tmp_path / ".spool"), 100 if is_long else 20
    files.make_folder(directory)
    ids = [[recording.new_id() for _ in range(each)] for _ in range(writer_count)]
    found, takes = list[str](), 0
    for half in (ids[::2], ids[1::2]):  # on a busy machine all of them may be done before we take anything
        writers = Started()
        for own in half:
            writers.add(lambda own=own: put_endings(directory, own))  # type: ignore[misc]
        writers.begin()
        are_at_work = True
        while are_at_work:
            are_at_work = writers.are_at_work()
            new = take_all(directory)
            takes += bool(new)
            found += new

    wanted = {one for own in ids for one in own}
    assert set(found) == wanted
    assert takes > 1
    assert os.listdir(directory) == ["journal"]
    twice = len(found) - len(wanted)
    tell(f"{writer_count} writers, {takes} takes: {len(wanted)} events, 0 lost, {twice} twice")


@sqlite_only
def test_many_writers_beside_a_drain_have_each_leg_stored_once(recorder: Recorder, writer_count: int) -> None:
    """Half of them begin when the drain has taken what the first half wrote till then."""
    calls = [
        [recorder.leg(call_uniqueid=f"17.{number}", started_at=after(leg)) for leg in range(2)]
        for number in range(writer_count)
    ]
    for half in (calls[::2], calls[1::2]):
        writers = Started()
        for legs in half:
            events: list[Event] = [event for leg in legs for event in (leg, ended(leg))]
            writers.add(lambda events=events: recorder.put(*events))  # type: ignore[misc]
        writers.begin()
        wait_until(lambda: drain.run(recorder.store, recorder.spool, is_patient=False).stored, 60, "events")
        while writers.are_at_work():
            recorder.drain()
    recorder.drain()

    rows = recorder.legs()
    assert sorted(row["id"] for row in rows) == sorted(leg.id for legs in calls for leg in legs)
    assert {row["status"] for row in rows} == {"completed"}
    assert (recorder.waiting(), recorder.reasons()) == ([], [])
    recorder.assert_side_cars_tell_the_same()


# --- a writer that is killed, or stopped ---


def test_what_a_killed_writer_was_told_is_there(tmp_path: Path, is_long: bool, tell: Tell) -> None:
    """Killed at any moment, while the journal is taken away again and again."""
    directory, kills, chance = str(tmp_path / ".spool"), 400 if is_long else 15, random.Random(4711)
    files.make_folder(directory)
    told, found = set[str](), set[str]()

    for _ in range(kills):
        with telling_writer(directory, chance.uniform(0.001, 0.03)) as (writer, hears):
            while os.waitpid(writer, os.WNOHANG) == (0, 0):
                found.update(take_all_whole(directory))
            told.update(os.read(hears, 10_000_000).decode().split())

    found.update(take_all_whole(directory))
    assert told <= found
    assert len(told) > kills
    tell(f"kill -9 of a writer: {kills} kills, {len(told)} events were noted, 0 lost")


@contextmanager
def telling_writer(directory: str, seconds: float) -> Iterator[tuple[int, int]]:
    """A process that puts events and tells of each that was put, and dies then; and where it tells."""
    hears, tells = os.pipe()

    def work() -> None:
        die_after(seconds)
        while True:
            leg_id = recording.new_id()
            spool.put(directory, Ending(leg_id, "failed", after(0)))
            os.write(tells, f"{leg_id}\n".encode())

    writer = forked(work)
    os.close(tells)
    try:
        yield writer, hears
    finally:
        os.close(hears)


def take_all_whole(spool_directory: str) -> list[str]:
    """take_all() where some line may have been cut off by a kill."""
    path = journal.take(spool_directory)
    if not path:
        return []
    found = [line for batch in journal.batches(path, 100) for line in batch if journal.is_whole(line)]
    journal.keep_only(path, [])
    return [json.loads(line)["leg_id"] for line in found]


@sqlite_only
@pytest.mark.parametrize("place", ["a new spool", "a journal", "a taken journal"])
def test_a_writer_killed_at_any_line_leaves_its_event_whole_or_none_and_disturbs_nobody(
    recorder: Recorder, tmp_path: Path, place: str
) -> None:
    def prepare() -> None:
        if place == "a new spool":
            return
        recorder.put(recorder.leg())
        if place == "a taken journal":
            os.unlink(journal.take(recorder.spool))
            os.unlink(os.path.join(recorder.spool, "journal"))

    prepare()
    victim = recorder.leg()
    lines = lines_of(lambda: recorder.put(victim), tmp_path / "lines.json")
    assert len(lines) > 15
    for target in first_and_last(lines):
        for path in Path(recorder.spool).iterdir():
            path.unlink()
        prepare()
        others = len(recorder.waiting())

        assert killed_at(*target, lambda: recorder.put(victim)) == -signal.SIGKILL
        behind = recorder.put(recorder.leg())

        assert recorder.waiting()[-1:] == behind
        whole = [line for line in recorder.waiting() if victim.id.encode() in line]
        assert set(whole) <= {recording.to_json(victim).encode()}
        assert len(recorder.waiting()) == others + 1 + len(whole)


@sqlite_only
def test_a_writer_that_was_stopped_before_it_wrote_is_stored_by_a_later_drain(recorder: Recorder) -> None:
    """Its open journal has been drained and removed meanwhile."""
    recorder.put(recorder.leg())
    late = recorder.leg(started_at=after(1))
    hears, tells = os.pipe()

    def stopped_write(file: int, content: bytes) -> int:
        os.write = write
        write(tells, b"1")
        os.kill(os.getpid(), signal.SIGSTOP)
        return write(file, content)

    def work() -> None:
        os.write = stopped_write  # type: ignore[assignment]  # in a process that ends with this
        recorder.put(late)

    write = os.write
    writer = forked(work)
    assert os.read(hears, 1) == b"1"
    os.close(hears)
    os.close(tells)
    os.waitpid(writer, os.WUNTRACED)
    assert recorder.drain().stored == 1

    os.kill(writer, signal.SIGCONT)
    assert exit_code(writer) == 0

    assert recorder.drain().stored == 1
    assert [row["id"] for row in recorder.legs()][-1] == late.id


@sqlite_only
def test_a_stopped_drain_holds_no_writer(recorder: Recorder) -> None:
    recorder.put(recorder.leg())
    hears, tells = os.pipe()

    def hold() -> None:
        with spool.lock(recorder.spool):
            journal.take(recorder.spool)
            os.write(tells, b"1")
            signal.pause()

    holder = forked(hold)
    try:
        assert os.read(hears, 1) == b"1"
        begun = time.monotonic()
        recorder.put(recorder.leg(started_at=after(1)))
        assert time.monotonic() - begun < 10
        assert recorder.drain().busy
    finally:
        os.close(hears)
        os.close(tells)
        os.kill(holder, signal.SIGKILL)
        exit_code(holder)
    assert recorder.drain().stored == 2


# --- a full disk ---


@sqlite_only
def test_a_disk_that_is_full_in_the_middle_of_a_line_loses_nothing_that_was_noted(recorder: Recorder) -> None:
    noted: list[Leg] = []
    with small_disk(1024 * 1024) as disk:
        recorder.spool = str(disk / ".spool")
        put_next(recorder, noted)
        fill(disk / "ballast")
        with pytest.raises(OSError, match="No space left") as caught:
            put_until_it_fails(recorder, noted)
        assert caught.value.errno == errno.ENOSPC
        torn = [line for line in recorder.waiting() if not journal.is_whole(line)]
        assert len(torn) == 1, "the disk was not full in the middle of a line"

        assert recorder.drain().stored == len(noted), "also on a full disk"
        (disk / "ballast").unlink()
        put_next(recorder, noted)
        assert recorder.drain().stored == 1

        assert [row["id"] for row in recorder.legs()] == [leg.id for leg in noted]
        assert (recorder.waiting(), recorder.reasons()) == ([], [])


def put_until_it_fails(recorder: Recorder, noted: list[Leg]) -> None:
    while True:
        put_next(recorder, noted)


def put_next(recorder: Recorder, noted: list[Leg]) -> None:
    leg = recorder.leg(started_at=after(len(noted)))
    recorder.put(leg)
    noted.append(leg)


# --- what is left for later ---


@sqlite_only
def test_a_drain_stores_an_ending_whose_start_lies_in_a_later_journal(recorder: Recorder) -> None:
    """However old it is: such as one that has waited for a start that was refused and is tried again."""
    leg = recorder.leg()
    recorder.put(ended(leg))
    journal.take(recorder.spool)
    recorder.put(leg)

    assert recorder.drain().stored == 2

    assert recorder.the_leg(leg)["status"] == "completed"
    assert (recorder.waiting(), recorder.reasons()) == ([], [])


@sqlite_only
def test_only_what_is_left_of_a_journal_is_tried_again(recorder: Recorder) -> None:
    legs = [recorder.leg(started_at=after(number)) for number in range(3)]
    orphan = Ending(recording.new_id(), "empty", recording.now(), 44, 0.0)
    recorder.put(legs[0], orphan, *legs[1:])

    first, second = recorder.drain(), recorder.drain()

    assert ((first.stored, first.left), (second.stored, second.left)) == ((3, 1), (0, 1))
    assert recorder.waiting() == [recording.to_json(orphan).encode()]
    assert sorted(os.listdir(recorder.spool)) == [".lock", "journal", "journal.1"]


@sqlite_only
def test_a_journal_that_cannot_be_replaced_is_tried_again_whole(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a full disk, say; and it holds nobody else back."""
    leg, later = recorder.leg(), recorder.leg(started_at=after(1))
    orphan = Ending(recording.new_id(), "empty", recording.now(), 44, 0.0)
    lines = recorder.put(leg, orphan)
    journal.take(recorder.spool)
    recorder.put(later)

    write = files.write

    def write_or_fail(path: str, content: str | bytes, is_settled: bool = False) -> None:
        if path.startswith(recorder.spool):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content, is_settled)

    with monkeypatch.context() as full:
        full.setattr(files, "write", write_or_fail)
        assert recorder.drain().left == 1
    assert recorder.waiting() == lines
    assert "journal.1 cannot be replaced: No space left on device" in caplog.text

    recorder.drain()

    assert [row["id"] for row in recorder.legs()] == [leg.id, later.id]
    recorder.assert_side_cars_tell_the_same()


# --- what versions before the journal have left ---


def put_event_files(recorder: Recorder, count: int) -> list[Leg]:
    """Started and ended legs, a file for each event, the endings' names before those of the starts."""
    legs = [recorder.leg(call_uniqueid=recording.new_id()) for _ in range(count)]
    for number, leg in enumerate(legs):
        recorder.put_file(f"{number + 1000:020d}-started-{leg.id}.json", recording.to_json(leg))
        recorder.put_file(f"{number:020d}-finished-{leg.id}.json", recording.to_json(ended(leg)))
    spare = os.path.join(recorder.spool, "spare")
    files.make_folder(spare)
    Path(spare, "0").write_text(recording.to_json(legs[0]))
    return legs


def assert_taken_in(recorder: Recorder, legs: list[Leg]) -> None:
    rows = {row["id"]: row["status"] for row in recorder.legs()}
    assert rows == {leg.id: "completed" for leg in legs}
    assert (recorder.waiting(), recorder.reasons()) == ([], [])
    assert set(os.listdir(recorder.spool)) <= {".lock", "journal"}


def test_the_event_files_of_former_versions_are_taken_in_at_the_upgrade(recorder: Recorder) -> None:
    legs = put_event_files(recorder, 150)
    newer = recorder.leg(started_at=after(1000))
    recorder.put(newer, ended(newer))
    assert len(recorder.waiting()) == spool.count(recorder.spool) == 302
    assert spool.oldest(recorder.spool) is not None

    assert recorder.drain().stored == 302

    assert_taken_in(recorder, [*legs, newer])
    recorder.assert_side_cars_tell_the_same()


@sqlite_only
def test_an_upgrade_killed_at_any_line_loses_and_doubles_nothing(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_files, "_BATCH", 2)
    legs = put_event_files(recorder, 3)

    def take_in() -> None:
        event_files.take_in(recorder.spool)

    lines = lines_of(take_in, tmp_path / "lines.json")
    recorder.drain()
    assert len(lines) > 25

    for target in first_and_last(lines):
        legs += put_event_files(recorder, 3)
        assert killed_at(*target, take_in) == -signal.SIGKILL
        take_in()
        tmp_files = [name for name in os.listdir(recorder.spool) if name.endswith(".tmp")]
        for name in tmp_files:  # removed by drains when it is an hour old
            os.unlink(os.path.join(recorder.spool, name))

    recorder.drain()
    assert_taken_in(recorder, legs)


@sqlite_only
@pytest.mark.parametrize("content", ["", "{", '{"event": "paused"}', "hello"])
def test_a_damaged_event_file_is_set_aside_and_not_taken_for_an_unfinished_line(
    recorder: Recorder, content: str
) -> None:
    """It was there whole or not at all, so somebody has damaged it."""
    legs = put_event_files(recorder, 1)
    recorder.put_file(f"{5:020d}-started-{recording.new_id()}.json", content)

    assert recorder.drain().stored == 2

    [aside] = rejected.paths(recorder.spool)
    assert Path(aside).read_text() == content
    assert [row["id"] for row in recorder.legs()] == [legs[0].id]


@sqlite_only
def test_what_a_former_version_has_set_aside_is_tried_again(recorder: Recorder) -> None:
    leg = recorder.leg()
    files.make_folder(recorder.spool)
    files.make_folder(os.path.join(recorder.spool, "rejected"))
    name = f"{1:020d}-{{}}-{leg.id}.json"
    for event in (leg, ended(leg)):
        path = recorder.put_file(f"rejected/{name.format(recording.kind(event))}", recording.to_json(event))
        Path(f"{path}.reason").write_text("because\n")

    assert len(rejected.paths(recorder.spool)) == 2
    assert spool.retry_rejected(recorder.spool) == 2
    assert recorder.drain().stored == 2

    assert os.listdir(os.path.join(recorder.spool, "rejected")) == []
    assert recorder.the_leg(leg)["status"] == "completed"
