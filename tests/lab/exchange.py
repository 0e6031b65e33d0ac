"""An Asterisk with telephones, at which one call records another."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Generic, TypeVar

from lab import asterisk, manager, phones
from lab.asterisk import Installation, PrivateAsterisk
from lab.pbx import PARTIES, Pbx, View
from lab.phones import Lines, Phone
from lab.postgresql import free_port
from lab.sip_phone import SipPhone
from lab.site import Site
from lab.waiting import wait_until

BYTES_A_SECOND = 16000
LIMIT_SECONDS = 60  # for what takes a second at most, and on a busy machine many
# Of the manager interface: events tell more, and when they were.
_MORE = "channelvars = RECORDING_ID,CALLERID(name)\ntimestampevents = yes"
Telephone = TypeVar("Telephone", Phone, SipPhone)


class Exchange(Generic[Telephone]):
    """One Asterisk with manager interface and telephones, and a site whose calls ask for other calls.

    tones: the frequency of each telephone; plug_in: makes one. Ann sits at 410.
    """

    def __init__(
        self,
        version: int | Installation | None,
        system_name: str,
        folder: Path,
        stack: ExitStack,
        dialplan: str,
        tones: Mapping[str, int],
        plug_in: Callable[[Lines, str, Path], Telephone],
        files: Mapping[str, str] | None = None,
        modules: Sequence[str] = (),
    ) -> None:
        self.site = Site(folder / "site")
        for login in ("Fred", "Ann"):
            self.site.cli("account", "add", login)
        self.site.cli("attach", "Ann", "410")
        self.port = free_port()
        lines = Lines(tuple(tones), context="telephones")
        extensions = f"[globals]\napiKey = {self.site.key}\n{PARTIES}{dialplan}\n"
        files = {
            "pjsip.conf": lines.configuration(),
            "manager.conf": manager.manager_conf(self.port, more=_MORE),
            "res_parking.conf": "[general]\n[default]\ncontext => parkedcalls\nparkpos => 701-720\n",
            "test.conf": "",
            **(files or {}),
        }
        self.asterisk = stack.enter_context(
            PrivateAsterisk(
                version if isinstance(version, Installation) else asterisk.find(version),
                folder / "asterisk",
                f"{extensions}#include test.conf\n",
                files,
                self.site.environment,
                self.site.agi_directory,
                system_name,
                modules=(*phones.MODULES, "res_parking", *modules),
            )
        )
        self.pbx = Pbx(self.asterisk, self.site)
        self.phones: dict[str, Telephone] = {
            extension: stack.enter_context(plug_in(lines, extension, folder / extension))
            for extension in tones
        }

    def configure(self, **options: object) -> None:
        """The site's [manager] section, with these options changed."""
        changed = {f"manager.{name}": str(value) for name, value in options.items()}
        self.site.configure({**manager.options(self.port), **changed})

    def connect(self, caller: str = "411", called: str = "410") -> None:
        """One telephone calls another, or a number that the dialplan turns into one, and is answered."""
        before = len(self.phones[caller].calls())
        self.phones[caller].dial(called)
        self.phones[caller].wait_up(before + 1)
        if called in self.phones:
            self.wait_bridged(called)

    def ask(self, dialplan: str) -> View:
        """What the dialplan of a call sees that has nothing to do with the telephones."""
        self.pbx.start_call(dialplan, seconds=None)
        return self.pbx.view()

    def channels(self) -> dict[str, str]:
        """Uniqueid of each channel by its name, without those of calls that ask."""
        return {words[0]: words[-1] for words in self._channels()}

    def wait_bridged(self, extension: str) -> None:
        """Until all channels there talk: a telephone is up before Asterisk has put its call together."""

        def are_bridged() -> bool:
            there = [words for words in self._channels() if words[0].startswith(f"PJSIP/{extension}-")]
            return bool(there) and all(words[-2] for words in there)

        wait_until(are_bridged, LIMIT_SECONDS, f"the calls at {extension} to be bridged")

    def _channels(self) -> list[list[str]]:
        """The fields of each telephone's channel: first its name, last its bridge and its uniqueid."""
        lines = self.asterisk.rx("core show channels concise").splitlines()
        return [line.split("!") for line in lines if line.startswith("PJSIP/") and "!" in line]

    def mixmonitors(self) -> int:
        """How many run, whosever they are."""
        shown = [self.asterisk.rx(f"mixmonitor list {name}") for name in self.channels()]
        return len(re.findall("0x[0-9a-f]+", " ".join(shown)))

    def channel(self, extension: str) -> str:
        """The name of the only channel there."""
        (name,) = [name for name in self.channels() if name.startswith(f"PJSIP/{extension}-")]
        return name

    def leg(self, view: View) -> dict[str, Any]:
        """The leg that the dialplan was told of, while it records."""
        return self.pbx.leg(view, status="recording")

    def running(self, tag: str) -> dict[str, Any]:
        """The only leg with that tag that records now, once there is one.

        The database may know of it before the former one has ended, and its file is there.
        """

        def found() -> list[dict[str, Any]]:
            legs = self.site.legs("--tag", tag)  # of the calls whose last tag that is
            legs = [leg for leg in legs if leg["tag"] == tag and leg["status"] == "recording"]
            return [leg for leg in legs if Path(leg["file"]).exists()]

        return wait_until(
            found,
            LIMIT_SECONDS,
            f"a leg {tag} that records",
            lambda: (self.site.legs(), self.site.log()[-3000:]),
        )[0]

    def status(self, leg_id: str) -> str:
        (leg,) = self.site.legs("--id", leg_id)
        return str(leg["status"])

    def wait_for_audio(self, file: str, seconds: float) -> None:
        wait_until(lambda: Path(file).stat().st_size >= seconds * BYTES_A_SECOND, LIMIT_SECONDS, "some audio")

    def add(self, contexts: str) -> None:
        """Further contexts, until the next call that asks."""
        (self.asterisk.folder / "etc/test.conf").write_text(contexts + "\n")
        self.asterisk.rx("dialplan reload")

    def end(self) -> None:
        self.pbx.hang_up()
        for phone in self.phones.values():
            phone.wait_idle()
        self.pbx.wait_until_idle()
