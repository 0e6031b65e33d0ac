"""The architecture: who may import whom, and what a call never waits for."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

import noojee_agi

PACKAGE = Path(noojee_agi.__file__).parent
# The house from top to bottom: a folder or file imports only those below it, itself apart.
ORDER = (
    "cli",
    "server",
    "web",
    "session",
    "sync",
    "log",
    "actions",
    "asterisk",
    "database",
    "config",
    "recordings",
    "paths",
    "certificate",
    "ini",
    "text",
    "errors",
)
# These import the standard library and each other only.
PLAIN = ("actions", "asterisk", "config", "recordings", "paths", "ini", "text", "errors")
# Each foreign package, and the modules (or the package) that may import it.
FOREIGN = {
    "asterisk": "noojee_agi.asterisk.pyst2",
    "sqlalchemy": "noojee_agi.database",
    "alembic": "noojee_agi.database",
    "psycopg2": "noojee_agi.database",
    "click": "noojee_agi.cli",
    "greenlet": "noojee_agi.server",
    "uvicorn": "noojee_agi.web",
    "h11": "noojee_agi.web",
    "starlette": "noojee_agi.web",
    "prometheus_client": "noojee_agi.web",
}
SLOW = (
    *("sqlalchemy", "alembic", "click", "psycopg2", "dataclasses", "inspect", "logging", "subprocess"),
    *("pathlib", "platform", "uuid", "configparser"),
)


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Each module by its name; no process reads them all only to find out which tests there are."""
    return {
        _name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))
    }


@functools.cache
def imports() -> dict[str, set[str]]:
    """What each module imports."""
    return {name: set(_imports(tree)) for name, tree in trees().items()}


def _imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports by their full names; `from a import b` is a.b when that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "our modules are imported by their full names"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in trees() else str(node.module)


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _floor(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _is_plain(module: str) -> bool:
    return _floor(module) in PLAIN


def test_the_order_names_every_folder_and_file() -> None:
    assert {_floor(module) for module in trees()} - {""} == set(ORDER)
    assert "noojee_agi.recordings.spool" in imports()["noojee_agi.actions.new_leg"]


def test_imports_go_downwards() -> None:
    """Those for types, too."""
    upwards = [
        (module, name)
        for module, names in imports().items()
        for name in names & set(trees())
        if module != "noojee_agi" and ORDER.index(_floor(name)) < ORDER.index(_floor(module))
    ]

    assert upwards == []


def test_what_a_call_needs_imports_the_standard_library_pyst2_and_itself_only() -> None:
    outside = [
        (module, name)
        for module in filter(_is_plain, imports())
        for name in imports()[module] - {"asterisk.agi"}
        if not _is_plain(name) and name.partition(".")[0] not in sys.stdlib_module_names
    ]

    assert outside == []


@pytest.mark.parametrize("package", FOREIGN)
def test_a_foreign_package_is_imported_in_its_own_place_only(package: str) -> None:
    importers = {
        module for module, names in imports().items() if any(_is_within(name, package) for name in names)
    }

    assert {module for module in importers if not _is_within(module, FOREIGN[package])} == set()


def test_no_other_foreign_package_is_imported() -> None:
    tops = {name.partition(".")[0] for names in imports().values() for name in names}

    assert tops - set(sys.stdlib_module_names) - set(FOREIGN) == {"noojee_agi"}


def test_no_import_goes_round_in_a_circle() -> None:
    left = {name: {used for used in names if used in trees()} - {name} for name, names in imports().items()}
    while free := {name for name, names in left.items() if not names & set(left)}:
        left = {name: names for name, names in left.items() if name not in free}

    assert left == {}


def test_there_is_one_broad_except_at_the_boundary() -> None:
    caught = [
        (module, ast.unparse(node.type) if node.type else "everything")
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
    ]
    broad = [
        (module, types) for module, types in caught if re.search(r"\b(Base)?Exception\b|everything", types)
    ]

    assert broad == [("noojee_agi.session.session", "Exception")]


def test_no_suppress_is_as_broad_as_that() -> None:
    calls = {
        ast.unparse(node)
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress")
    }

    assert {call for call in calls if "(Exception" in call or "BaseException" in call} == set()


PROGRAMS = sorted((Path(__file__).resolve().parents[2] / "agi").glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: str(program.name))
def test_before_it_hands_over_a_program_imports_next_to_nothing(program: Path) -> None:
    """A bare interpreter has os already; nothing else is more than a C module or a few lines of ours."""
    code = "\n".join(
        [
            "import os, sys",
            "before = set(sys.modules)",
            *(line for line in program.read_text().splitlines() if not line.startswith("handoff.run")),
            "print(*sorted(set(sys.modules) - before))",
        ]
    )

    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )

    ours = [
        "noojee_agi",
        "noojee_agi.ini",
        "noojee_agi.paths",
        "noojee_agi.session",
        "noojee_agi.session.handoff",
    ]
    assert (loaded.stdout.split(), loaded.stderr) == (["_socket", *ours], "")


@pytest.mark.parametrize("module", ["noojee_agi.session.plain", "noojee_agi.session.session"])
def test_a_call_does_not_wait_for_the_import_of_what_it_does_not_need(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({SLOW!r}) & set(sys.modules)))"
    path = os.pathsep.join([str(PACKAGE.parent), sysconfig.get_path("purelib")])

    # -S: what a virtual environment's .pth files import is not ours.
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    assert (loaded.stdout.split(), loaded.stderr) == ([], "")


@pytest.mark.parametrize("module", ["sync.__main__", "cli"])
def test_a_drain_and_a_command_load_alembic_only_when_they_make_tables(module: str) -> None:
    look = f"import sys, noojee_agi.{module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout

    assert "sqlalchemy" in loaded.split()
    assert {"alembic", "noojee_agi.server.server"} & set(loaded.split()) == set()
