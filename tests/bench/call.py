"""One channel as a FastAGI server meets it: its environment, and Asterisk's replies to commands."""

from __future__ import annotations

import contextlib
import functools
import os
import re

# res_agi.c launch_netscript(), then setup_env().
ENVIRONMENT = b"""\
agi_network: yes
agi_network_script: start_record
agi_request: agi://127.0.0.1/start_record
agi_channel: %(channel)b
agi_language: en
agi_type: PJSIP
agi_uniqueid: %(uniqueid)b
agi_version: 22.5.2
agi_callerid: 0301234567
agi_calleridname: unknown
agi_callingpres: 0
agi_callingani2: 0
agi_callington: 0
agi_callingtns: 0
agi_dnid: 5550100
agi_rdnis: unknown
agi_context: inbound
agi_extension: 5550100
agi_priority: 2
agi_enhanced: 0.0
agi_accountcode:\x20
agi_threadid: 140042218362560
agi_arg_1: 410
agi_arg_2: INV-22
agi_arg_3: Fred

"""
_EMPTY_WAV = bytes.fromhex(
    "52494646 24000000 57415645 666d7420 10000000 0100 0100 401f0000 803e0000 0200 1000 64617461 00000000"
)

DONE = b"200 result=1\n"
EXECUTED = b"200 result=0\n"
UNSET = b"200 result=0\n"
NO_SUCH_APPLICATION = b"200 result=-2\n"
UNKNOWN = b"510 Invalid or unknown command\n"

KEY_NOT_ASKED = "apiKey was not asked"
NOT_RECORDED = "MixMonitor was not executed"
NOT_TOLD = "RECORDING_STATUS is not 200"

_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"|([^\s"]+)')
_ESCAPED = re.compile(rb"\\(.)")
_VARIABLE = re.compile(rb"\$\{([^}]*)\}")
_ID_VARIABLE = re.compile(rb"i\((\w+)\)")


class Call:
    """The n-th call of a day, whose dialplan has set apiKey."""

    __slots__ = ("_key_asked", "_number", "_recorded", "_variables", "environment")

    def __init__(self, number: int, day: int, key: bytes) -> None:
        uniqueid = b"%d.%d" % (day, number)
        channel = b"PJSIP/410-%08x" % number
        self.environment = ENVIRONMENT % {b"channel": channel, b"uniqueid": uniqueid}
        self._number = number
        self._variables = {b"apiKey": key, b"CHANNEL(linkedid)": uniqueid}
        self._key_asked = False
        self._recorded = False

    def failure(self) -> str:
        """What the server did not do; empty when it has done all."""
        if not self._key_asked:
            return KEY_NOT_ASKED
        if not self._recorded:
            return NOT_RECORDED
        return "" if self._variables.get(b"RECORDING_STATUS") == b"200" else NOT_TOLD

    def reply(self, command: bytes) -> bytes:
        """Asterisk's reply to a line."""
        match _words(command):
            case [b"GET", b"VARIABLE", name]:
                return self._get(name)
            case [b"GET", b"FULL", b"VARIABLE", expression]:
                return self._get_full(expression)
            case [b"SET", b"VARIABLE", name, value]:
                self._variables[name] = value
                return DONE
            case [b"EXEC", application, arguments]:
                return self._execute(application, arguments)
            case [b"VERBOSE" | b"NOOP" | b"ANSWER" | b"HANGUP", *_]:
                return DONE
        return UNKNOWN

    def _get(self, name: bytes) -> bytes:
        if name == b"apiKey":
            self._key_asked = True
        value = self._variables.get(name)
        return UNSET if value is None else b"200 result=1 (%b)\n" % value

    def _get_full(self, expression: bytes) -> bytes:
        if b"${apiKey}" in expression:
            self._key_asked = True
        get = self._variables.get
        return b"200 result=1 (%b)\n" % _VARIABLE.sub(lambda found: get(found[1], b""), expression)

    def _execute(self, application: bytes, arguments: bytes) -> bytes:
        match application:
            case b"MixMonitor":
                self._record(*arguments.split(b",", 2))
            case b"Set" | b"MSet":
                for pair in arguments.split(b",") if application == b"MSet" else [arguments]:
                    name, _, value = pair.partition(b"=")
                    self._variables[name] = value
            case b"StopMixMonitor" | b"Log":
                pass
            case _:
                return NO_SUCH_APPLICATION
        return EXECUTED

    def _record(self, file: bytes, options: bytes = b"", _command: bytes = b"") -> None:
        """Unlike Asterisk's, the file is there before the reply."""
        self._recorded = True
        self._variables[b"MIXMONITOR_FILENAME"] = file
        if id_variable := _ID_VARIABLE.search(options):
            self._variables[id_variable[1]] = b"0x7f35%08x" % self._number
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(descriptor, _EMPTY_WAV)
            os.close(descriptor)


@functools.lru_cache(maxsize=64)
def _words(command: bytes) -> list[bytes]:
    """By res_agi.c parse_args(), for quotes around whole words. Many commands are the same every time."""
    words = [quoted or bare for quoted, bare in _WORD.findall(command)]
    return [_ESCAPED.sub(rb"\1", word) for word in words] if b"\\" in command else words
