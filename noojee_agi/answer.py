"""What the dialplan is told, and our log."""

from dataclasses import dataclass

from noojee_agi import arguments, text, variables

_MESSAGE_LIMIT = 400  # characters, so that the line stays below Asterisk's limit in any language


@dataclass(frozen=True)
class Answer:
    """status: see the README's table. leg_id and file: empty when no recording was tried.

    leg: what a stop must know of a leg that has begun, see variables.LEG.
    """

    status: int
    message: str = "OK"
    leg_id: str = ""
    file: str = ""
    leg: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """The same as channel variables."""
        values = {
            variables.STATUS: str(self.status),
            variables.MESSAGE: text.printable(arguments.without_controls(self.message[:_MESSAGE_LIMIT])),
            variables.LEG_ID: self.leg_id,
            variables.FILE: self.file,
        }
        return {**values, variables.LEG: self.leg} if self.leg else values
