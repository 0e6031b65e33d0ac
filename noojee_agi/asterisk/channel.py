"""The channel that runs us, over AGI.

pyst2 writes every line to stderr, quotes nothing, takes SIGHUP's handler for itself and loops or fails
at the end of its input; the subclass below replaces exactly those parts.
"""

import io
import os
import re
from collections.abc import Mapping

from noojee_agi import text
from noojee_agi.asterisk import variables
from noojee_agi.asterisk.pyst2 import AGI, AGIHangup
from noojee_agi.errors import CallGone, NoojeeError, NotStarted
from noojee_agi.recordings import recording

_REPLY = re.compile(r"([0-9]{3})(?: (.*))?")
_RESULT = re.compile(r"result=(-?[0-9]+)(?: \((.*))?", re.DOTALL)
_LINE_END = "\r\n"
_CLOSED = "Asterisk closed the AGI connection"
_MAX_ENVIRONMENT_LINES = 500
_MAX_SKIPPED_LINES = 500
_MAX_FIELD = 255  # a column's width: an absurdly long caller number must not cost the call record
_MAX_REPLY = 65536
_MAX_COMMAND_BYTES = 2046  # res_agi.c AGI_BUF_LEN before 20.16 and 22.6: the rest runs as a second command
_OK, _DEAD_CHANNEL = "200", "511"
_NO_SUCH_APPLICATION = "-2"
_LONGEST_EXPRESSION = 4095  # res_agi.c handle_getvariablefull: the rest is cut off
_NOT_TO_BE_LOGGED = re.compile(r'["\\$]')
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9 ._/:@+=~-]*")  # nothing that app.c __ast_app_separate_args acts on


class Channel:
    """The channel of this AGI session. Every method raises CallGone once nobody answers any more.

    host: where its Asterisk runs; empty when that is this machine.
    """

    def __init__(self, reader: io.TextIOBase, writer: io.TextIOBase, host: str = "") -> None:
        self.host = host
        self._agi = _Agi(reader, writer)
        self.environment = self._agi.env
        self.name = self._property("agi_channel")
        self.uniqueid = self._property("agi_uniqueid")
        self.extension = _known(self._property("agi_extension"))
        self.did = _known(self._property("agi_dnid"))
        self.caller = _known(self._property("agi_callerid"))

    def pass_over_old_replies(self) -> None:
        """Whoever spoke to Asterisk before us may have left a reply unread."""
        self._agi.pass_over_old_replies()

    def get(self, name: str) -> str:
        """The variable's value; empty when it is unset. name is one of ours, never input."""
        return self._agi.command("GET VARIABLE", name)[1]

    def get_all(self, *names: str) -> dict[str, str]:
        """The same for several, in one round trip."""
        mark = os.urandom(8).hex()  # stands between the values, so none of them may know it
        between = f"}}{mark}${{"
        expression = f"${{{between.join(names)}}}{mark}"
        values = self._agi.value_of(expression, mark).split(mark)
        if len(values) != len(names) + 1:  # longer than Asterisk's buffer
            return {name: self.get(name) for name in names}
        return dict(zip(names, values[:-1], strict=True))

    def sees_file(self, path: str) -> bool:
        """Whether Asterisk sees this file of ours, where it runs (func_env.c, STAT).

        Raises NotStarted when Asterisk cannot tell.
        """
        mark = os.urandom(8).hex()
        value = self._agi.value_of(f"${{STAT(e,{path})}}{mark}", mark)
        if value == mark:
            raise NotStarted("this Asterisk has no STAT(), the way to see its file: load func_env.so")
        return value == f"1{mark}"

    def set(self, name: str, value: str) -> None:
        """Set a variable; control characters in value become blanks."""
        self._agi.command("SET VARIABLE", name, value)

    def set_all(self, values: Mapping[str, str]) -> None:
        """The same for several; in one round trip those that Asterisk's argument parser leaves alone."""
        plain = values
        if not _PLAIN_VALUE.fullmatch("".join(values.values())):
            plain = {name: value for name, value in values.items() if _PLAIN_VALUE.fullmatch(value)}
        self._agi.command("EXEC", "MSet", ",".join([f"{name}={value}" for name, value in plain.items()]))
        for name in values.keys() - plain.keys():
            self.set(name, values[name])

    def verbose(self, message: str) -> None:
        """A line for Asterisk's console and log, at verbose level 1."""
        self._agi.command("VERBOSE", message, "1")

    def warn(self, message: str) -> None:
        """A WARNING in Asterisk's log, whose files have no verbose lines by default (logger.conf).

        What an argument parser, or AGIEXECFULL=yes, acts on becomes '?' (app_verbose.c log_exec).
        """
        result, _ = self._agi.command("EXEC", "Log", f"WARNING,{_NOT_TO_BE_LOGGED.sub('?', message)}")
        if result == _NO_SUCH_APPLICATION:
            self.verbose(message)

    def mixmonitor(self, file: str, options: str, end_command: str) -> None:
        """Start MixMonitor; Asterisk answers the same whether it records or not (app_mixmonitor.c:1503).

        end_command: what it runs once the file is closed; empty for none.

        None of the three may hold a character that Asterisk or a shell acts on: Config sees to that.
        Raises NotStarted when Asterisk has no MixMonitor.
        """
        command = f",{end_command}" if end_command else ""
        result, _ = self._agi.command("EXEC", "MixMonitor", f"{file},{options}{command}")
        if result == _NO_SUCH_APPLICATION:
            raise NotStarted("this Asterisk has no MixMonitor: load app_mixmonitor.so in modules.conf")

    def require_start(self, file: str) -> None:
        """Raises what a start would, as far as that can be known before; file: where it would record."""
        if self.host:
            self.sees_file(file)

    def stop_mixmonitor(self, mixmonitor_id: str) -> None:
        """End this one MixMonitor."""
        self._agi.command("EXEC", "StopMixMonitor", mixmonitor_id)

    def mixmonitor_file(self, mixmonitor_id: str) -> str:
        """The file of this MixMonitor while it runs; empty when it has ended."""
        mark = os.urandom(8).hex()
        expression = f"${{{variables.mixmonitor_file(mixmonitor_id)}}}{mark}"
        return self._agi.value_of(expression, mark).removesuffix(mark)

    def mixmonitor_id(self) -> str:
        """The MixMonitor that records this channel for us; empty when none was started."""
        return recording.mixmonitor_id(self.get(variables.MIXMONITOR_ID))

    def _property(self, name: str) -> str:
        return self.environment.get(name, "").strip()[:_MAX_FIELD]


def _known(value: str) -> str:
    return "" if value == "unknown" else value  # res_agi.c setup_env writes this for "not there"


class _Agi(AGI):  # type: ignore[misc]
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
        except AGIHangup as exc:
            self._awaits_reply = False
            raise CallGone("the call has ended") from exc
        except (OSError, ValueError) as exc:
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
            if " (" not in text or text.endswith(self._value_ends_with) or _is_cut_off(text):
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


def _is_cut_off(reply: str) -> bool:
    return reply.endswith(")") and len(reply.encode("utf-8", "replace")) > _LONGEST_EXPRESSION
