"""One Asterisk with noojee-agi installed, and calls through dialplans of a test's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import processes
from lab.asterisk import PrivateAsterisk
from lab.site import Site
from lab.waiting import wait_until

_TALK_MS = 400
_LIMIT_SECONDS = 60  # for what takes a second at most, and on a busy machine many
# The far end of every call: a telephone that plays 1004 Hz, and the caller's, with 425 Hz.
PARTIES = """
[own-extension]
exten => s,1,AGI(start_record.py,,outbound)
 same => n,Return()
[phones]
exten => _4XX,1,Answer()
 same => n,Milliwatt()
[caller]
exten => _X.,1,Answer()
 same => n,Playtones(425)
 same => n,Wait(${EXTEN:0:1}.${EXTEN:1})
 same => n,Hangup()
exten => stays,1,Answer()
 same => n,Playtones(425)
 same => n,Wait(600)
"""


@dataclass(frozen=True)
class View:
    """What the dialplan saw after its AGI line."""

    status: str
    leg_id: str
    file: str
    agi_status: str
    message: str


class Pbx:
    """One Asterisk and its noojee-agi."""

    def __init__(self, asterisk: PrivateAsterisk, site: Site) -> None:
        self.asterisk = asterisk
        self.site = site
        self._calls = 0

    def dial(self, dialplan: str, seconds: float | None = None, extension: str = "500") -> View:
        """Dial `extension`: its lines after Answer(), then a call to 450.

        The caller stays for so many seconds, or talks for 0.4 of one, however long those lines take.
        Returns what the dialplan saw when they had run; waits until all channels are gone.
        """
        self.start_call(dialplan, seconds, extension, "" if seconds else f",,L({_TALK_MS})")
        self.asterisk.wait_quiet(_LIMIT_SECONDS)
        return self.view()

    def start_call(
        self, dialplan: str, seconds: float | None, extension: str = "500", limit: str = ""
    ) -> None:
        """The same, without waiting for the call's end; with seconds None, until hang_up().

        limit: further arguments of Dial().
        """
        self._calls += 1
        lines = [f" same => n,{line.strip()}" for line in dialplan.strip().splitlines() if line.strip()]
        text = "\n".join(
            [
                "[test]",
                f"exten => {extension},1,Answer()",
                *lines,
                " same => n,Gosub(view,s,1)",
                f" same => n,Dial(Local/450@phones/n{limit})",
                "exten => h,1,Gosub(view,s,1)",
                "[view]",
                f"exten => s,1,Set(FILE({self._view_file},,,al,u)=${{RECORDING_STATUS}}|${{RECORDING_ID}}"
                "|${RECORDING_FILE}|${AGISTATUS}|${RECORDING_MESSAGE})",
                " same => n,Return()",
            ]
        )
        self._view_file.unlink(missing_ok=True)
        (self.asterisk.folder / "etc/test.conf").write_text(text + "\n")
        self.asterisk.rx("dialplan reload")
        # A call of 1.5 s is 15 at the context caller: its first digit is the seconds.
        caller = "stays" if seconds is None else f"{seconds:.3f}".replace(".", "", 1)
        self.asterisk.originate(f"{extension}@test/n", f"{caller}@caller")

    def hang_up(self) -> None:
        """End all calls, and wait until their channels are gone."""
        self.asterisk.rx("channel request hangup all")
        self.asterisk.wait_quiet(_LIMIT_SECONDS)

    @property
    def _view_file(self) -> Path:
        return self.asterisk.folder / f"view-{self._calls}"

    def view(self) -> View:
        """What the dialplan of the last call saw first: after its lines, or in extension h."""

        def lines() -> list[str]:
            return self._view_file.read_text().splitlines() if self._view_file.exists() else []

        line = wait_until(lines, _LIMIT_SECONDS, "the dialplan to reach its end")[0]
        status, leg_id, file, agi_status, message = line.split("|")
        return View(status, leg_id, file, agi_status, message)

    def leg(self, view: View, status: str = "completed") -> dict[str, Any]:
        """The leg that this call's dialplan was told of, once it has that status."""

        def found() -> dict[str, Any] | None:
            return next((leg for leg in legs() if leg["status"] == status), None)

        def legs() -> list[dict[str, Any]]:
            return [leg for leg in self.site.legs("--id", view.leg_id) if leg["id"] == view.leg_id]

        return wait_until(
            found,
            _LIMIT_SECONDS,
            f"leg {view.leg_id} to be {status}",
            lambda: (legs(), self.site.log()[-3000:]),
        )

    def wait_until_idle(self) -> None:
        """Until every program is gone that calls have started, or start when they are over."""

        def idle() -> bool:
            return processes.members(self.asterisk.pid) == [self.asterisk.pid] and not self.site.processes()

        if self.asterisk.is_quiet():
            wait_until(self.asterisk.has_closed, _LIMIT_SECONDS, "the end of all recordings")
        wait_until(idle, _LIMIT_SECONDS, "our programs to end")
