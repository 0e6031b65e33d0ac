"""Which bytes of a file a request wants: RFC 9110, 14."""

from __future__ import annotations

import pytest

from noojee_agi.web import ranges
from noojee_agi.web.answers import Refused

ETAG = '"abc"'
SIZE = 1000


def wanted(said: str, **more: str) -> range | None:
    return ranges.of({"range": said, **more}, SIZE, ETAG)


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ("bytes=0-0", range(1)),
        ("bytes=0-999", range(SIZE)),
        ("bytes=500-", range(500, SIZE)),
        ("bytes=500-5000", range(500, SIZE)),
        ("bytes=-1", range(999, SIZE)),
        ("bytes=-5000", range(SIZE)),
        ("Bytes = 10 - 19", range(10, 20)),
    ],
)
def test_a_range_of_it(said: str, part: range) -> None:
    assert wanted(said) == part


@pytest.mark.parametrize(
    "said",
    [
        *("", "bytes", "bytes=", "bytes=-", "bytes=x-y", "lines=1-2", "bytes=5-4", "bytes=0-1,3-4"),
        *("bytes=0x1-2", "bytes=1--2", "bytes=+1-2", f"bytes={'9' * 30}-", "bytes=٣-٤"),
    ],
)
def test_of_what_is_no_single_range_the_whole_is_sent(said: str) -> None:
    assert wanted(said) is None


@pytest.mark.parametrize("said", ["bytes=1000-", "bytes=5000-6000", "bytes=-0"])
def test_bytes_that_are_not_there_are_416_with_the_size(said: str) -> None:
    with pytest.raises(Refused) as refused:
        wanted(said)

    assert (refused.value.status, refused.value.headers) == (416, {"Content-Range": "bytes */1000"})


def test_an_empty_file_has_no_range() -> None:
    with pytest.raises(Refused):
        ranges.of({"range": "bytes=0-"}, 0, ETAG)


def test_if_range_wants_it_of_that_version_alone() -> None:
    assert wanted("bytes=0-0", **{"if-range": ETAG}) == range(1)
    assert wanted("bytes=0-0", **{"if-range": '"other"'}) is None
    assert wanted("bytes=0-0", **{"if-range": "Mon, 30 Nov 2026 18:00:00 GMT"}) is None
