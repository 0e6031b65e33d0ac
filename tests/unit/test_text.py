"""What callers write acts neither on a terminal nor on whoever reads a log."""

from __future__ import annotations

import ast
import functools
import json
import logging
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from noojee_agi import cli, config, log, text
from noojee_agi.actions import result
from noojee_agi.asterisk import variables
from noojee_agi.cli import install

PACKAGE = Path(cli.__file__).parent
NOBODYS = ("Cn", "Co")  # not assigned, or private: nine in ten of all, of which each 256th is tried
ACTING = {"Cc", "Cf", "Zl", "Zp"}
# An escape sequence by C0 and by C1, an override, an isolate, line ends of several kinds.
HOSTILE = "4\x1b]0;x\x07 \x9b2J \u202e01 \u2066a\u2069 \x85 \u2028 \u2029 \x7f"


@functools.cache
def characters() -> str:
    """All that there are, once each."""
    return "".join(
        chr(code)
        for code in range(sys.maxunicode + 1)
        if not 0xD800 <= code <= 0xDFFF
        if code % 256 == 0 or unicodedata.category(chr(code)) not in NOBODYS
    )


def acting(shown: str) -> set[str]:
    """What is left in it that acts, beside the ends of lines."""
    return {character for character in shown if unicodedata.category(character) in ACTING} - {"\n"}


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[Path]:
    """A log file of ours; afterwards pytest's own handlers have the root logger again."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    log.to_file(config.Config(state_directory=str(tmp_path)))
    yield tmp_path / "noojee-agi.log"
    root.handlers, root.level = before, level


def test_no_character_of_unicode_that_acts_is_printed() -> None:
    shown = text.printable(characters())

    assert (acting(shown), len(shown)) == (set(), len(characters()))
    assert text.printable("Müller 東京 🎧") == "Müller 東京 🎧"
    assert acting("".join(map(text.plain, acting(characters())))) == set()


def test_json_says_the_same_without_them() -> None:
    said = json.dumps({"names": [characters(), "\ud800", "Müller 東京 🎧"]}, indent=1, ensure_ascii=False)

    safe = text.escaped(said)

    assert json.loads(safe) == json.loads(said)
    assert acting(safe) == set()
    assert "Müller 東京 🎧" in safe
    assert text.escaped('"\x9b\u202e\U000e0001"') == r'"\u009b\u202e\udb40\udc01"'


def test_the_log_has_one_line_for_each_message_and_nothing_in_it_acts(open_log: Path) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("noojee_agi").error("%s\nforged line", HOSTILE, exc_info=True)

    first, second, *_ = open_log.read_text(encoding="utf-8").split("\n")

    assert first.endswith("?forged line")
    assert second == "Traceback (most recent call last):"
    assert acting(open_log.read_text(encoding="utf-8")) == set()


def test_asterisks_log_and_the_dialplan_get_one_harmless_line() -> None:
    shown = result.Result(503, f"cannot: {HOSTILE}").variables[variables.MESSAGE]

    assert (shown.isprintable(), shown[:8]) == (True, "cannot: ")


@pytest.mark.parametrize("error", [OSError, click.ClickException])
def test_an_error_of_a_command_is_harmless(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error(HOSTILE)

    monkeypatch.setattr(install, "link_programs", fail)

    done = CliRunner().invoke(cli.cli, ["install-agi", "/"])

    assert (acting(done.output), done.exit_code > 0) == (set(), True)
    assert "4?]0;x" in done.output


def test_commands_speak_through_output_alone() -> None:
    """It is what makes text from outside harmless."""
    others = [path for path in PACKAGE.glob("*.py") if path.stem != "output"]
    calls = [
        (path.name, node.lineno)
        for path in others
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "print")
    ]

    assert calls == []
