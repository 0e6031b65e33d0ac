"""The README names all that a sysadmin can type or see, and that of the package every module."""

from __future__ import annotations

import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from lab import pythons

from noojee_agi import cli, errors
from noojee_agi.actions import arguments, result
from noojee_agi.cli import install
from noojee_agi.config import Config
from noojee_agi.session import session

TOP = Path(__file__).resolve().parents[2]
README = (TOP / "README.md").read_text()
PACKAGE = TOP / "noojee_agi"
HOUSE = (PACKAGE / "README.md").read_text()
MODULES = {
    path.relative_to(PACKAGE).with_suffix("")
    for path in PACKAGE.rglob("*.py")
    if not path.name.startswith("_") and "migrations" not in path.parts
}


def _commands(group: click.Group, words: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{words} {name}")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{words} {name}", command


COMMANDS = dict(_commands(cli.cli, "noojee-agi"))


def _described(words: str) -> str:
    """The row of the README's table that has this command."""
    short = words.removeprefix("noojee-agi ")
    rows = [line for line in README.splitlines() if line.startswith("| `noojee-agi ") and f"{short}" in line]
    return "\n".join(rows)


@pytest.mark.parametrize("words", COMMANDS)
def test_each_command_is_there_with_all_its_options(words: str) -> None:
    row = _described(words)
    assert row
    options = {option for each in COMMANDS[words].params for option in each.opts if option.startswith("--")}
    assert {option for option in options if option not in row} == set()


@pytest.mark.parametrize("option", [name for name in Config._fields if name != "path"])
def test_each_option_stands_in_its_section(option: str) -> None:
    section, _, name = option.partition("_")
    named = README.partition("defaults: ")[2].partition(".\n")[0].replace("\n", " ")
    of_section = named.partition(f"[{section}]")[2].partition("[")[0]
    assert name in re.findall(r"\w+", of_section)


def test_the_example_of_a_configuration_has_each_option_with_its_default() -> None:
    path = TOP / "agi/noojee_agi.conf"
    options = re.findall(r"^(?:;?(\w+) =|\[(\w+)\])", path.read_text(), re.MULTILINE)
    section, found = "", []
    for name, header in options:
        section = header or section
        found += [f"{section}_{name}"] if name else []
    assert found == [name for name in Config._fields if name != "path"]
    assert Config.load_file(str(path)) == Config(path=str(path), server_name="")


@pytest.mark.parametrize("program", session.ACTIONS)
def test_each_program_is_there_with_its_arguments(program: str) -> None:
    names = session.ACTIONS[program][1]
    needed = names[:1] if program == "attach_user" else ()
    optional = "".join(f"[,{name}" for name in names[len(needed) :])
    written = (
        f"AGI({program}.py{''.join(f',{name}' for name in needed)}{optional}{']' * optional.count('[')})"
    )
    assert written in README
    assert f"{program}.py" in install.AGI_PROGRAMS
    assert (TOP / f"agi/{program}.py").exists()


def statuses() -> set[int]:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    return {200, *(each.status for each in classes if issubclass(each, errors.NoojeeError))}


@pytest.mark.parametrize("status", sorted(statuses()))
def test_each_status_is_explained(status: int) -> None:
    assert re.search(rf"^\| {status} \|", README, re.MULTILINE)


@pytest.mark.parametrize("variable", result.Result(200).variables)
def test_each_variable_is_explained(variable: str) -> None:
    assert f"`{variable}`" in README.partition("## Reference")[2]


@pytest.mark.parametrize("name", arguments.LIMITS)
def test_each_argument_is_explained_with_its_limit(name: str) -> None:
    assert f"**{name}** ({arguments.LIMITS[name]}" in README


def _named(row: str) -> set[Path]:
    """The modules that a row of the module map names."""
    _, first, second, _ = row.split("|")
    name = first.split("`")[1]
    if not name.endswith("/"):
        return {Path(name)}
    return {Path(name, module) for module in re.findall(r"`(\w+)`", second)}


def test_the_module_map_is_what_there_is() -> None:
    module_map = HOUSE.partition("## Module map")[2].partition("\n## ")[0]
    rows = [line for line in module_map.splitlines() if line.startswith("| `")]

    assert set().union(*map(_named, rows)) == MODULES


@pytest.mark.parametrize(
    "example", sorted((TOP / "dialplan-examples").glob("*.conf")), ids=lambda path: str(path.name)
)
def test_each_example_is_in_the_list_of_examples(example: Path) -> None:
    assert f"`{example.name}`" in (TOP / "dialplan-examples/README.md").read_text()


def test_the_oldest_python_that_is_promised_is_tried_and_pip_holds_it() -> None:
    """`integration/test_pythons.py` runs the unit tests on pythons.OLDEST and NEWEST."""
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")

    assert setup["options"]["python_requires"] == f">={pythons.OLDEST}"
    assert setup["mypy"]["python_version"] == pythons.OLDEST
    assert f"Python {pythons.OLDEST} or newer" in README
    assert tuple(map(int, pythons.NEWEST.split("."))) >= sys.version_info[:2]


def test_it_is_read_in_an_evening() -> None:
    assert len(README.splitlines()) <= 250
