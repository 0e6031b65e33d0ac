"""What comes of a session: for the dialplan, and for our log."""

from typing import NamedTuple

from noojee_agi import text
from noojee_agi.asterisk import variables
from noojee_agi.config import Config

BUT = ", but "  # before what is to be known besides; text from outside holds no comma (text.plain)
_MESSAGE_LIMIT = 400  # characters, so that the line stays below Asterisk's limit in any language


class Result(NamedTuple):
    """status: see the README's table. leg_id and file: empty when no recording was tried.

    leg: what a stop must know of a leg that has begun, see variables.LEG. state: see variables.STATE; empty
    where it has not changed.
    """

    status: int
    message: str = "OK"
    leg_id: str = ""
    file: str = ""
    leg: str = ""
    state: str = ""

    @property
    def has_remarks(self) -> bool:
        return BUT in self.message

    def with_remark(self, remark: str) -> "Result":
        """With one more thing to be known."""
        return self._replace(message=f"{self.message}{'; ' if self.has_remarks else BUT}{remark}")

    @property
    def variables(self) -> dict[str, str]:
        """The same as channel variables."""
        values = {
            variables.STATUS: str(self.status),
            variables.MESSAGE: text.printable(text.without_controls(self.message[:_MESSAGE_LIMIT])),
            variables.LEG_ID: self.leg_id,
            variables.FILE: self.file,
        }
        changed = {variables.LEG: self.leg, variables.STATE: self.state}
        return {**values, **{name: value for name, value in changed.items() if value}}


class Report(NamedTuple):
    """One session for our log. failure: an exception that nobody foresaw."""

    program: str
    uniqueid: str
    result: Result
    milliseconds: float
    config: Config | None = None
    failure: Exception | None = None
