"""How wide text is on a terminal: letters of the far East take two columns, accents of their own none."""

import unicodedata
from collections.abc import Sequence

_ELLIPSIS = "…"
_LEAST = 4  # columns, of what is cut


def width(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_width, text))


def padded(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def cut(text: str, columns: int) -> str:
    """The text, or its beginning with … for the rest, in so many columns at most."""
    if width(text) <= columns:
        return text
    kept, used = "", width(_ELLIPSIS)
    for character in text:
        used += _width(character)
        if used > columns:
            break
        kept += character
    return kept + _ELLIPSIS


def fitted(widths: Sequence[int], may_be_cut: Sequence[bool], most: int) -> list[int]:
    """These columns, together with the blanks between them in so many: the widest of those are narrower."""
    fitted = list(widths)
    too_many = sum(fitted) + 2 * (len(fitted) - 1) - most
    for _ in range(too_many):
        widest = max((at for at, may in enumerate(may_be_cut) if may), key=lambda at: fitted[at])
        fitted[widest] -= fitted[widest] > _LEAST
    return fitted


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
