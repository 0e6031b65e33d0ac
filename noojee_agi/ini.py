"""The lines of noojee_agi.conf: sections, options, and values that go on in indented lines.

It imports nothing: a call that is handed over waits for this to find the server. The import of configparser
takes 3 ms, half of what such a program has to do itself.
"""

TYPE_CHECKING = False  # importing collections for it would cost the caller 2 ms
if TYPE_CHECKING:
    from collections.abc import Iterable


def read(path: str) -> "dict[str, dict[str, str]]":
    """Section -> option, in lower case -> value.

    Raises OSError; ValueError when it is none, which says why and in which line, and repeats nothing of it.
    """
    with open(path, encoding="utf-8") as file:
        return parse(file)


def parse(lines: "Iterable[str]") -> "dict[str, dict[str, str]]":
    """The same of these lines. Raises ValueError."""
    sections: dict[str, dict[str, str]] = {}
    options: dict[str, str] | None = None
    option, indent = "", 0
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text[0] in "#;":
            continue
        before, indent = indent, len(line) - len(line.lstrip())
        if options is not None and option and indent > before:  # goes on with that option
            indent = before
            options[option] = f"{options[option]}\n{text}".strip()
        elif text[0] == "[":
            options, option = _section(sections, text, number), ""
        elif options is None:
            raise ValueError(f"line {number} stands before the first [section]")
        else:
            option = _option(options, text, number)
    return sections


def _section(sections: "dict[str, dict[str, str]]", text: str, number: int) -> "dict[str, str]":
    name, bracket, _ = text[1:].partition("]")
    if not bracket or not name:
        raise ValueError(f"line {number} is no [section]")
    if name in sections:
        raise ValueError(f"the section in line {number} is there twice")
    sections[name] = {}
    return sections[name]


def _option(options: "dict[str, str]", text: str, number: int) -> str:
    end = next((at for at, character in enumerate(text) if character in "=:"), 0)
    name = text[:end].strip().lower()
    if not name:
        raise ValueError(f"line {number} is no option = value")
    if name in options:
        raise ValueError(f"the option in line {number} is there twice in its section")
    options[name] = text[end + 1 :].strip()
    return name
