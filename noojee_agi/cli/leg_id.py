"""A leg's id as people type it: whole, or its first eight digits, as in lists and the names of files."""

import re

import click

from noojee_agi.recordings import recording

_EIGHT = re.compile(r"[0-9a-f]{8}")


def leg_id(typed: str) -> str:
    """For click's type=: else PostgreSQL would say what it thinks of the text."""
    asked = typed.lower()
    if not (recording.is_id(asked) or _EIGHT.fullmatch(asked)):
        raise click.BadParameter("a leg's id has 32 digits; its first eight are enough")
    return asked
