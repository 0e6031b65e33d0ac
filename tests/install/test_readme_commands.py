"""README's own commands, from nothing to the uninstallation, on clean Debians: each goes on from the last."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator

import pytest
from lab import clean_pbx, readme, tones
from lab.clean_pbx import AGENT, BOOKWORM, CALLERS, FORKY, RECORDINGS, TONES, CleanPbx

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(1500)]  # a first run makes the Debians

STATE, CONFIGURATION = "/var/lib/noojee-agi", "/etc/asterisk/noojee_key.conf"
LOG = f"{STATE}/noojee-agi.log"
OLD, NEW = "0.1.0", "0.1.1"


@pytest.fixture(scope="module", params=[FORKY, BOOKWORM], ids=lambda system: system.suite)
def pbx(request: pytest.FixtureRequest) -> Iterator[CleanPbx]:
    with clean_pbx.running(request.param) as running:
        yield running


def only(texts: list[str], beginning: str) -> str:
    (text,) = {text for text in texts if text.startswith(beginning)}
    return text


def test_from_nothing_to_a_queue_call_with_owner_and_tag(pbx: CleanPbx, tell: Callable[[str], None]) -> None:
    install, make_key_file, key_file = readme.blocks("Install")
    say_who, dialplan, reload = readme.blocks("Record calls")
    pbx.checkout("/root/noojee-agi", OLD)

    said = pbx.run(install, "/root/noojee-agi")
    pbx.run(make_key_file)
    (key,) = re.findall(r"^[0-9a-f]{40}$", said, re.MULTILINE)
    pbx.write(CONFIGURATION, key_file.replace("the-key-that-was-printed", key))
    pbx.run(say_who)
    include = only(readme.commands("Install"), "#tryinclude")
    pbx.dialplan(f"[globals]\n{include}\n{dialplan}")
    option = only(readme.commands("Record calls"), "setinterfacevar")
    pbx.write("/etc/asterisk/queues.conf", f"{clean_pbx.QUEUES}{option}\n")
    pbx.run(reload)
    pbx.call(seconds=2.5)

    [leg] = pbx.wait_for_legs(1)
    assert (leg["owner"], leg["tag"], leg["external_reference"]) == ("Ann", "INV-22", "INV-22")
    assert leg["file"].startswith(f"{RECORDINGS}/")
    shares = [tones.share(pbx.audio(leg), TONES[phone]) for phone in (CALLERS[0], AGENT)]
    assert min(shares) > 0.3
    versions = pbx.run("noojee-agi --version; python3 --version; asterisk -V").replace("\n", ", ")
    tell(f"{pbx.system.suite}: {versions}shares of the two tones {shares[0]:.2f} and {shares[1]:.2f}")


def test_everything_is_asterisks_and_nobody_elses(pbx: CleanPbx) -> None:
    files = pbx.run(f"find {STATE} {RECORDINGS} -printf '%u\\n' | sort -u")
    processes = pbx.run("ps -o user= -C noojee-agi | sort -u")
    assert (files, processes) == ("asterisk\n", "asterisk\n")
    assert pbx.run(f"stat -c '%U %a' {STATE} {RECORDINGS} {CONFIGURATION}").split("\n")[:3] == [
        *("asterisk 750", "asterisk 750"),
        "asterisk 640",
    ]


def test_the_log_is_rotated_and_the_server_writes_the_new_one(pbx: CleanPbx) -> None:
    pbx.run(only(readme.commands("The server"), "cp "))

    pbx.run("logrotate --force /etc/logrotate.d/noojee-agi")
    before = len(pbx.legs())
    pbx.call()
    pbx.wait_for_legs(before + 1)

    log = pbx.machine.path(LOG)
    assert "start_record 200" in log.read_text()
    assert "SIGHUP" in log.read_text() + log.with_suffix(".log.1").read_text()
    assert pbx.run(f"stat -c '%U %G %a' {LOG}").split() == ["asterisk", "asterisk", "640"]


class Calls:
    """Calls one after the other, while the block runs; `placed` of them were answered and ended."""

    def __init__(self, pbx: CleanPbx) -> None:
        self.placed = 0
        self.failure: Exception | None = None
        self._pbx = pbx
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Calls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_over.is_set():
                self._pbx.call(CALLERS[0], seconds=0.5)
                self.placed += 1
        except (AssertionError, OSError) as exc:
            self.failure = exc


def test_no_call_is_lost_while_it_is_upgraded(pbx: CleanPbx, tell: Callable[[str], None]) -> None:
    (upgrade,) = readme.blocks("Upgrade")
    pbx.checkout("/root/new", NEW)
    before = {leg["id"] for leg in pbx.legs()}

    pbx.begin(CALLERS[1])
    with Calls(pbx) as calls:
        pbx.run(upgrade, "/root/new")
    pbx.end(CALLERS[1])

    assert calls.failure is None
    legs = [leg for leg in pbx.wait_for_legs(len(before) + calls.placed + 1) if leg["id"] not in before]
    assert {(leg["owner"], leg["tag"]) for leg in legs} == {("Ann", "INV-22")}
    assert all(tones.duration(pbx.audio(leg)) > 0.4 for leg in legs)
    tell(f"{pbx.system.suite}: upgraded during {len(legs)} calls, one of them throughout: none lost")


def test_calls_and_the_server_are_of_the_new_version(pbx: CleanPbx) -> None:
    folders = pbx.run("ls -d /opt/noojee-agi-*").split()
    assert len(folders) == 2
    new = pbx.run("readlink -f /opt/noojee-agi").strip()
    server = pbx.run("systemctl show --property=MainPID --value noojee-agi").strip()
    links = pbx.run("readlink -f /usr/share/asterisk/agi-bin/*_record.py").split()

    assert new == max(folders)
    assert NEW in pbx.run("noojee-agi --version")
    assert pbx.run(f"tr '\\0' ' ' < /proc/{server}/cmdline").startswith(f"{new}/bin/python")
    assert {os.path.dirname(link) for link in links} == {f"{new}/bin"}


def test_without_systemd_the_server_is_started_and_stopped_by_other_words(pbx: CleanPbx) -> None:
    commands = readme.blocks("Without systemd", readme.AGI)
    start, stop = commands[0].splitlines()
    pbx.run("systemctl stop noojee-agi")

    pbx.run(f"{start}\nuntil noojee-agi check; do :; done")
    served = pbx.run("ps -o user= -p $(cat /run/noojee-agi.pid)")
    before = len(pbx.legs())
    pbx.call()
    pbx.wait_for_legs(before + 1)
    pbx.run(stop)

    assert served.strip() == "asterisk"
    assert pbx.run("ps -e -o args | grep '[n]oojee-agi serve' || true") == ""
    pbx.run("systemctl start noojee-agi")


def test_it_is_uninstalled_and_what_was_recorded_stays(pbx: CleanPbx) -> None:
    (uninstall,) = readme.blocks("Uninstall")
    legs = pbx.legs()
    pbx.dialplan(clean_pbx.EXTENSIONS)
    pbx.run('asterisk -rx "dialplan reload"')

    pbx.run(uninstall)
    pbx.call(is_recorded=False)

    assert all(pbx.audio(leg).is_file() for leg in legs)
    assert pbx.machine.path(f"{STATE}/noojee.db").is_file()
    assert pbx.machine.path(CONFIGURATION).is_file()
    assert pbx.run("ps -e -o args | grep '[n]oojee' || true") == ""
    assert pbx.run("ls /opt") in ("", "asterisk\n")
    assert pbx.run("find /etc /usr/local /usr/share/asterisk/agi-bin -lname '*noojee*'") == ""
    assert len(pbx.recordings()) == len(legs)
