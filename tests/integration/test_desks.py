"""Hot desks: attachments, detachments and legs, in any order and batches, give the rows of the right one."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as some
from lab.waiting import wait_until
from sqlalchemy import Connection, select, text
from unit import fakes

from integration.losable import LosableSite
from integration.recorder import Recorder, after, exit_code, forked
from integration.test_order import Undone
from noojee_agi.database import intake, queries, settings
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.database.tables import extension_attachment
from noojee_agi.recordings import desk_log, recording, sidecar, snapshot, spool
from noojee_agi.recordings.recording import Attachment, Event, Leg, leg_ids

LOGINS = ("ann", "fred", "lena")
EXTENSIONS = ("410", '4"1\\1%_/')
MOMENTS = some.integers(0, 6)


@dataclass(frozen=True)
class Day:
    """What happened, each once, and the batches in which it is brought in."""

    events: list[Event]
    batches: list[list[Event]]


@some.composite
def days(draw: some.DrawFn) -> Day:
    sat_down = some.builds(
        Attachment, some.sampled_from(EXTENSIONS), MOMENTS.map(after), some.sampled_from([*LOGINS, ""])
    )
    events: list[Event] = list(draw(some.lists(sat_down, max_size=7, unique=True)))
    for number in range(draw(some.integers(0, 5))):
        leg = fakes.leg(
            agent_login_name=draw(some.sampled_from(["", "", "", "lena", "ghost"])),
            started_at=after(draw(MOMENTS)),
            extension="",
            extensions=tuple(draw(some.permutations(EXTENSIONS))[: draw(some.integers(0, 2))]),
        )
        name = f"{number:08x}-0000-4000-8000-000000000000"
        events.append(leg._replace(id=name, call_uniqueid=f"17.{number % 2}", file=f"/r/{number}.wav"))
    again = draw(some.lists(some.sampled_from(events), max_size=3)) if events else []
    order = draw(some.permutations([*events, *again]))
    ends = sorted(draw(some.sets(some.integers(0, len(order)), max_size=6)) | {0, len(order)})
    return Day(events, [order[begin:end] for begin, end in itertools.pairwise(ends)])


def history(events: Sequence[Event], extension: str) -> list[tuple[datetime, str, datetime | None]]:
    """Since when the extension was whose until when, written down as a person would do it."""
    told = [event for event in events if isinstance(event, Attachment) and event.extension == extension]
    moments = sorted({event.at for event in told})
    found = []
    for number, moment in enumerate(moments, 1):
        until = moments[number] if number < len(moments) else None
        logins = {event.login for event in told if event.at == moment} - {""}
        if logins:
            found.append((moment, max(logins, key=settings.account_id), until))
    return found


def owner(events: Sequence[Event], leg: Leg) -> tuple[str | None, str]:
    """And the extension that the leg is filed under."""
    first = next(iter(leg.extensions), "")
    if leg.agent_login_name:
        return (leg.agent_login_name if leg.agent_login_name in LOGINS else None), first
    for extension in leg.extensions:
        for since, login, until in history(events, extension):
            if since <= leg.started_at and (until is None or leg.started_at < until):
                return login, extension
    return None, first


def bring_in(connection: Connection, batches: Sequence[Sequence[Event]]) -> None:
    """As a drain does: the side-cars that it writes are always as the rows."""
    side_cars: dict[str, dict[str, Any]] = {}
    for batch in batches:
        written = intake.store(connection, batch) | leg_ids(batch)
        rows = {row["id"]: row for row in queries.legs(connection, Filter())}
        side_cars |= {each: rows[each] for each in written}
        assert side_cars == rows


def assert_rows_are_what_happened(connection: Connection, events: list[Event]) -> None:
    logins = {settings.account_id(login): login for login in LOGINS}
    rows = connection.execute(select(extension_attachment).order_by(extension_attachment.c.attached_at)).all()
    for extension in EXTENSIONS:
        of_extension = [row for row in rows if row.extension == extension]
        told = [(row.attached_at, logins[row.account_id], row.detached_at) for row in of_extension]
        assert told == history(events, extension)
    legs = {event.id: event for event in events if isinstance(event, Leg)}
    for row in queries.legs(connection, Filter()):
        assert (row["owner"], row["extension"]) == owner(events, legs[row["id"]])


# Days of a test, and of its long form; one in PostgreSQL takes as long as five.
DAYS = {"sqlite": (50, 150), "postgresql": (15, 30)}


def test_in_any_order_the_rows_are_those_of_the_right_one(store: Store, backend: str, is_long: bool) -> None:
    @examples(max_examples=DAYS[backend][is_long], deadline=None)
    @given(day=days())
    def check(day: Day) -> None:
        with contextlib.suppress(Undone), store.transaction() as connection:
            for login in LOGINS:
                settings.add_account(connection, login, login, ())
            bring_in(connection, day.batches)
            assert_rows_are_what_happened(connection, day.events)
            raise Undone

    check()


# --- and the same through a drain ---


@pytest.fixture
def desks(recorder: Recorder) -> Recorder:
    with recorder.store.transaction() as connection:
        for login in LOGINS:
            settings.add_account(connection, login, login, ())
    return recorder


def owners(recorder: Recorder) -> list[str | None]:
    return [row["owner"] for row in recorder.legs()]


def test_who_takes_over_an_extension_ends_the_earlier_attachment_and_its_history_stays(
    desks: Recorder,
) -> None:
    legs = [desks.leg(started_at=after(moment), extensions=("410",)) for moment in (5, 15, 25)]

    desks.store_all(Attachment("410", after(0), "ann"))
    desks.store_all(Attachment("410", after(10), "fred"), Attachment("410", after(20), ""), *legs)

    assert owners(desks) == ["ann", "fred", None]


def test_an_attachment_that_comes_late_settles_the_owner_of_legs_and_side_cars_after_it(
    desks: Recorder,
) -> None:
    legs = [desks.leg(started_at=after(moment), extensions=("600", "410")) for moment in (5, 15, 25)]
    named = desks.leg(started_at=after(16), extensions=("410",), agent_login_name="ann", agent_known=True)
    desks.store_all(Attachment("410", after(20), "fred"), *legs, named)
    assert owners(desks) == [None, None, "ann", "fred"]

    desks.store_all(Attachment("410", after(10), "lena"))

    assert owners(desks) == [None, "lena", "ann", "fred"]
    assert desks.the_leg(legs[1])["extension"] == "410"
    desks.assert_side_cars_tell_the_same()
    assert json.loads(Path(sidecar.path_for(legs[1].file)).read_text())["owner"] == "lena"


def test_a_leg_that_the_former_schema_stored_is_settled_by_the_extension_that_it_is_filed_under(
    desks: Recorder,
) -> None:
    leg = desks.leg(started_at=after(5), extensions=("410",))
    desks.store_all(leg)
    with desks.store.transaction() as connection:
        connection.exec_driver_sql("UPDATE recording_leg SET extensions = ''")

    desks.store_all(Attachment("410", after(0), "lena"))

    assert (desks.the_leg(leg)["owner"], desks.the_leg(leg)["extension"]) == ("lena", "410")


@pytest.mark.postgresql
@pytest.mark.parametrize("backend", ["postgresql"])
@pytest.mark.parametrize("first", ["attachment", "leg"])
def test_a_leg_and_an_attachment_that_two_hosts_bring_in_at_once_miss_each_other_never(
    desks: Recorder, first: str
) -> None:
    """Neither sees what the other has not committed yet, so they take turns."""
    leg = desks.leg(started_at=after(5), extensions=("410",))
    events: list[Event] = [Attachment("410", after(0), "ann"), leg]
    mine, theirs = events if first == "attachment" else reversed(events)

    def is_waiting() -> bool:
        with desks.store.reading() as connection:
            return bool(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    with desks.store.transaction() as connection:
        intake.store(connection, [mine])
        child = forked(lambda: desks.store_all(theirs))
        wait_until(is_waiting, 20, "the other host to wait")

    assert exit_code(child) == 0
    assert owners(desks) == ["ann"]


def test_an_attachment_of_an_account_that_is_not_there_is_set_aside_until_it_is(desks: Recorder) -> None:
    desks.put(Attachment("410", after(0), "ghost"))

    assert desks.drain().rejected == 1

    assert "noojee-agi account add ghost" in desks.reasons()[0]
    with desks.store.transaction() as connection:
        settings.add_account(connection, "ghost", "ghost", ())
    assert spool.retry_rejected(desks.spool) == 1
    assert desks.drain().stored == 1


def test_a_drain_renews_snapshot_and_settings_copy_with_an_attachment(
    tmp_path: Path, database_url: str
) -> None:
    site = LosableSite(tmp_path, database_url, lambda: None)
    site.set_up()
    spool.put(site.recorder.spool, Attachment("777", recording.now(), "fred"))

    site.background_drain()

    known = snapshot.load(str(site.snapshot))
    assert known
    assert "777" in (known.attached or ())
    assert [each.extension for each in desk_log.read(str(site.recordings))] == ["777"]


def test_attachments_since_the_last_copy_of_the_settings_come_back(tmp_path: Path) -> None:
    def remove() -> None:
        for path in tmp_path.glob("noojee.db*"):
            path.unlink()

    site = LosableSite(tmp_path, f"sqlite:///{tmp_path}/noojee.db", remove)
    site.set_up()
    for moment, login in ((20, "lena"), (10, "fred"), (15, "")):
        spool.put(site.recorder.spool, Attachment("777", after(moment), login))
        site.background_drain()
    before, copy = site.dump(), site.settings_copy.read_text()
    with (site.recordings / ".attachments").open("ab") as log:
        log.write(b'\n{"event": "attached", "exten')  # a full disk

    site.lose()

    assert site.dump() == before
    assert '"777"' not in copy  # the key's digest may have these digits
    site.sync()  # from now on the copy has them
    assert '"777"' in site.settings_copy.read_text()
    assert desk_log.read(str(site.recordings)) == []
    site.lose()
    assert site.dump() == before
