"""One call is found among a thousand live channels, in a time that grows with their number at most."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import asterisk, manager
from lab.asterisk import PrivateAsterisk
from lab.pbx import PARTIES, Pbx
from lab.postgresql import free_port
from lab.site import Site
from lab.waiting import wait_until

from noojee_agi.asterisk import other_calls
from noojee_agi.asterisk.live import Switchboard
from noojee_agi.asterisk.manager import Manager
from noojee_agi.config import Config

pytestmark = pytest.mark.asterisk

FEW, MANY = 100, 1000  # channels
TIMES = 7
NOISE = 1.5
ATTEMPTS = 3  # other work on the machine may spoil one
WAITING = """
[waiting]
exten => _X!,1,Answer()
 same => n,Wait(600)
"""


@pytest.fixture(params=[22, 16], ids=["asterisk22", "asterisk16"])
def pbx(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pbx]:
    site, port = Site(tmp_path / "site", has_loaded_drains=False), free_port()
    site.cli("account", "add", "Fred")
    site.configure(manager.options(port))
    extensions = f"[globals]\napiKey = {site.key}\n{PARTIES}{WAITING}\n#include test.conf\n"
    files = {"manager.conf": manager.manager_conf(port), "test.conf": ""}
    with PrivateAsterisk(
        asterisk.find(request.param),
        tmp_path / "asterisk",
        extensions,
        files,
        site.environment,
        site.agi_directory,
    ) as running:
        yield Pbx(running, site)


def test_finding_one_of_a_thousand_channels_grows_no_worse_than_linearly(
    pbx: Pbx, tell: Callable[[str], None]
) -> None:
    for _ in range(ATTEMPTS):
        pbx.hang_up()
        few, many = seconds_to_find(pbx, FEW), seconds_to_find(pbx, MANY)
        if many / few <= NOISE * MANY / FEW:
            break

    pbx.start_call(f"AGI(start_record.py,at/{MANY},among-many,Fred)", seconds=None)
    view = pbx.view()

    tell(f"one call found in {few * 1000:.1f} ms among {FEW} channels, in {many * 1000:.1f} among {MANY}")
    assert many / few <= NOISE * MANY / FEW
    assert view.status == "200"
    assert pbx.leg(view, status="recording")["channel"].startswith(f"Local/{MANY}@waiting-")


def seconds_to_find(pbx: Pbx, channels: int) -> float:
    """With so many channels, the last of which is meant: connect, log in, list, choose; the quickest time."""

    def count() -> int:
        return int(pbx.asterisk.rx("core show channels count").split()[0])

    missing = range(count() // 2 + 1, channels // 2 + 1)
    pbx.asterisk.originate_at_once((f"{2 * number}@waiting/n", f"{number}@waiting") for number in missing)
    wait_until(lambda: count() == channels, 60, f"{channels} channels")
    known = Config.load(str(pbx.site.conf))
    seconds = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        with contextlib.closing(Manager(known)) as asked:
            found = Switchboard(other_calls.channels(asked)).find(str(channels))
        seconds.append(time.perf_counter() - begun)
        assert found.extension == str(channels)
    return min(seconds)
