"""The channel that runs us, over AGI."""

import io
import os
import re
from collections.abc import Mapping, Sequence

from noojee_agi.asterisk import variables
from noojee_agi.asterisk.agi import Agi
from noojee_agi.errors import NotStarted
from noojee_agi.recordings import recording

_MAX_FIELD = 255  # a column's width: an absurdly long caller number must not cost the call record
_NO_SUCH_APPLICATION = "-2"
_NOT_TO_BE_LOGGED = re.compile(r'["\\$]')
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9 ._/:@+=~-]*")  # nothing that app.c __ast_app_separate_args acts on


class Channel:
    """The channel of this AGI session. Every method raises CallGone once nobody answers any more.

    host: where its Asterisk runs; empty when that is this machine.
    """

    def __init__(self, reader: io.TextIOBase, writer: io.TextIOBase, host: str = "") -> None:
        self.host = host
        self._agi = Agi(reader, writer)
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

    def packets(self, names: Sequence[str]) -> list[int]:
        """Not known: IMPORT() (func_logic.c) holds a lock for which the thread that counts may wait."""
        return [-1 for _ in names]

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
