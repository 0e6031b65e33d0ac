"""Two private Asterisks, each with an installation of noojee-agi: one without and one with its server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import asterisk
from lab.asterisk import PrivateAsterisk
from lab.served import Served
from lab.site import Site

from bench import processor, ways
from bench.places import Places
from bench.side import OPTIONS, Side
from bench.ways import Way

SCRIPTS = ("straightforward.py", "nothing.py")


@dataclass(frozen=True)
class Sides:
    plain: Side
    served: Side

    def of(self, way: Way) -> Side:
        return self.served if way.needs_server else self.plain

    @property
    def both(self) -> Sequence[Side]:
        return self.plain, self.served


@contextlib.contextmanager
def running(places: Places) -> Iterator[Sides]:
    """Both, while the block runs. Raises LabUnavailable."""
    installation = asterisk.find(22)
    with contextlib.ExitStack() as stack:
        stack.enter_context(processor.adopting())
        database = f"sqlite:///{places.disk}/straightforward.db"
        found: list[Side] = []
        for name in ("plain", "served"):
            site = Site(places.memory / name, f"sqlite:///{places.disk}/{name}.db", has_loaded_drains=False)
            if found:
                site.key = found[0].site.key
                site.cli("apikey", "set", text=site.key + "\n")
            site.cli("account", "add", "Fred")
            site.configure(OPTIONS)
            served = stack.enter_context(Served(site, OPTIONS)) if name == "served" else None
            _install_scripts(site.agi_directory)
            private = PrivateAsterisk(
                installation,
                places.memory / name / "asterisk",
                ways.dialplan(site.key, served.port if served else 0),
                {"logger.conf": ways.LOGGER_CONF},
                {**site.environment, "STRAIGHTFORWARD_DATABASE": database},
                site.agi_directory,
            )
            found.append(Side(stack.enter_context(private), site, served))
        _create_tables(found[0].site, database)
        yield Sides(*found)


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
