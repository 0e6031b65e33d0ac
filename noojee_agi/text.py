"""Text from outside on its way to a terminal or a log: no character of it may act there."""

import re

_CONTROL_TO_BLANK = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")
_UNSAFE_IN_A_MESSAGE = re.compile(r"[^\w .@/+-]")


def without_controls(text: str) -> str:
    """The same with a blank for each control character."""
    return text if text.isprintable() else text.translate(_CONTROL_TO_BLANK)


def plain(text: str) -> str:
    """User's text for a message or a log line: what a shell or a dialplan might act on becomes '?'."""
    return _UNSAFE_IN_A_MESSAGE.sub("?", text)[:60]


def printable(text: str) -> str:
    """The same with a `?` for each character that is not shown as itself.

    Those of the categories Cc (C0, DEL, C1), Cf (U+202E, U+2066 and whatever else turns or hides text), Zl,
    Zp, Cs, Co, Cn, and every blank but U+0020 (str.isprintable).
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def printable_lines(text: str) -> str:
    """The same for text of several lines, such as a traceback."""
    return "\n".join(map(printable, text.split("\n")))


def escaped(json_text: str) -> str:
    """JSON that says the same with such characters as \\uXXXX, a pair of these beyond U+FFFF (RFC 8259)."""
    # The line's end stands between the tokens of JSON only; within them json escapes it.
    return re.sub(r"[^ -~\n]", _escape, json_text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
