"""What the dialplan wrote after the program's name -> one frozen Request."""

from collections.abc import Sequence
from typing import NamedTuple

from noojee_agi import text
from noojee_agi.errors import BadArgument

# In characters. 149: Asterisk's longest uniqueid (include/asterisk/channel.h, AST_MAX_UNIQUEID).
LIMITS = {"extenOrUniqueId": 149, "tag": 255, "agentLoginName": 100, "extension": 149}
# Each program's arguments in positional order, as in the manual page of the API.
START_RECORD = ("extenOrUniqueId", "tag", "agentLoginName")
STOP_RECORD = PAUSE_RECORD = RESUME_RECORD = ("extenOrUniqueId", "agentLoginName")
ATTACH_USER = ("agentLoginName", "extension")
DETACH_USER = ("extension",)


class Request(NamedTuple):
    """What the dialplan asked for; empty means not given."""

    exten_or_uniqueid: str = ""
    tag: str = ""
    agent_login_name: str = ""
    extension: str = ""


def parse(
    words: Sequence[str], pairs: Sequence[tuple[str, str]] = (), names: Sequence[str] = START_RECORD
) -> Request:
    """Read positional and named arguments, in any mixture, and the pairs of a query string.

    names: the program's arguments in positional order.

    Raises BadArgument: unknown, repeated, too many or too long, or an apiKey among them.
    """
    given: dict[str, str] = {}
    positions = iter(names)
    for word in words:
        name, value = _named(word, names)
        if not name:
            name, value = next(positions, ""), word
            if not value:
                continue  # an empty position is not given
        if not name:
            raise BadArgument(f"more than {len(names)} arguments: put a tag with a comma in double quotes")
        _give(given, name, value)
    for asked, value in pairs:
        name = _proper_name(asked, names)
        if not name:
            raise BadArgument(f"there is no argument {text.plain(asked)}, only {', '.join(names)}")
        _give(given, name, value)
    return Request(
        given.get("extenOrUniqueId", "").strip(),
        given.get("tag", ""),
        given.get("agentLoginName", ""),
        given.get("extension", "").strip(),
    )


def _named(word: str, names: Sequence[str]) -> tuple[str, str]:
    """Split 'tag=x' into the tag's proper name and x; any other '=' belongs to the value."""
    asked, equals, value = word.partition("=")
    name = _proper_name(asked, names) if equals else ""
    return (name, value) if name else ("", word)


def _proper_name(asked: str, names: Sequence[str]) -> str:
    """The argument's name as documented; empty when there is none. Raises BadArgument for an apiKey."""
    name = asked.strip().lower()
    if name == "apikey":
        raise BadArgument(
            "apiKey must not be an argument, since arguments are seen in ps and in the log:"
            " set the channel variable or the global apiKey"
        )
    return next((proper_name for proper_name in names if name == proper_name.lower()), "")


def _give(given: dict[str, str], name: str, value: str) -> None:
    if name in given:
        raise BadArgument(f"{name} is given twice: pass it once")
    if len(value) > LIMITS[name]:
        raise BadArgument(f"{name} has {len(value)} characters: {LIMITS[name]} are allowed")
    given[name] = text.without_controls(value)
