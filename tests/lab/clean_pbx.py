"""A PBX on a clean Debian, as it is before noojee-agi is installed: a queue with one agent, no recording.

Its Asterisk is Debian's own package with its own configuration, or, where Debian has none, the same files of
another suite unpacked beside it.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lab import clean_root, debian, wheels
from lab.machine import Machine
from lab.phones import Lines
from lab.sip_phone import SipPhone
from lab.waiting import wait_until

TOP = Path(__file__).parents[2]
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "agi", "noojee_agi")
RECORDINGS = "/var/spool/asterisk/noojee"
NUMBER, AGENT, CALLERS = "5550100", "410", ("411", "412")
TONES = {AGENT: 425, "411": 1004, "412": 700}
_WHEELS, _UNPACKED = "/wheels", "/opt/asterisk"

QUEUES = """\
[general]
[sales]
strategy = ringall
member => PJSIP/410
"""
EXTENSIONS = """\
[globals]
[inbound-sales]
exten => 5550100,1,Answer()
 same => n,Queue(sales,,,,60)
"""
_TIMEOUT = 30.0

# What Debian's package does when it is installed, for one that is only unpacked and needs its own loader.
_SET_UP = """\
useradd --system --user-group --home-dir /var/lib/asterisk --shell /usr/sbin/nologin asterisk
cp -r {root}/etc/asterisk /etc/
cp -r {root}/usr/share/asterisk /usr/share/
cp -r {root}/var/lib/asterisk /var/lib/
cp -r {root}/var/spool/asterisk /var/spool/
cp -r {root}/var/log/asterisk /var/log/
mkdir -p /var/cache/asterisk $(dirname {modules})
ln -s {root}{modules} {modules}
chown -R asterisk:asterisk /etc/asterisk /var/*/asterisk
printf '#!/bin/sh\\nexec {program} "$@"\\n' > /usr/sbin/asterisk
chmod 755 /usr/sbin/asterisk
cp {root}/lib/systemd/system/asterisk.service /etc/systemd/system/
systemctl daemon-reload
"""


class System(NamedTuple):
    """A Debian, the packages that it has, and the suite whose Asterisk is unpacked, if it has none itself."""

    suite: str
    packages: tuple[str, ...]
    unpacked: str = ""


FORKY = System("forky", ("asterisk",))
BOOKWORM = System("bookworm", (), "bullseye")
AT_HAND = ("python3-venv",)


class CleanPbx:
    """One machine with its telephones."""

    def __init__(self, system: System, machine: Machine) -> None:
        self.system = system
        self.machine = machine
        self.phones: dict[str, SipPhone] = {}

    def run(self, script: str, folder: str = "/root") -> str:
        return self.machine.run(f"cd {folder}\n{script}")

    def write(self, name: str, text: str) -> None:
        """A new file belongs to root; one that is there keeps its owner and mode."""
        self.machine.path(name).write_text(text)

    def checkout(self, folder: str, version: str) -> None:
        """The project's sources, of that version."""
        place = self.machine.path(folder)
        place.mkdir()
        for name in SOURCES:
            if (TOP / name).is_dir():
                shutil.copytree(TOP / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(TOP / name, place / name)
        setup = (place / "setup.cfg").read_text()
        (place / "setup.cfg").write_text(_with_version(setup, version))

    def legs(self) -> list[dict[str, Any]]:
        legs: list[dict[str, Any]] = json.loads(self.run("noojee-agi recordings --json"))
        return legs

    def side_cars(self) -> list[dict[str, Any]]:
        """What lies beside the recordings: to ask `noojee-agi` each time would be half of all work."""
        return [json.loads(path.read_text()) for path in self.machine.path(RECORDINGS).rglob("[!.]*.json")]

    def wait_for_legs(self, count: int) -> list[dict[str, Any]]:
        """As `noojee-agi recordings` tells them, once all are completed."""
        self.wait_until_completed(count)
        legs = self.legs()
        assert [leg["status"] for leg in legs] == ["completed"] * count
        return legs

    def wait_until_completed(self, count: int) -> None:
        """So many legs, as their side-cars say, which are written last."""

        def statuses() -> list[str]:
            return [side_car["status"] for side_car in self.side_cars()]

        wait_until(lambda: statuses() == ["completed"] * count, _TIMEOUT, f"{count} completed legs", statuses)

    def audio(self, leg: dict[str, Any]) -> Path:
        return self.machine.path(leg["file"])

    def recordings(self) -> list[Path]:
        return list(self.machine.path(RECORDINGS).rglob("*.wav"))

    def call(self, caller: str = CALLERS[0], seconds: float = 1.0, is_recorded: bool = True) -> None:
        """Call the queue, talk with the agent, and hang up."""
        self.begin(caller, seconds, is_recorded)
        self.end(caller)

    def begin(self, caller: str, seconds: float = 0.1, is_recorded: bool = True) -> None:
        """Call the queue, and talk for so long once it is recorded. One call at a time does that."""
        phone, agent = self.phones[caller], self.phones[AGENT]
        calls, recordings = len(agent.calls()), len(self.recordings())
        phone.dial(NUMBER)
        agent.wait_up(calls + 1)
        if is_recorded:
            wait_until(lambda: len(self.recordings()) > recordings, _TIMEOUT, "the recording to begin")
        talked, until = phone.talked() + seconds, time.monotonic() + seconds  # a busy telephone catches up
        wait_until(
            lambda: phone.talked() >= talked and time.monotonic() >= until,
            seconds + _TIMEOUT,
            "the two to have talked",
        )

    def end(self, caller: str) -> None:
        agent = self.phones[AGENT]
        before = len(agent.calls())
        self.phones[caller].hang_up()
        wait_until(lambda: len(agent.calls()) < before, _TIMEOUT, "the agent's call to end")

    def dialplan(self, text: str) -> None:
        self.write("/etc/asterisk/extensions.conf", text)


@contextmanager
def running(system: System) -> Iterator[CleanPbx]:
    """The machine runs, and Asterisk on it, and the telephones are registered. Raises LabUnavailable."""
    root = clean_root.make(system.suite, system.packages, AT_HAND)
    folders = {wheels.for_python(_python(root)): _WHEELS}
    asterisk = debian.unpack("asterisk", system.unpacked) if system.unpacked else None
    if asterisk:
        folders[asterisk] = _UNPACKED
    environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": _WHEELS}
    with ExitStack() as stack:
        machine = stack.enter_context(Machine(root, folders, environment))
        if asterisk:
            _set_up(machine, asterisk)
        stack.enter_context(machine.network())
        lines = Lines((AGENT, *CALLERS), context="inbound-sales")
        pbx = CleanPbx(system, machine)
        pbx.write("/etc/asterisk/pjsip.conf", lines.configuration())
        pbx.write("/etc/asterisk/queues.conf", QUEUES)
        pbx.dialplan(EXTENSIONS)
        machine.run("systemctl restart asterisk\nasterisk -rx 'core waitfullybooted'")
        for number, (extension, tone) in enumerate(TONES.items()):
            phone = SipPhone(extension, lines.port, tone, first_sequence=1000 * number)
            pbx.phones[extension] = stack.enter_context(phone)
        yield pbx


def _python(root: Path) -> str:
    """The version that its `apt-get install python3-venv` brings."""
    (archive,) = root.glob("var/cache/apt/archives/python3_*.deb")
    return ".".join(archive.name.split("_")[1].split(".")[:2])


def _set_up(machine: Machine, unpacked: Path) -> None:
    (modules,) = (path.parent for path in unpacked.glob("usr/lib/**/asterisk/modules"))
    words = [*debian.loader_command(unpacked), str(unpacked / "usr/sbin/asterisk")]
    program = " ".join(words).replace(str(unpacked), _UNPACKED)
    there = str(modules).removeprefix(str(unpacked))
    machine.run(_SET_UP.format(root=_UNPACKED, program=program, modules=there))


def _with_version(setup: str, version: str) -> str:
    text, count = re.subn(r"^version = .*$", f"version = {version}", setup, flags=re.MULTILINE)
    assert count == 1, setup
    return text
