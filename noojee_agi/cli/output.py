"""How commands speak: to people in lines and tables, to programs in JSON, and the progress of long work."""

import contextlib
import csv
import errno
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import click

from noojee_agi import text
from noojee_agi.cli import columns
from noojee_agi.errors import NoojeeError

_LONG_WORK = 1000
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d .()/-]*$)")


def cell(value: object) -> str:
    """A value in a table, on one line whatever it holds."""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return text.printable(", ".join(value))
    if value in (None, ""):
        return "-"
    return text.printable(str(value))


def say(line: str, err: bool = False) -> None:
    """One line for a person, to standard output or error, whatever callers have written into it."""
    click.echo(text.printable(line), err=err)


def say_json(value: object) -> None:
    """For programs; at a terminal no character of it acts."""
    click.echo(_as_json(value))


def say_json_list(pieces: Iterable[list[Any]]) -> None:
    """The same for one list, in the pieces that come."""
    before = "[\n"
    for piece in pieces:
        if piece:
            click.echo(f"{before}{_as_json(piece)[2:-2]}", nl=False)
            before = ",\n"
    click.echo("[]" if before == "[\n" else "\n]")


def say_csv(rows: Iterable[Iterable[object]]) -> None:
    click.echo(csv_text(rows), nl=False)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Lines of CSV (RFC 4180), times as in JSON; neither a terminal nor a table program acts on a value."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([_csv_cell(value) for value in row] for row in rows)
    return lines.getvalue()


def _csv_cell(value: object) -> object:
    """Text that begins as a formula gets an apostrophe (OWASP, CSV Injection); a number with + is none."""
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, str):
        return value
    return text.printable(f"'{value}" if _FORMULA.match(value) else value)


def _as_json(value: object) -> str:
    return text.escaped(json.dumps(value, indent=1, ensure_ascii=False, default=datetime.isoformat))


def table(head: Any, rows: list[Any]) -> None:
    """Print it, columns side by side."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    lines(cells, widths(cells))


def widths(cells: list[list[str]]) -> list[int]:
    """Of the columns of these rows, on a terminal."""
    return [max(map(columns.width, column)) for column in zip(*cells, strict=True)]


def lines(cells: list[list[str]], widths: list[int]) -> None:
    """Print these rows of a table whose columns are so wide; what is too long is cut."""
    for line in cells:
        cut = (
            columns.padded(columns.cut(cell, width), width) for cell, width in zip(line, widths, strict=True)
        )
        say("  ".join(cut).rstrip())


def show(line: str) -> None:
    """Print it, and be sure of that. Raises NoojeeError."""
    try:
        if sys.stdout is None:  # as Python says that it is closed
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        say(line)
        _force_to_disk()
    except OSError as exc:
        discard()
        raise NoojeeError(f"standard output cannot be written ({exc.strerror})") from exc


def discard() -> None:
    """What Python still holds for standard output goes nowhere; it would complain of that at its end."""
    with contextlib.suppress(OSError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _force_to_disk() -> None:
    """Some file systems say only now that they are full; a pipe or a terminal has nothing to force."""
    try:
        os.fsync(sys.stdout.fileno())
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise


@contextlib.contextmanager
def progress(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a line for each tenth of long work."""
    if sys.stderr.isatty():
        with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
            yield bar.update
        return
    done = 0

    def update(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if length >= _LONG_WORK and done * 10 // length > before * 10 // length:
            say(f"{label}: {done} of {length}", err=True)

    yield update
