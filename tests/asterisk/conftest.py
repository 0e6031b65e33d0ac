"""A real Asterisk 22 and 16 with noojee-agi installed; each test dials through its own dialplan."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab import asterisk, office
from lab.asterisk import PrivateAsterisk
from lab.office import Office
from lab.pbx import PARTIES, Pbx
from lab.site import Site

from noojee_agi.recordings import history

QUEUES = """
[support]
strategy = ringall
setinterfacevar = yes
member => Local/410@phones/n
"""


@pytest.fixture(scope="session")
def pbx_of_version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Pbx]]:
    """One of each version, started when it is first asked for: each file asks for both."""
    with ExitStack() as stack:
        yield functools.cache(lambda version: _pbx(version, tmp_path_factory, stack))


def _pbx(version: int, tmp_path_factory: pytest.TempPathFactory, stack: ExitStack) -> Pbx:
    installation = asterisk.find(version)
    folder = tmp_path_factory.mktemp(f"asterisk{version}")
    site = Site(folder / "site")
    for login in ("Fred", "Ann"):
        site.cli("account", "add", login)
    site.cli("attach", "Ann", "410")
    extensions = f"[globals]\napiKey = {site.key}\n{PARTIES}\n#include test.conf\n"
    files = {"queues.conf": QUEUES, "test.conf": ""}
    running = PrivateAsterisk(
        installation, folder / "asterisk", extensions, files, site.environment, site.agi_directory
    )
    return Pbx(stack.enter_context(running), site)


@pytest.fixture(scope="session", params=[22, 16], ids=["asterisk22", "asterisk16"])
def pbx_of_session(request: pytest.FixtureRequest, pbx_of_version: Callable[[int], Pbx]) -> Pbx:
    return pbx_of_version(request.param)


@pytest.fixture
def pbx(pbx_of_session: Pbx) -> Iterator[Pbx]:
    """The session's Asterisk; the test may change noojee_agi.conf, and have disks that are gone after it."""
    yield pbx_of_session
    pbx_of_session.asterisk.wait_quiet(60)
    pbx_of_session.site.configure()
    Path(history.path_in(str(pbx_of_session.site.state_directory))).unlink(missing_ok=True)


@pytest.fixture(scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """An office with its telephones and its server, for the tests of one file that play calls in it."""
    with ExitStack() as stack:
        yield office.office(request.param, tmp_path_factory.mktemp("office"), stack)
