"""AGI's commands and replies.

pyst2 writes every line to stderr, quotes nothing, takes SIGHUP's handler for itself and loops or fails
at the end of its input; the subclass below replaces exactly those parts.
"""

import io
import os
import re

from noojee_agi import text
from noojee_agi.asterisk.pyst2 import AGI, AGIHangup
from noojee_agi.errors import CallGone, NoojeeError

_REPLY = re.compile(r"([0-9]{3})(?: (.*))?")
_RESULT = re.compile(r"result=(-?[0-9]+)(?: \((.*))?", re.DOTALL)
_LINE_END = "\r\n"
_CLOSED = "Asterisk closed the AGI connection"
_MAX_ENVIRONMENT_LINES = 500
_MAX_SKIPPED_LINES = 500
_MAX_REPLY = 65536
_MAX_COMMAND_BYTES = 2046  # res_agi.c AGI_BUF_LEN before 20.16 and 22.6: the rest runs as a second command
_OK, _DEAD_CHANNEL = "200", "511"
_LONGEST_EXPRESSION = 4095  # res_agi.c handle_getvariablefull: the rest is cut off


class Agi(AGI):  # type: ignore[misc]
    """pyst2's AGI with safe quoting, strict replies, and no hand on signals or stderr."""

    def __init__(self, reader: io.TextIOBase, writer: io.TextIOBase) -> None:
        self.stdin = reader
        self.stdout = writer
        self._got_sighup = False
        self._value_ends_with = ")"
        self._awaits_reply = False  # then nothing more is said: it would be out of turn
        self.env: dict[str, str] = {}
        self._get_agi_env()

    def command(self, verb: str, *words: str) -> tuple[str, str]:
        """Run one AGI command, every word quoted; its reply's result and the data in brackets.

        Raises CallGone, and NoojeeError for what Asterisk would take for two commands.
        """
        line = " ".join([verb, *map(self._quote, words)])
        if len(line.encode("utf-8", "replace")) > _MAX_COMMAND_BYTES:
            raise NoojeeError(
                f"{verb} exceeds Asterisk's limit of {_MAX_COMMAND_BYTES} bytes: use shorter paths"
            )
        if self._awaits_reply:
            raise CallGone("Asterisk has not answered what it was asked before")
        self._awaits_reply = True
        try:
            reply: tuple[str, str] = self.execute(line)["result"]
        except (AGIHangup, OSError, ValueError) as exc:
            self._awaits_reply = not isinstance(exc, AGIHangup)
            raise CallGone("the call has ended") from exc
        self._awaits_reply = False
        return reply

    def value_of(self, expression: str, ending: str) -> str:
        """What Asterisk makes of an expression that ends with `ending`."""
        self._value_ends_with = f"{ending})"
        try:
            return self.command("GET FULL VARIABLE", expression)[1]
        finally:
            self._value_ends_with = ")"

    def pass_over_old_replies(self) -> None:
        mark = os.urandom(8).hex()
        value = self.value_of(mark, mark)
        for _ in range(_MAX_SKIPPED_LINES):
            if value.endswith(mark):
                return
            try:
                value = self.get_result()["result"][1]
            except AGIHangup as exc:
                raise CallGone("the call has ended") from exc
        raise CallGone("Asterisk does not answer what it was asked")

    def _get_agi_env(self) -> None:
        readline, setdefault = self.stdin.readline, self.env.setdefault
        try:
            for _ in range(_MAX_ENVIRONMENT_LINES):
                name, colon, value = readline(_MAX_REPLY).partition(":")
                if colon:
                    setdefault(name.strip(), value.rstrip(_LINE_END).removeprefix(" "))
                elif not name:
                    raise CallGone(_CLOSED)
                elif not name.rstrip(_LINE_END):
                    return
        except (OSError, ValueError) as exc:
            raise CallGone(_CLOSED) from exc
        raise CallGone("Asterisk sent an environment without an end")

    def _line(self) -> str:
        """The next line without its end. Raises CallGone when there is none any more."""
        try:
            line: str = self.stdin.readline(_MAX_REPLY)
        except (OSError, ValueError) as exc:
            raise CallGone(_CLOSED) from exc
        if not line:
            raise CallGone(_CLOSED)
        return line.rstrip(_LINE_END)

    def _quote(self, string: str) -> str:
        escaped = string.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text.without_controls(escaped)}"'

    def send_command(self, command: str, *args: object) -> None:
        """pyst2's own would write the line to stderr, too."""
        self.stdout.write(" ".join([command, *map(str, args)]) + "\n")
        self.stdout.flush()

    def get_result(self, stdin: object = None) -> dict[str, tuple[str, str]]:
        """The next reply. Lines that are none (HANGUP, usage text) are passed over."""
        for _ in range(_MAX_SKIPPED_LINES):
            reply = _REPLY.fullmatch(self._line())
            if reply:
                return self._parsed(reply[1], self._whole(reply[2] or ""))
        raise CallGone("Asterisk answered with no reply")

    def _whole(self, text: str) -> str:
        """A value's further lines belong to its reply: Asterisk sends them raw, up to the closing bracket."""
        for _ in range(_MAX_SKIPPED_LINES):
            if " (" not in text or text.endswith(self._value_ends_with):
                return text
            if text.endswith(")") and len(text.encode("utf-8", "replace")) > _LONGEST_EXPRESSION:
                return text
            text += "\n" + self._line()
        raise CallGone("Asterisk sent a value without an end")

    def _parsed(self, code: str, text: str) -> dict[str, tuple[str, str]]:
        if code == _DEAD_CHANNEL:
            raise AGIHangup("the channel is dead")
        result = _RESULT.match(text)
        if code != _OK or not result:
            return {"result": ("-1", "")}
        return {"result": (result[1], (result[2] or "").removesuffix(")"))}
