"""The ways into a recording: what the dialplan says, and what Asterisk's log says of each call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LINE = "410@line"


@dataclass(frozen=True)
class Way:
    """One application that the dialplan runs between two looks at the clock."""

    name: str
    application: str
    records: bool = True
    needs_server: bool = False

    @property
    def extension(self) -> str:
        return re.sub(r"\W", "", self.name)

    def has_recorded(self, call: Held) -> bool:
        """By what the dialplan was told, if it was."""
        return self.records and (call.status == "200" or not self.application.startswith("AGI"))


STRAIGHTFORWARD = Way("straightforward script", "AGI(straightforward.py,410,INV-22,Fred)")
PLAIN = Way("plain", "AGI(start_record.py,410,INV-22,Fred)")
HANDED_OVER = Way("handed over", PLAIN.application, needs_server=True)
FASTAGI = Way("FastAGI", "AGI(agi://127.0.0.1:{port}/start_record,410,INV-22,Fred)", needs_server=True)
MIXMONITOR = Way("MixMonitor alone", "MixMonitor(dialplan-${{UNIQUEID}}.wav)")
NOTHING = Way("Python that does nothing", "AGI(nothing.py)", records=False)
WAYS = (STRAIGHTFORWARD, PLAIN, HANDED_OVER, FASTAGI, MIXMONITOR, NOTHING)

# The line answers late: by then whoever started the call has his answer, and has left the processor.
_EXTENSIONS = """\
[globals]
apiKey = {key}
[line]
exten => 410,1,Wait(0.1)
 same => n,Answer()
 same => n,Milliwatt()
[hold]
"""
_EXTENSION = """\
exten => {extension},1,Set(before=${{STRFTIME(,,%s.%6q)}})
 same => n,{application}
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
_HELD = re.compile(r'NoOp\("[^"]*", "HELD (\S+) (\S+) status=(\d*)"\)')
_BEGIN = re.compile(r"^\[([\d.]+)\].*Begin MixMonitor Recording", re.MULTILINE)
_END = "End MixMonitor Recording"


@dataclass(frozen=True)
class Held:
    """One call: from when until when it was held, in seconds of the clock, and what it was told."""

    before: float
    after: float
    status: str

    @property
    def milliseconds(self) -> float:
        return (self.after - self.before) * 1000


def dialplan(key: str, port: int = 0) -> str:
    """extensions.conf with an extension for each way; port: the FastAGI server's."""
    extensions = (
        _EXTENSION.format(extension=way.extension, application=way.application.format(port=port))
        for way in WAYS
    )
    return _EXTENSIONS.format(key=key) + "".join(extensions)


def held(log: str) -> list[Held]:
    """Every call that the log tells of."""
    return [Held(float(before), float(after), status) for before, after, status in _HELD.findall(log)]


def begins(log: str) -> Iterator[float]:
    """When each MixMonitor began."""
    return (float(time) for time in _BEGIN.findall(log))


def count_ends(log: str) -> int:
    """How many MixMonitors have closed their files."""
    return log.count(_END)
