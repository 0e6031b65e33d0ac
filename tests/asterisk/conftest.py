"""A real Asterisk 22 and 16 with noojee-agi installed; each test dials through its own dialplan."""

from collections.abc import Iterator

import pytest
from lab import asterisk
from lab.asterisk import PrivateAsterisk
from lab.pbx import PARTIES, Pbx
from lab.site import Site

QUEUES = """
[support]
strategy = ringall
setinterfacevar = yes
member => Local/410@phones/n
"""


@pytest.fixture(scope="session", params=[22, 16], ids=["asterisk22", "asterisk16"])
def pbx_of_session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pbx]:
    installation = asterisk.find(request.param)
    folder = tmp_path_factory.mktemp(f"asterisk{request.param}")
    site = Site(folder / "site")
    for login in ("Fred", "Ann"):
        site.cli("account", "add", login)
    site.cli("attach", "Ann", "410")
    extensions = f"[globals]\napiKey = {site.key}\n{PARTIES}\n#include test.conf\n"
    files = {"queues.conf": QUEUES, "test.conf": ""}
    with PrivateAsterisk(
        installation, folder / "asterisk", extensions, files, site.environment, site.agi_directory
    ) as running:
        yield Pbx(running, site)


@pytest.fixture
def pbx(pbx_of_session: Pbx) -> Iterator[Pbx]:
    """The session's Asterisk; the test may change noojee_agi.conf."""
    yield pbx_of_session
    pbx_of_session.asterisk.wait_quiet(60)
    pbx_of_session.site.configure()
