"""How long each way into a recording holds the call, side by side on one private Asterisk.

python -m bench.hold (in tests/) prints the table. The ways take turns, and nothing of the last call runs any
more when the next one comes, so what disturbs the machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import asterisk
from lab.asterisk import PrivateAsterisk
from lab.site import Site
from lab.waiting import wait_until

ROUNDS = 15
WARM_UP_ROUNDS = 2
CALL_SECONDS = 30.0
SCRIPTS = ("straightforward.py", "nothing.py")


@dataclass(frozen=True)
class Way:
    """One application that the dialplan runs between two looks at the clock."""

    name: str
    application: str
    records: bool = True


PLAIN = Way("plain", "AGI(start_record.py,410,INV-22,Fred)")
STRAIGHTFORWARD = Way("straightforward", "AGI(straightforward.py,410,INV-22,Fred)")
NOTHING = Way("nothing", "AGI(nothing.py)", records=False)
DIALPLAN = Way("dialplan", "MixMonitor(dialplan-${UNIQUEID}.wav)")
WAYS = (PLAIN, STRAIGHTFORWARD, NOTHING, DIALPLAN)


@dataclass(frozen=True)
class Hold:
    """One call: how long it was held, and how long after the start of that MixMonitor began, if it did."""

    milliseconds: float
    recording_after: float | None


Holds = Mapping[str, Sequence[Hold]]

# The line answers late: by then the command that started the call has ended and left the processor.
EXTENSIONS = """\
[globals]
apiKey = {key}
[line]
exten => 410,1,Wait(0.3)
 same => n,Answer()
 same => n,Milliwatt()
[hold]
"""
EXTENSION = """\
exten => {way.name},1,Set(before=${{STRFTIME(,,%s.%6q)}})
 same => n,{way.application}
 same => n,Set(after=${{STRFTIME(,,%s.%6q)}})
 same => n,NoOp(HELD ${{before}} ${{after}} status=${{RECORDING_STATUS}})
 same => n,Hangup()
"""
LOGGER_CONF = """\
[general]
dateformat = %s.%6q
[logfiles]
full => notice,warning,error,verbose(3)
console => warning,error
"""
HELD = re.compile(r'NoOp\("[^"]*", "HELD (\S+) (\S+) status=(\d*)"\)')
BEGIN = re.compile(r"^\[([\d.]+)\].*Begin MixMonitor Recording", re.MULTILINE)
END = "End MixMonitor Recording"


def measure(folder: Path, rounds: int = ROUNDS) -> Holds:
    """Every way's holds, after warm-up rounds that do not count. Raises LabUnavailable."""
    installation = asterisk.find(22)
    site = Site(folder / "site")
    site.cli("account", "add", "Fred")
    database = f"sqlite:///{folder}/straightforward.db"
    _install_scripts(site.agi_directory)
    _create_tables(site, database)
    extensions = EXTENSIONS.format(key=site.key) + "".join(EXTENSION.format(way=way) for way in WAYS)
    environment = {**site.environment, "STRAIGHTFORWARD_DATABASE": database}
    with PrivateAsterisk(
        installation,
        folder / "asterisk",
        extensions,
        {"logger.conf": LOGGER_CONF},
        environment,
        site.agi_directory,
    ) as private:
        holds: dict[str, list[Hold]] = {way.name: [] for way in WAYS}
        for _ in range(WARM_UP_ROUNDS + rounds):
            for way in WAYS:
                holds[way.name].append(_call(private, site, way))
    return {name: of_way[WARM_UP_ROUNDS:] for name, of_way in holds.items()}


def median(holds: Sequence[Hold]) -> float:
    """In milliseconds."""
    return statistics.median(hold.milliseconds for hold in holds)


def until_recording(holds: Sequence[Hold]) -> float:
    """Median milliseconds from the AGI's beginning until MixMonitor's."""
    return statistics.median(hold.recording_after for hold in holds if hold.recording_after is not None)


def table(holds: Holds) -> str:
    """The result for people."""
    lines = [
        f"{'':<16}{'median':>9}{'90 %':>9}{'max':>9}{'straight-':>11}{'nothing':>9}  {'MixMonitor':>10}",
        f"{'way in':<16}{'ms':>9}{'ms':>9}{'ms':>9}{'forward = 1':>11}{'= 1':>9}  {'after ms':>10}",
    ]
    for name, of_way in holds.items():
        milliseconds = sorted(hold.milliseconds for hold in of_way)
        records = any(hold.recording_after is not None for hold in of_way)
        lines.append(
            f"{name:<16}"
            f"{median(of_way):>9.1f}"
            f"{statistics.quantiles(milliseconds, n=10, method='inclusive')[-1]:>9.1f}"
            f"{milliseconds[-1]:>9.1f}"
            f"{median(of_way) / median(holds[STRAIGHTFORWARD.name]):>11.3f}"
            f"{median(of_way) / median(holds[NOTHING.name]):>9.2f}"
            f"  {format(until_recording(of_way), '.1f') if records else '-':>10}"
        )
    return "\n".join(lines)


def _install_scripts(agi_directory: Path) -> None:
    """As pip does it: our own interpreter in the first line."""
    for name in SCRIPTS:
        text = (Path(__file__).parent / name).read_text()
        script = agi_directory / name
        script.write_text(text.replace("#!python", f"#!{sys.executable}", 1))
        script.chmod(0o755)


def _create_tables(site: Site, database: str) -> None:
    """In a process of its own: in ours, the tests' folder `asterisk` may stand before pyst2's package."""
    statement = "import straightforward, sys; straightforward.create_tables(*sys.argv[1:])"
    command = [sys.executable, "-B", "-c", statement, database, site.key]
    subprocess.run(command, cwd=site.agi_directory, check=True)


def _call(private: PrivateAsterisk, site: Site, way: Way) -> Hold:
    """Place one call, and wait until nothing of it runs any more."""
    begun = len(private.log())
    private.originate("410@line", f"{way.name}@hold")
    wait_until(lambda: HELD.search(private.log(), begun), CALL_SECONDS, f"the end of {way.application}")
    if way.records:
        wait_until(lambda: END in private.log()[begun:], CALL_SECONDS, "the end of MixMonitor")
    private.wait_quiet()
    wait_until(lambda: _is_idle(site), CALL_SECONDS, "the end of all background work")
    return _hold(private.log()[begun:], way)


def _hold(log: str, way: Way) -> Hold:
    held, begin = HELD.search(log), BEGIN.search(log)
    assert held is not None
    before, after = float(held[1]), float(held[2])
    if way.application.startswith("AGI") and way.records:
        assert held[3] == "200", f"{way.name} has not recorded: {log}"
    assert (begin is not None) == way.records, log
    recording_after = None if begin is None else (float(begin[1]) - before) * 1000
    return Hold((after - before) * 1000, recording_after)


def _is_idle(site: Site) -> bool:
    """Whether no program of ours runs and nothing waits for the database."""
    return not site.processes() and not [*site.recordings_directory.glob(".spool/*.json")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hold", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"calls of each way ({ROUNDS})")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        print(table(measure(Path(folder), rounds)))


if __name__ == "__main__":
    main()
