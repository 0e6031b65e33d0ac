"""How wide text is on a terminal, and what is cut of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noojee_agi.cli import columns, listing

# Of one column, of two, and accents of none.
TEXTS = st.text(st.sampled_from("aZ7é東\uff57京🎧\u0301\u20dd"), max_size=30)


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("INV-22", 6),
        ("Müller", 6),
        ("Mu\u0308ller", 6),
        ("東京", 4),
        ("ﾄｳｷｮｳ", 5),
        ("🎧", 2),
        ("…", 1),
    ],
)
def test_how_wide_it_is(text: str, width: int) -> None:
    assert columns.width(text) == width


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("INV-22", 6, "INV-22"),
        ("INV-22", 5, "INV-…"),
        ("東京都", 6, "東京都"),
        ("東京都", 5, "東京…"),
        ("東京都", 4, "東…"),
        ("e\u0301e\u0301e\u0301", 2, "e\u0301…"),
    ],
)
def test_what_is_shown_of_it(text: str, most: int, shown: str) -> None:
    assert columns.cut(text, most) == shown


@given(text=TEXTS, most=st.integers(1, 20))
def test_it_is_whole_or_fills_the_columns_but_for_half_a_letter(text: str, most: int) -> None:
    shown = columns.cut(text, most)

    assert columns.width(columns.padded(shown, most)) == most
    if shown != text:
        assert columns.width(text) > most
        assert text.startswith(shown[:-1])
        assert (shown[-1], columns.width(shown) >= most - 1) == ("…", True)


@given(widths=st.lists(st.integers(0, 300), min_size=1, max_size=8), may=st.data())
def test_columns_fit_where_they_can_and_none_is_cut_without_need(
    widths: list[int], may: st.DataObject
) -> None:
    may_be_cut = [
        True,
        *may.draw(st.lists(st.booleans(), min_size=len(widths) - 1, max_size=len(widths) - 1)),
    ]
    least = sum(min(width, 4) if cut else width for width, cut in zip(widths, may_be_cut, strict=True))
    least += 2 * (len(widths) - 1)

    fitted = columns.fitted(widths, may_be_cut, 100)

    assert all(now <= was for now, was in zip(fitted, widths, strict=True))
    assert all(cut or now == was for now, was, cut in zip(fitted, widths, may_be_cut, strict=True))
    taken, wanted = (sum(each) + 2 * (len(widths) - 1) for each in (fitted, widths))
    assert taken == (wanted if wanted <= 100 else max(100, least))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (0.0, "0:00"),
        (0.4, "0:00"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (65.0, "1:05"),
        (6000.0, "100:00"),
    ],
)
def test_a_length_is_minutes_and_seconds(seconds: float | None, shown: str) -> None:
    assert listing.length(seconds) == shown
