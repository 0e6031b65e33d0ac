"""Which instants an hour of local time has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noojee_agi.errors import BadArgument
from noojee_agi.web.metadata import hour

ZONES = (
    *("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"),
    *("Africa/Cairo", "Asia/Beirut", "Pacific/Kiritimati", "Etc/GMT+12", "America/St_Johns"),
)
DAYS = st.dates(date(1990, 1, 1), date(2037, 12, 30))
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2037, 12, 30), timezones=st.just(timezone.utc))
_GIVEN_ONCE = settings(
    max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The process's own, for as long as the test runs."""
    name: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield name
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "day", "number", "begin", "end"),
    [
        ("UTC", "2026/03/29", 2, "2026-03-29 02:00", "2026-03-29 03:00"),
        ("Europe/Berlin", "2026/03/29", 1, "2026-03-29 00:00", "2026-03-29 01:00"),
        ("Europe/Berlin", "2026/03/29", 2, None, None),
        ("Europe/Berlin", "2026/03/29", 3, "2026-03-29 01:00", "2026-03-29 02:00"),
        ("Europe/Berlin", "2026/10/25", 1, "2026-10-24 23:00", "2026-10-25 00:00"),
        ("Europe/Berlin", "2026/10/25", 2, "2026-10-25 00:00", "2026-10-25 02:00"),
        ("Europe/Berlin", "2026/10/25", 3, "2026-10-25 02:00", "2026-10-25 03:00"),
        ("Europe/Berlin", "2026/12/31", 23, "2026-12-31 22:00", "2026-12-31 23:00"),
        ("Europe/Berlin", "2024/02/29", 0, "2024-02-28 23:00", "2024-02-29 00:00"),
        ("America/New_York", "2026/03/08", 1, "2026-03-08 06:00", "2026-03-08 07:00"),
        ("America/New_York", "2026/03/08", 2, None, None),
        ("America/New_York", "2026/03/08", 3, "2026-03-08 07:00", "2026-03-08 08:00"),
        ("America/New_York", "2026/11/01", 1, "2026-11-01 05:00", "2026-11-01 07:00"),
        ("America/New_York", "2026/11/01", 2, "2026-11-01 07:00", "2026-11-01 08:00"),
        ("Australia/Lord_Howe", "2026/10/04", 1, "2026-10-03 14:30", "2026-10-03 15:30"),
        ("Australia/Lord_Howe", "2026/10/04", 2, "2026-10-03 15:30", "2026-10-03 16:00"),
        ("Australia/Lord_Howe", "2026/04/05", 1, "2026-04-04 14:00", "2026-04-04 15:30"),
        ("Australia/Lord_Howe", "2026/04/05", 2, "2026-04-04 15:30", "2026-04-04 16:30"),
        ("Asia/Kathmandu", "2026/03/29", 2, "2026-03-28 20:15", "2026-03-28 21:15"),
        ("Asia/Kathmandu", "2026/03/29", 6, "2026-03-29 00:15", "2026-03-29 01:15"),
        ("Pacific/Apia", "2011/12/30", 12, None, None),
    ],
    indirect=["zone"],
)
def test_an_hour_is_from_when_to_when_clocks_show_it(
    zone: str, day: str, number: int, begin: str | None, end: str | None
) -> None:
    found = hour(day, str(number))

    if begin is None or end is None:
        assert found is None
    else:
        assert found == (_utc(begin), _utc(end))


@pytest.mark.parametrize("zone", ZONES, indirect=True)
@_GIVEN_ONCE
@given(day=DAYS)
def test_the_hours_of_two_days_cover_them_exactly_once(zone: str, day: date) -> None:
    days = (day, day + timedelta(days=1))
    shown = [found for each in days for number in range(24) if (found := hour(_text(each), str(number)))]

    assert [begin for begin, _ in shown[1:]] == [end for _, end in shown[:-1]]
    for moment, each in ((shown[0][0], days[0]), (shown[-1][1] - timedelta(microseconds=1), days[1])):
        assert moment.astimezone().date() == each


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe"], indirect=True)
@pytest.mark.parametrize("day", [date(2026, 3, 29), date(2026, 4, 5), date(2026, 10, 4), date(2026, 10, 25)])
def test_so_do_those_of_a_clock_change(zone: str, day: date) -> None:
    test_the_hours_of_two_days_cover_them_exactly_once.hypothesis.inner_test(zone, day)


@pytest.mark.parametrize("zone", ZONES, indirect=True)
@_GIVEN_ONCE
@given(moment=MOMENTS)
def test_a_moment_is_in_the_hour_that_clocks_show_then(zone: str, moment: datetime) -> None:
    shown = moment.astimezone()

    found = hour(_text(shown), str(shown.hour))

    assert found
    assert found[0] <= moment < found[1]


@pytest.mark.parametrize("zone", ["UTC"], indirect=True)
@_GIVEN_ONCE
@given(day=DAYS, number=st.integers(0, 23))
def test_in_utc_it_is_just_that_hour(zone: str, day: date, number: int) -> None:
    begin = datetime(day.year, day.month, day.day, number, tzinfo=timezone.utc)

    assert hour(_text(day), str(number)) == (begin, begin + timedelta(hours=1))
    assert hour(_text(day), f"{number:02}") == (begin, begin + timedelta(hours=1))


@pytest.mark.parametrize(
    "day",
    [
        *("", "2026", "2026/2/3", "2026-02-03", "26/02/03", "2026/02/30", "2025/02/29", "2026/13/01"),
        *(
            "2026/00/10",
            "2026/01/00",
            "0000/01/01",
            "9999/12/31",
            "2026/02/03 ",
            " 2026/02/03",
            "2026/02/03\n",
        ),
        *("٢٠٢٦/٠٢/٠٣", "03/02/2026", "2026/02/03/04", "<b>\x1b[31m"),
    ],
)
def test_what_is_no_day_is_refused_in_a_sentence(day: str) -> None:
    with pytest.raises(BadArgument) as caught:
        hour(day, "0")

    assert str(caught.value) == "date must be a day as yyyy/MM/dd, such as 2026/11/30"


@pytest.mark.parametrize("number", ["", "24", "-1", "+1", "1.0", "001", "1 ", "a", "²", "٣", "1\n", "0x1"])
def test_what_is_no_hour_is_refused_in_a_sentence(number: str) -> None:
    with pytest.raises(BadArgument) as caught:
        hour("2026/02/03", number)

    assert str(caught.value) == "hour must be a number from 0 to 23"


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}:00+00:00")


def _text(day: date) -> str:
    return f"{day:%Y/%m/%d}"
