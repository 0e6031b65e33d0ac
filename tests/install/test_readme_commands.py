"""README's own commands, from nothing to the uninstallation, on clean Debians: each goes on from the last."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab import clean_pbx, readme, tones
from lab.clean_pbx import AGENT, BOOKWORM, CALLERS, FORKY, RECORDINGS, TONES, CleanPbx
from lab.waiting import wait_until

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(1500)]  # a first run makes the Debians

STATE, KEY_FILE = "/var/lib/noojee-agi", "/etc/asterisk/noojee_key.conf"
LOG = f"{STATE}/noojee-agi.log"
OLD, NEW = "0.1.0", "0.1.1"


# What is the shell's or systemd's, whatever their version, is tried on the first of the two.
ON_BOOKWORM = pytest.mark.parametrize("pbx", [BOOKWORM], ids=["bookworm"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=[BOOKWORM, FORKY], ids=lambda system: system.suite)
def pbx(request: pytest.FixtureRequest) -> Iterator[CleanPbx]:
    with clean_pbx.running(request.param) as running:
        yield running


def only(texts: list[str], beginning: str) -> str:
    (text,) = {text for text in texts if text.startswith(beginning)}
    return text


def install(pbx: CleanPbx) -> None:
    """The section's commands, and before each reload what its sentences have asked to be written."""
    include, said = only(readme.commands("Install"), "#tryinclude"), ""
    pbx.dialplan(clean_pbx.EXTENSIONS.replace("[globals]\n", f"[globals]\n{include}\n"))
    for block in readme.blocks("Install"):
        if block.startswith("[globals]"):
            (key,) = re.findall(r"^[0-9a-f]{40}$", said, re.MULTILINE)
            pbx.write(KEY_FILE, block.replace("the-key-that-was-printed", key))
        else:
            said += pbx.run(block, "/srv/noojee-agi")


def record_the_queue(pbx: CleanPbx) -> None:
    include = only(readme.commands("Install"), "#tryinclude")
    option = only(readme.commands("Record calls"), "setinterfacevar")
    pbx.write("/etc/asterisk/queues.conf", f"{clean_pbx.QUEUES}{option}\n")
    for block in readme.blocks("Record calls"):
        if block.startswith("[inbound-sales]"):
            pbx.dialplan(f"[globals]\n{include}\n{block}")
        else:
            pbx.run(block)


def test_from_nothing_to_a_queue_call_with_owner_and_tag(pbx: CleanPbx, tell: Callable[[str], None]) -> None:
    pbx.checkout("/srv/noojee-agi", OLD)
    install(pbx)
    record_the_queue(pbx)

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
    assert pbx.run(f"stat -c '%U %a' {STATE} {RECORDINGS} {KEY_FILE}").split("\n")[:3] == [
        *("asterisk 750", "asterisk 750"),
        "asterisk 640",
    ]


def test_the_log_is_rotated_and_the_server_writes_the_new_one(pbx: CleanPbx) -> None:
    pbx.run(only(readme.commands("The server"), "cp "))

    pbx.run("logrotate --force /etc/logrotate.d/noojee-agi")
    before = len(pbx.recordings())
    pbx.call()
    pbx.wait_until_completed(before + 1)

    log = pbx.machine.path(LOG)
    assert "start_record 200" in log.read_text()
    assert "SIGHUP" in log.read_text() + log.with_suffix(".log.1").read_text()
    assert pbx.run(f"stat -c '%U %G %a' {LOG}").split() == ["asterisk", "asterisk", "640"]


@ON_BOOKWORM
def test_an_upgrade_that_fails_changes_nothing(pbx: CleanPbx) -> None:
    """Such as one that does not reach what it needs from PyPI."""
    before = pbx.run("ls -ld /opt/*")

    said = pbx.run("! PIP_FIND_LINKS=/nowhere agi/install", "/srv/noojee-agi")

    assert "agi/install: failed, and nothing has changed" in said
    assert pbx.run("ls -ld /opt/*") == before


def call_until(pbx: CleanPbx, is_over: threading.Event) -> int:
    """Calls one after the other, short ones once the new version may be taken into use; how many.

    Each was answered, and ended.
    """
    placed = 0
    while not is_over.is_set():
        versions = [*pbx.machine.path("/opt").glob("noojee-agi-*/bin/noojee-agi")]
        pbx.call(CALLERS[0], seconds=0.5 if len(versions) > 1 else 3.0)
        placed += 1
    return placed


def test_no_call_is_lost_while_it_is_upgraded(pbx: CleanPbx, tell: Callable[[str], None]) -> None:
    (upgrade,) = readme.blocks("Upgrade")
    pbx.checkout("/srv/new", NEW)
    before = {leg["id"] for leg in pbx.side_cars()}

    pbx.begin(CALLERS[1])
    is_over = threading.Event()
    with ThreadPoolExecutor() as others:
        calls = others.submit(call_until, pbx, is_over)
        try:
            pbx.run(upgrade, "/srv/new")
        finally:
            is_over.set()
    pbx.end(CALLERS[1])
    assert NEW in pbx.run("noojee-agi --version")

    legs = [leg for leg in pbx.wait_for_legs(len(before) + calls.result() + 1) if leg["id"] not in before]
    assert {(leg["owner"], leg["tag"]) for leg in legs} == {("Ann", "INV-22")}
    assert all(tones.duration(pbx.audio(leg)) > 0.2 for leg in legs)  # of 0.5, on a busy machine
    tell(f"{pbx.system.suite}: upgraded during {len(legs)} calls, one of them throughout: none lost")


def assert_runs(pbx: CleanPbx, folder: str) -> None:
    """Calls, the server and the command line are of the version in that folder."""
    main_pid = "$(systemctl show --property=MainPID --value noojee-agi)"
    links = pbx.run("readlink -f /usr/share/asterisk/agi-bin/*_record.py").split()

    assert {os.path.dirname(link) for link in links} == {f"{folder}/bin"}
    wait_until(
        lambda: pbx.run(f"tr '\\0' ' ' < /proc/{main_pid}/cmdline").startswith(f"{folder}/bin/python"),
        what="the server to be that version's",
    )
    assert pbx.run("readlink -f $(command -v noojee-agi)").strip() == f"{folder}/bin/noojee-agi"


@ON_BOOKWORM
def test_the_new_version_is_at_work_and_the_way_back_is_a_link(pbx: CleanPbx) -> None:
    words = only(readme.commands("Upgrade"), "ln ")
    old, new = sorted(pbx.run(only(readme.commands("Upgrade"), "ls ")).split())

    assert_runs(pbx, new)
    for folder in (old, new):
        back = words.replace("/opt/noojee-agi-OLD", folder)
        pbx.run(f"{back}; systemctl daemon-reload; systemctl restart noojee-agi")
        assert_runs(pbx, folder)
        before = len(pbx.recordings())
        pbx.call()
        pbx.wait_until_completed(before + 1)


@ON_BOOKWORM
def test_without_systemd_the_server_is_started_and_stopped_by_other_words(pbx: CleanPbx) -> None:
    commands = readme.blocks("Without systemd", readme.AGI)
    start, stop = commands[0].splitlines()
    pbx.run("systemctl stop noojee-agi")

    pbx.run(f"{start}\nuntil noojee-agi check; do :; done")
    served = pbx.run("ps -o user= -p $(cat /run/noojee-agi.pid)")
    before = len(pbx.recordings())
    pbx.call()
    pbx.wait_until_completed(before + 1)
    pbx.run(stop)

    assert served.strip() == "asterisk"
    assert pbx.run("ps -e -o args | grep '[n]oojee-agi serve' || true") == ""
    pbx.run("systemctl start noojee-agi")


def test_it_is_uninstalled_and_what_was_recorded_stays(pbx: CleanPbx) -> None:
    (uninstall,) = readme.blocks("Uninstall")
    legs = pbx.legs()
    pbx.dialplan(clean_pbx.EXTENSIONS)
    pbx.run('asterisk -rx "dialplan reload"')
    assert legs[0]["id"][:8] not in pbx.run(only(readme.commands("Uninstall"), "noojee-agi recordings"))

    pbx.run(uninstall)
    pbx.call(is_recorded=False)

    assert all(pbx.audio(leg).is_file() for leg in legs)
    assert pbx.machine.path(f"{STATE}/noojee.db").is_file()
    assert pbx.machine.path(KEY_FILE).is_file()
    assert pbx.run("ps -e -o args | grep '[n]oojee' || true") == ""
    assert pbx.run("ls /opt") in ("", "asterisk\n")
    assert pbx.run("find /etc /usr/local /usr/share/asterisk/agi-bin -lname '*noojee*'") == ""
    assert len(pbx.recordings()) == len(legs)
