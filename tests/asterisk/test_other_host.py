"""FastAGI from another host: noojee-agi serve sees no file of the Asterisk that it serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from lab import asterisk, audit, spooled
from lab.asterisk import PrivateAsterisk
from lab.dns import dns_server
from lab.hosts import Host, host, join
from lab.pbx import PARTIES, Pbx, View
from lab.postgresql import PrivatePostgreSQL
from lab.served import Served
from lab.site import PROGRAMS, Site
from lab.waiting import wait_until

from noojee_agi.config import Config
from noojee_agi.database import queries
from noojee_agi.database.store import Store
from noojee_agi.sync import closing, housekeeping

pytestmark = [pytest.mark.asterisk, pytest.mark.postgresql]

NETWORK = "10.203.7"
SILENT = f"{NETWORK}.99"  # nobody has this address
CLOSED_PORT = 1
OURS = "recording-server"  # the name of noojee-agi serve's host
# The version and its system name: a leg's server is that, or else the address of Asterisk's host.
ASTERISK_22 = pytest.param((22, ""), id="asterisk22")
ASTERISK_16 = pytest.param((16, "pbx16"), id="asterisk16-systemname")
one_version = pytest.mark.parametrize("hosts", [ASTERISK_22], indirect=True)  # for what is slow
CLOSE_AT_ONCE = """
import sys
from datetime import timedelta
from noojee_agi.config import Config
from noojee_agi.sync import closing, housekeeping, opening
closing.SETTLED_AFTER = timedelta()
config = Config.load(sys.argv[1])
print(housekeeping.run(opening.open_database(config), config).closed)
"""


@dataclass(frozen=True)
class TwoHosts:
    """Asterisk with its noojee-agi on one host, noojee-agi serve on the other, one database.

    The paths are the same on both; `far` has what Asterisk's host has there. name: what it calls itself.
    """

    pbx: Pbx
    served: Served
    asterisks: Host
    far: Path
    name: str

    def agi(self, arguments: str = ",INV-22,Fred", place: str = "") -> str:
        return f"AGI({place or f'agi://{NETWORK}.2:{self.served.port}'}/start_record,{arguments})"

    def audio(self, view: View) -> Path:
        """The file that the dialplan was told, as Asterisk's host has it."""
        return self.far / "recordings" / Path(view.file).relative_to(self.pbx.site.recordings_directory)

    def status(self, view: View) -> str:
        """The leg's, in the database."""
        return "".join(leg["status"] for leg in self.pbx.site.legs() if leg["id"] == view.leg_id)

    def wait_alone(self, view: View) -> None:
        """Until no other leg is open there: that of an earlier test may have its end still before it."""
        usual = self.pbx.site.recordings_directory  # the others lie in a folder that is not there

        def others() -> list[str]:
            legs = self.pbx.site.legs("--status", "recording")
            known = [leg["id"] for leg in legs if Path(leg["file"]).is_relative_to(usual)]
            return [leg_id for leg_id in known if leg_id != view.leg_id]

        def are_closed() -> bool:
            if others():
                self.sync_there()
            return not others()

        wait_until(are_closed, 60, "the ends of all other legs", others)

    def run_there(self, program: str) -> str:
        """What this Python program prints on Asterisk's host; it is given the configuration's path."""
        words = [*self.asterisks.enter, sys.executable, "-c", program, str(self.pbx.site.conf)]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout

    def sync_there(self) -> None:
        """`noojee-agi sync` on Asterisk's host; it may complain of what an earlier test has left open."""
        words = [*self.asterisks.enter, str(PROGRAMS / "noojee-agi"), "sync"]
        subprocess.run(words, env=self.pbx.site.environment, check=False, timeout=60)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgreSQL]:
    with PrivatePostgreSQL(tmp_path_factory.mktemp("postgresql"), has_socket=True) as running:
        yield running


@pytest.fixture(scope="module", params=[ASTERISK_22, ASTERISK_16])
def hosts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, database: PrivatePostgreSQL
) -> Iterator[TwoHosts]:
    version, system_name = request.param
    installation = asterisk.find(version)
    folder = tmp_path_factory.mktemp("hosts")
    site = Site(folder / "site", database.local_url(database.create_database()), has_loaded_drains=False)
    site.cli("account", "add", "Fred")
    name = system_name or f"{NETWORK}.1"
    extensions = f"[globals]\napiKey = {site.key}\n{PARTIES}\n#include test.conf\n"
    with host(_folders_there(site, folder / "far", name)) as one, host() as other:
        a, b = join(one, other, NETWORK)
        with (
            Served(site, {"server.name": OURS}, address=b.address, enter=b.enter) as served,
            dns_server(b, _records(served.port), folder / "dns.log"),
            PrivateAsterisk(
                a.installed(installation),
                folder / "asterisk",
                extensions,
                {"test.conf": ""},
                site.environment,
                site.agi_directory,
                system_name,
            ) as running,
        ):
            yield TwoHosts(Pbx(running, site), served, a, folder / "far", name)


def _folders_there(site: Site, far: Path, name: str) -> dict[Path, Path]:
    """What Asterisk's host has in place of this site's folders, with a configuration of its own.

    The configuration's folder, not the file: what is mounted over a file is gone when the file is replaced.
    """
    for directory in ("recordings", "state", "etc"):
        (far / directory).mkdir(parents=True)
    site.configure({"server.name": name})
    (far / "etc" / site.conf.name).write_text(site.conf.read_text())
    (far / "resolv.conf").write_text(f"nameserver {NETWORK}.2\n")
    return {
        site.recordings_directory: far / "recordings",
        site.state_directory: far / "state",
        site.conf.parent: far / "etc",
        Path("/etc/resolv.conf"): far / "resolv.conf",
    }


def _records(port: int) -> list[str]:
    """SRV records; where there are two, the first server refuses, or says nothing, or has no address."""
    return [
        f"--host-record=live.test,{NETWORK}.2",
        f"--host-record=silent-host.test,{SILENT}",
        f"--srv-host=_agi._tcp.pbx.test,live.test,{port},10",
        f"--srv-host=_agi._tcp.closed.test,live.test,{CLOSED_PORT},10",
        f"--srv-host=_agi._tcp.closed.test,live.test,{port},20",
        f"--srv-host=_agi._tcp.silent.test,silent-host.test,{port},10",
        f"--srv-host=_agi._tcp.silent.test,live.test,{port},20",
        f"--srv-host=_agi._tcp.nameless.test,nowhere.test,{port},10",
        f"--srv-host=_agi._tcp.nameless.test,live.test,{port},20",
        f"--srv-host=_agi._tcp.dead.test,live.test,{CLOSED_PORT},10",
        "--txt-record=_agi._tcp.text.test,no server",
    ]


def test_a_call_of_another_host_is_recorded_and_ended_there(hosts: TwoHosts) -> None:
    view = hosts.pbx.dial(hosts.agi("500,INV-22,Fred"), seconds=1.5)

    assert (view.status, view.message, view.agi_status) == ("200", "OK", "SUCCESS")
    leg = hosts.pbx.leg(view)
    assert (leg["owner"], leg["tag"], leg["extension"]) == ("Fred", "INV-22", "500")
    assert leg["duration_seconds"] == pytest.approx(audit.wav_seconds(hosts.audio(view)), abs=0.001)
    assert leg["bytes"] == hosts.audio(view).stat().st_size
    assert not Path(view.file).exists()  # noojee-agi serve could not see it
    path = hosts.audio(view).with_suffix(".json")
    wait_until(path.exists, 20, "the side-car, which is written after the commit")
    side_car = json.loads(path.read_text())
    assert (side_car["status"], side_car["server"]) == ("completed", hosts.name)


@one_version
def test_the_servers_drain_process_leaves_a_leg_alone_whose_file_it_cannot_see(
    hosts: TwoHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "SETTLED_AFTER", timedelta())
    store, site = Store(hosts.pbx.site.database_url), hosts.pbx.site
    hosts.pbx.start_call(hosts.agi(), seconds=None)
    view = hosts.pbx.view()
    wait_until(lambda: hosts.status(view) == "recording", 20, "the leg in the database")
    hosts.wait_alone(view)

    known = Config.load(str(site.conf))._replace(server_name=OURS)
    closed = housekeeping.run(store, known).closed

    assert (closed, hosts.status(view)) == (0, "recording")
    with store.reading() as connection:
        assert view.leg_id in [leg.id for leg in queries.open_legs(connection, hosts.name)]
    assert hosts.run_there(CLOSE_AT_ONCE) == "0\n"  # there it is seen to be written
    hosts.pbx.hang_up()
    hosts.pbx.leg(view)


@one_version
def test_a_wrong_key_is_401_and_nothing_is_recorded(hosts: TwoHosts) -> None:
    before = [*hosts.far.rglob("*.wav")]

    view = hosts.pbx.dial(f"Set(apiKey=wrong)\n{hosts.agi()}")

    assert (view.status, view.leg_id) == ("401", "")
    assert [*hosts.far.rglob("*.wav")] == before


@one_version
def test_a_folder_that_asterisks_host_cannot_make_is_503(hosts: TwoHosts) -> None:
    """Of the same path there is a file."""
    directory = hosts.pbx.site.state_directory / "elsewhere"
    directory.mkdir()
    (hosts.far / "state/elsewhere").touch()
    hosts.served.configure({"recordings.directory": str(directory)})
    hosts.served.reload()

    hosts.pbx.start_call(hosts.agi(), seconds=None)
    view = hosts.pbx.view()

    hosts.pbx.hang_up()
    hosts.served.configure()
    hosts.served.reload()
    assert (view.status, view.file, view.agi_status) == ("503", "", "SUCCESS")
    assert "Asterisk did not create" in view.message


@one_version
def test_an_asterisk_that_cannot_tell_of_files_is_503_and_told_why(hosts: TwoHosts) -> None:
    hosts.pbx.asterisk.rx("module unload func_env.so")
    try:
        hosts.pbx.start_call(f"{hosts.agi()}\nWait(777)", seconds=None)
        wait_until(lambda: ', "777")' in hosts.pbx.asterisk.log(), 20, "the dialplan to go on")
    finally:
        hosts.pbx.asterisk.rx("module load func_env.so")
        hosts.pbx.hang_up()

    view = hosts.pbx.view()
    assert (view.status, view.agi_status) == ("503", "SUCCESS")
    assert "func_env.so" in view.message


def outcomes(hosts: TwoHosts, *domains: str) -> list[str]:
    """What the dialplan of one call saw after hagi:// to each of these: status, and AGISTATUS."""
    lines = ["Set(SEEN=)"]
    for domain in domains:
        lines += ["Set(RECORDING_STATUS=)", hosts.agi(place=f"hagi://{domain}.test")]
        lines += ["Set(SEEN=${SEEN} ${RECORDING_STATUS}-${AGISTATUS})"]
    hosts.pbx.start_call("\n".join([*lines, "Set(RECORDING_MESSAGE=${SEEN})"]), seconds=None)
    seen = hosts.pbx.view().message.split()
    hosts.pbx.hang_up()
    return seen


def test_hagi_takes_the_first_server_that_takes_the_connection(hosts: TwoHosts) -> None:
    """One that refuses, or has no address, costs nothing; one that says nothing, two seconds."""
    before = len(hosts.pbx.asterisk.log())

    def timeouts() -> int:
        said = hosts.pbx.asterisk.log()[before:]
        return said.count("timed out after MAX_AGI_CONNECT (2000) milliseconds")

    seen = outcomes(hosts, "pbx", "closed", "nameless", "silent")

    assert seen == ["200-SUCCESS"] * 4
    wait_until(timeouts, 20, "Asterisk's log")
    assert timeouts() == 1


def test_hagi_without_a_server_is_a_failure_that_the_dialplan_sees(hosts: TwoHosts) -> None:
    """None that takes the connection, no SRV record, no such name: at once, and the call goes on."""
    assert outcomes(hosts, "dead", "text", "nosuch") == ["-FAILURE"] * 3


@one_version
def test_an_ending_that_came_before_its_start_is_brought_in_by_the_next_sync_there(hosts: TwoHosts) -> None:
    """The one host spools the start, the other the ending; so short a call may end in the wrong order."""
    drain_process = hosts.served.drain_process
    os.kill(drain_process, signal.SIGSTOP)
    try:
        view = hosts.pbx.dial(hosts.agi())
        wait_until(lambda: not spooled.is_empty(hosts.far / "recordings"), 30, "the ending")
        wait_until(lambda: not hosts.pbx.site.drains(), 20, "the drain there")
    finally:
        os.kill(drain_process, signal.SIGCONT)
    wait_until(lambda: hosts.status(view) == "recording", 20, "the leg in the database")

    hosts.sync_there()

    assert hosts.status(view) == "completed"


@one_version
def test_a_leg_whose_asterisk_died_is_closed_on_its_own_host(hosts: TwoHosts) -> None:
    hosts.pbx.start_call(hosts.agi(), seconds=None)
    view = hosts.pbx.view()
    wait_until(lambda: hosts.status(view) == "recording", 20, "the leg in the database")
    wait_until(lambda: hosts.audio(view).stat().st_size > 44, 20, "some audio")
    hosts.wait_alone(view)

    hosts.pbx.asterisk.kill()

    closed = hosts.run_there(CLOSE_AT_ONCE)
    hosts.pbx.asterisk.start()
    assert closed == "1\n"
    assert hosts.pbx.leg(view, status="interrupted")["bytes"] == hosts.audio(view).stat().st_size
