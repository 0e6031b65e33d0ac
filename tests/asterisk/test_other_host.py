"""FastAGI from another host: noojee-agi serve sees no file of the Asterisk that it serves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import asterisk
from lab.asterisk import PrivateAsterisk
from lab.dns import dns_server
from lab.hosts import host, join
from lab.pbx import PARTIES, Pbx, View
from lab.postgresql import PrivatePostgreSQL
from lab.served import Served
from lab.site import Site

pytestmark = [pytest.mark.asterisk, pytest.mark.postgresql]

NETWORK = "10.203.7"
SILENT = f"{NETWORK}.99"  # nobody has this address
CLOSED_PORT = 1
OURS = "recording-server"  # the name of noojee-agi serve's host


@dataclass(frozen=True)
class TwoHosts:
    """Asterisk with its noojee-agi on one host, noojee-agi serve on the other, one database.

    The paths are the same on both; `recordings` is where this test finds those of Asterisk's host.
    """

    pbx: Pbx
    served: Served
    recordings: Path
    asterisks_name: str
    database_url: str

    def agi(self, arguments: str = ",INV-22,Fred", place: str = "") -> str:
        return f"AGI({place or f'agi://{NETWORK}.2:{self.served.port}'}/start_record,{arguments})"

    def audio(self, view: View) -> Path:
        """The file that the dialplan was told, as Asterisk's host has it."""
        return self.recordings / Path(view.file).relative_to(self.pbx.site.recordings_directory)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgreSQL]:
    with PrivatePostgreSQL(tmp_path_factory.mktemp("postgresql"), has_socket=True) as running:
        yield running


@pytest.fixture(scope="module", params=[(22, ""), (16, "pbx16")], ids=["asterisk22", "asterisk16-systemname"])
def hosts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, database: PrivatePostgreSQL
) -> Iterator[TwoHosts]:
    version, system_name = request.param
    installation = asterisk.find(version)
    folder = tmp_path_factory.mktemp("hosts")
    url = database.local_url(database.create_database())
    site = Site(folder / "site", url)
    site.cli("account", "add", "Fred")
    name = system_name or f"{NETWORK}.1"
    site.configure({"server.name": name})
    far = folder / "far"
    (far / "recordings").mkdir(parents=True)
    (far / "state").mkdir()
    (far / "noojee_agi.conf").write_text(site.conf.read_text())
    (far / "resolv.conf").write_text(f"nameserver {NETWORK}.2\noptions timeout:1 attempts:1\n")
    there = {
        site.recordings_directory: far / "recordings",
        site.state_directory: far / "state",
        site.conf: far / "noojee_agi.conf",
        Path("/etc/resolv.conf"): far / "resolv.conf",
    }
    extensions = f"[globals]\napiKey = {site.key}\n{PARTIES}\n#include test.conf\n"
    with host(there) as one, host() as other:
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
            yield TwoHosts(Pbx(running, site), served, far / "recordings", name, url)


def _records(port: int) -> list[str]:
    """SRV records: closed.test has a first server that refuses, silent.test one that says nothing."""
    return [
        f"--host-record=live.test,{NETWORK}.2",
        f"--host-record=silent-host.test,{SILENT}",
        f"--srv-host=_agi._tcp.pbx.test,live.test,{port},10",
        f"--srv-host=_agi._tcp.closed.test,live.test,{CLOSED_PORT},10",
        f"--srv-host=_agi._tcp.closed.test,live.test,{port},20",
        f"--srv-host=_agi._tcp.silent.test,silent-host.test,{port},10",
        f"--srv-host=_agi._tcp.silent.test,live.test,{port},20",
        f"--srv-host=_agi._tcp.dead.test,live.test,{CLOSED_PORT},10",
        "--txt-record=_agi._tcp.text.test,no server",
    ]


def test_a_call_of_another_host_is_recorded_there(hosts: TwoHosts) -> None:
    view = hosts.pbx.dial(hosts.agi("500,INV-22,Fred"), seconds=2)

    assert (view.status, view.message, view.agi_status) == ("200", "OK", "SUCCESS")
    leg = hosts.pbx.leg(view)
    assert (leg["owner"], leg["tag"], leg["extension"]) == ("Fred", "INV-22", "500")
    assert leg["duration_seconds"] == pytest.approx(2, abs=0.5)
    assert leg["bytes"] == hosts.audio(view).stat().st_size
    assert not Path(view.file).exists()  # noojee-agi serve could not see it
