"""What every test knows: a component that cannot be had is a skip with its reason, and a failure in CI."""

import os
from collections.abc import Generator
from typing import NoReturn

import pytest
from lab.unavailable import LabUnavailable


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
