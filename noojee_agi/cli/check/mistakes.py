"""What to do about a configuration that cannot be read: by what config and identity say of it."""

import os
import re

from noojee_agi.cli.check import cures, folders, stage

_OPTION = re.compile(r": \[(\w+)\](?: (\w+))?: ")
_LINE = re.compile(r": not an INI file: .*\bline (\d+)\b")
_OPEN = re.compile(r": (chmod g-w,o-w (?:'[^']*'|\S+)), or give ")
_GIVE = re.compile(r"user (\S+) can change (.+), where root does not work: give ")


def explained(said: str, path: str, asterisk: int | None) -> tuple[str, str]:
    """What is wrong, and the cure; that is empty where the text has it already.

    path: of noojee_agi.conf. asterisk: the number of Asterisk's user, if it is known.
    """
    owner = cures.owner(asterisk)
    if found := _OPEN.search(said):
        return said[: found.start()], found[1]
    if found := _GIVE.search(said):
        return said.partition(": give ")[0], f"chown -R root: {found[2]}"
    if said.startswith("[database] url"):
        return said, f"the line url of [database] in {path}"
    if not said.startswith(path):
        return said, ""
    if "cannot be read" in said:
        return said, _made_readable(path, owner)
    if found := _LINE.search(said):
        return said, cures.remove_lines(path, [int(found[1])])
    if "not UTF-8" in said:
        return said, f"LC_ALL=C sed -i 's/[\\x80-\\xff]//g' {stage.quoted(path)}"
    found = _OPTION.search(said)
    numbers = _numbers(path, found[1], found[2]) if found else []
    return said, cures.remove_lines(path, numbers) if numbers else ""


def _made_readable(path: str, owner: str) -> str:
    if not os.path.lexists(path) and not folders.closed_part(path):
        return f"install -m 0644 /dev/null {stage.quoted(path)}"
    if folders.closed_part(path):
        return folders.closed(path)[1]
    return cures.let_read(path, owner)


def _numbers(path: str, section: str, option: str | None) -> list[int]:
    """The lines of that option, those that go on with it included, or of the whole section."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    found, here, is_ours = [], "", False
    for number, line in enumerate(lines, 1):
        if line.startswith("["):
            here, is_ours = line[1:].partition("]")[0], False
        elif option and line[:1].strip():
            is_ours = here == section and re.match(rf"{option}\s*[=:]", line, re.IGNORECASE) is not None
        if here == section and (is_ours or not option):
            found.append(number)
    return found
