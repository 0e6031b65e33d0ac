"""What the API says of recordings."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from integration.losable import write_wav
from integration.recorder import CALL_TIME, Recorder, after, ended
from integration.test_long_list import put_legs
from noojee_agi.config import Config
from noojee_agi.database import settings
from noojee_agi.database.store import Store
from noojee_agi.errors import BadArgument, DiskSilent, StoreUnavailable
from noojee_agi.recordings import disk
from noojee_agi.recordings.recording import Attachment, Leg, Note
from noojee_agi.web import metadata

Found = list[dict[str, str]]
HOSTILE = "<script>alert('Ä ☎')</script> \"22\" \\ \u202e \N{PILE OF POO} ' OR 1=1 --"


class Api:
    """A database's, on the server pbx1."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.store = recorder.store
        self.config = Config(server_name="pbx1", recordings_directory=str(recorder.directory))

    def by_tag(self, tag: str) -> Found:
        return _all(metadata.by_tag(self.store, self.config, tag))

    def by_uniqueid(self, uniqueid: str) -> Found:
        return _all(metadata.by_uniqueid(self.store, self.config, uniqueid))

    def by_hour(self, date: str, hour: str) -> Found:
        return _all(metadata.by_hour(self.store, self.config, date, hour))

    def put(self, **changes: Any) -> Leg:
        """A leg that has ended, with its file."""
        leg = self.recorder.leg(**changes)
        write_wav(leg.file, 0.1)
        self.recorder.store_all(leg, ended(leg))
        return leg


def _all(pages: Iterable[Found]) -> Found:
    return [leg for page in pages for leg in page]


def ids(found: Found) -> list[str]:
    return [leg["RecordingId"] for leg in found]


@pytest.fixture
def api(recorder: Recorder) -> Api:
    return Api(recorder)


@pytest.fixture
def berlin() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_a_leg_is_told_in_strings_and_in_local_time(api: Api) -> None:
    with api.store.transaction() as connection:
        settings.add_account(connection, "Ann", "Ann", ())
    api.recorder.store_all(Attachment("410", after(-60), "Ann"))
    leg = api.put(
        tag="INV-22",
        channel="PJSIP/trunk-00000001",
        uniqueid="1700000000.7",
        peer_channel="PJSIP/410-00000002",
        started_at=CALL_TIME.replace(microsecond=5999),
    )

    (found,) = api.by_tag("INV-22")

    assert list(found.items()) == [
        ("CallRecordId", api.recorder.calls()[0]["id"]),
        ("UniqueId", "1700000000.7"),
        ("Leg", "1"),
        ("Source", "01234567"),
        ("Destination", "600"),
        ("DID", "0987654"),
        ("Direction", "Inbound"),
        ("Start", "2026-03-01 10:30:15.005"),
        ("callend", "2026-03-01 10:31:15.005"),
        ("Duration", "60"),
        ("Tag", "INV-22"),
        ("Username", "Ann"),
        ("RecordingId", leg.id),
        ("Status", "completed"),
        ("ExternalReference", "INV-22"),
        ("Server", "pbx1"),
    ]
    assert tuple(found) == metadata.FIELDS
    assert api.by_uniqueid("1700000000.7") == api.by_hour("2026/03/01", "10") == [found]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_all_legs_of_a_call_come_in_their_order(api: Api, count: int) -> None:
    legs = [api.put(tag="INV-22", started_at=after(70 * number)) for number in range(count)]
    api.put(tag="INV-23", call_uniqueid="1700000000.8", uniqueid="1700000000.8", started_at=after(5))

    for found in (api.by_tag("INV-22"), api.by_uniqueid("1700000000.7")):
        assert ids(found) == [leg.id for leg in legs]
        assert [leg["Leg"] for leg in found] == [str(number + 1) for number in range(count)]


def test_a_tag_is_the_legs_own_or_else_its_calls(api: Api) -> None:
    """Of a call that has got another tag, only the legs with the first one are the first one's."""
    first = api.put(tag="INV-1")
    second = api.put(started_at=after(70))
    third = api.put(tag="INV-2", started_at=after(140))

    assert ids(api.by_tag("INV-1")) == [first.id]
    found = api.by_tag("INV-2")
    assert ids(found) == [first.id, second.id, third.id]
    assert [leg["Tag"] for leg in found] == ["INV-1", "INV-2", "INV-2"]
    assert {leg["ExternalReference"] for leg in found} == {"INV-2"}
    assert api.by_tag("INV") == api.by_tag("inv-1") == api.by_tag("%") == []


# Which calls are found: that of a server without a system name, and that of pbx1.
UNIQUEIDS: dict[str, set[str]] = {
    "1762420501.7": {"bare", "pbx1"},
    "1762420501.8": {"bare", "pbx1"},
    "1762420501.9": {"bare", "pbx1"},
    "pbx1-1762420501.8": {"pbx1"},
    "1762420501.10": set(),
    "1762420501": set(),
    "%": set(),
}


def test_a_uniqueid_of_any_leg_finds_all_legs_of_its_call(api: Api) -> None:
    for server, system in (("bare", ""), ("pbx1", "pbx1-")):
        call = f"{system}1762420501.7"
        ends = (f"{system}1762420501.8", f"{system}1762420501.9")
        api.put(server=server, call_uniqueid=call, uniqueid=call)
        api.put(
            server=server,
            call_uniqueid=call,
            uniqueid=ends[0],
            peer_uniqueid=ends[1],
            started_at=after(70),
        )
    api.put(call_uniqueid="1762420501.77", uniqueid="1762420501.77")

    for asked, calls in UNIQUEIDS.items():
        found = sorted((leg["Server"], leg["Leg"]) for leg in api.by_uniqueid(asked))
        assert found == sorted((server, number) for server in calls for number in "12"), asked


@pytest.mark.usefixtures("berlin")
def test_an_hour_has_the_legs_that_ended_in_it(api: Api) -> None:
    """From its first moment on, and before the next one's; in the order of their ends."""
    hour = CALL_TIME.replace(minute=0, second=0, microsecond=0)
    ends = [-timedelta(microseconds=1), timedelta(), timedelta(minutes=59), timedelta(hours=1)]
    legs = []
    for number, end in enumerate(ends):
        leg = api.recorder.leg(started_at=hour + end - timedelta(hours=3 if number == 2 else 1))
        write_wav(leg.file, 0.1)
        api.recorder.store_all(leg, ended(leg, ended_at=hour + end))
        legs.append(leg.id)

    assert ids(api.by_hour("2026/03/01", "10")) == legs[1:3]
    assert ids(api.by_hour("2026/03/01", "9")) == legs[:1]
    assert ids(api.by_hour("2026/03/01", "11")) == legs[3:]
    assert api.by_hour("2026/03/02", "10") == []
    assert api.by_hour("2026/03/29", "2") == []


def test_a_leg_is_told_only_while_its_file_is_there(api: Api) -> None:
    there = api.put(tag="INV-22")
    gone = api.put(tag="INV-22", started_at=after(70))
    purged = api.put(tag="INV-22", started_at=after(140))
    failed = api.recorder.leg(tag="INV-22", started_at=after(210))
    elsewhere = api.recorder.leg(tag="INV-22", server="pbx2", file="/elsewhere/1.wav", started_at=after(5))
    api.recorder.store_all(
        *(Note(purged.id, after(999), "purged", None, "older than 90 days"), failed, elsewhere),
        *(ended(failed, status="failed", bytes=None, duration_seconds=None), ended(elsewhere)),
    )
    os.unlink(gone.file)

    for found in (api.by_tag("INV-22"), api.by_hour(*_hour_of(there))):
        assert ids(found) == [there.id, elsewhere.id]
    assert ids(api.by_uniqueid("1700000000.7")) == [there.id, elsewhere.id]


def test_a_leg_that_is_being_recorded_has_no_end_yet(api: Api) -> None:
    leg = api.recorder.leg(tag="INV-22")
    api.recorder.store_all(leg)
    assert api.by_tag("INV-22") == []  # MixMonitor has not made the file yet
    write_wav(leg.file, 0.1)

    (found,) = api.by_tag("INV-22")

    assert (found["callend"], found["Duration"], found["Status"]) == ("", "0", "recording")
    assert (found["Username"], found["Leg"]) == ("", "1")
    assert api.by_hour(*_hour_of(leg)) == []


DURATIONS = [(None, "60"), (0.0, "0"), (0.4, "0"), (0.6, "1"), (59.5, "60"), (3601.0, "3601")]


def test_a_duration_is_in_whole_seconds(api: Api) -> None:
    """Where the format does not tell the length, it is from start to end."""
    for number, (said, _) in enumerate(DURATIONS):
        leg = api.recorder.leg(tag="INV-22", started_at=after(number))
        write_wav(leg.file, 0.1)
        api.recorder.store_all(leg, ended(leg, duration_seconds=said))

    assert [found["Duration"] for found in api.by_tag("INV-22")] == [shown for _, shown in DURATIONS]


def test_markup_and_any_letters_stay_as_they_are(api: Api) -> None:
    with api.store.transaction() as connection:
        settings.add_account(connection, "Zoë <b>", "Zoë", ())
    api.put(
        tag=HOSTILE,
        source=HOSTILE,
        destination=HOSTILE,
        did=HOSTILE,
        agent_login_name="Zoë <b>",
        agent_known=True,
        call_uniqueid=HOSTILE,
    )

    (found,) = api.by_tag(HOSTILE)

    assert {found[name] for name in ("Tag", "Source", "Destination", "DID", "ExternalReference")} == {HOSTILE}
    assert (found["Username"], found["UniqueId"]) == ("Zoë <b>", HOSTILE)
    assert api.by_uniqueid(HOSTILE) == [found] == json.loads(json.dumps([found]))


@pytest.mark.parametrize("value", ["", "a\0b"])
def test_what_no_leg_can_have_is_refused(api: Api, value: str) -> None:
    """Without a tag are most legs."""
    api.put()

    with pytest.raises(BadArgument, match=r"^tag is missing"):
        metadata.by_tag(api.store, api.config, value)
    with pytest.raises(BadArgument, match=r"^uniqueId is missing"):
        metadata.by_uniqueid(api.store, api.config, value)
    with pytest.raises(BadArgument, match=r"^date must be"):
        metadata.by_hour(api.store, api.config, value, "1")
    assert api.by_tag("x" * 10_000) == api.by_uniqueid("x" * 10_000) == []


def test_that_there_is_no_database_is_said_before_the_first_page(tmp_path: Path) -> None:
    store, config = Store(f"sqlite:///{tmp_path}/no/noojee.db"), Config()

    with pytest.raises(StoreUnavailable):
        metadata.by_tag(store, config, "INV-22")
    with pytest.raises(StoreUnavailable):
        metadata.by_hour(store, config, "2026/03/01", "10")


def test_that_the_disk_is_silent_is_said_before_the_first_page(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(path: str) -> bool:
        raise DiskSilent(path)

    api.put(tag="INV-22")
    monkeypatch.setattr(disk, "exists", hangs)

    with pytest.raises(DiskSilent):
        metadata.by_tag(api.store, api.config, "INV-22")


@pytest.fixture
def many(api: Api) -> tuple[Api, list[str]]:
    """Three thousand legs of another server in as many calls, seven a second, which end when they start."""
    put = put_legs(api.store, 3_000, each=timedelta(microseconds=142_857))
    api.recorder.execute(text("UPDATE recording_leg SET ended_at = started_at"))
    api.config = api.config._replace(server_name="pbx9")
    return api, put


def pages_of_all(api: Api) -> dict[str, Iterator[Found]]:
    """Of each way to ask for them."""
    return {
        "tag": metadata.by_tag(api.store, api.config, "INV-22"),
        "hour": metadata.by_hour(api.store, api.config, *_hour_of(CALL_TIME)),
    }


def test_very_many_legs_come_once_each_in_pages(many: tuple[Api, list[str]]) -> None:
    """A page takes 2.2 MB; all pages together, kept, take 4.5, and all legs read at once 11."""
    api, put = many
    for asked, pages in pages_of_all(api).items():
        found: list[str] = []
        tracemalloc.start()
        try:
            for page in pages:
                assert len(page) <= 300
                found += ids(page)
                if len(found) == 300:
                    tracemalloc.reset_peak()
                    first = tracemalloc.get_traced_memory()[0]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert found == put, asked
        assert peak - first < 3_000_000, asked


def test_between_two_pages_nobody_is_held_up(many: tuple[Api, list[str]]) -> None:
    """Neither a writer nor, in PostgreSQL, who needs the whole table, such as an upgrade."""
    api, _ = many
    begun = pages_of_all(api)
    for pages in begun.values():
        next(pages)

    with api.store.transaction() as connection:
        connection.execute(text("CREATE TABLE meanwhile (id INTEGER)"))
        connection.execute(text("DROP TABLE meanwhile"))
        if connection.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE recording_leg, call_record IN ACCESS EXCLUSIVE MODE NOWAIT"))

    assert [len(_all(pages)) for pages in begun.values()] == [2_700, 2_700]


def test_a_page_of_legs_that_are_gone_is_passed_over(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_PAGE", 2)
    legs = [api.put(tag="INV-22", started_at=after(number)) for number in range(5)]
    for leg in legs[:4]:
        os.unlink(leg.file)

    assert ids(api.by_tag("INV-22")) == [legs[4].id]


def _hour_of(moment: Any) -> tuple[str, str]:
    """In which it, or a leg that lasts a minute, ended."""
    ended_at = (moment.started_at + timedelta(minutes=1) if isinstance(moment, Leg) else moment).astimezone()
    return f"{ended_at:%Y/%m/%d}", str(ended_at.hour)
