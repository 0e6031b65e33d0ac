"""What every test knows: what to do without a component, how often to try, and where figures are told.

A component that cannot be had is a skip with its reason, and a failure in CI.
"""

import os
from collections.abc import Callable, Generator
from typing import NoReturn

import pytest
from lab.unavailable import LabUnavailable

_figures = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="break things hundreds of times, not a few times")


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long run."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Show a figure (so many tries, so many losses) below the test results."""
    return request.config.stash.setdefault(_figures, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = terminalreporter.config.stash.get(_figures, [])
    if figures:
        terminalreporter.section("figures")
    for figure in figures:
        terminalreporter.line(figure)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    try:
        return (yield)
    except LabUnavailable as reason:
        _cannot_run(reason)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    try:
        return (yield)
    except LabUnavailable as reason:
        _cannot_run(reason)


def _cannot_run(reason: LabUnavailable) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"cannot run here: {reason}", pytrace=False)
    pytest.skip(f"CANNOT RUN HERE: {reason}")
