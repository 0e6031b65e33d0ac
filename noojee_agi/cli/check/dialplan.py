"""The lines of the dialplan that start a recording, their queues, and who else records there."""

import os
import re
import socket
from collections.abc import Iterator
from typing import NamedTuple

from noojee_agi.cli.check import cures, stage
from noojee_agi.cli.check.running import Line, Running
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import recording

_PROGRAM = "start_record"
_FASTAGI = re.compile(r"agi://(\[[^]]+\]|[^/:,?]+)(?::(\d+))?/start_record")
_DEFAULT_PORT = 4573
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_CONNECT_SECONDS = 1.0
_MOST_CHANNELS = 50
_SERVE = "systemctl restart noojee-agi"
_RECORDERS = ("MixMonitor", "Monitor")
_YES = ("yes", "true", "y", "t", "1", "on")


class _Option(NamedTuple):
    """Of a queue: where it stands. number: of its line, from 1; 0 when it is only its section's."""

    value: str
    path: str
    number: int


def check(running: Running, config: Config) -> str:
    """Whether any line starts a recording, and the server listens that it names."""
    lines = _ours(running)
    if not lines:
        raise stage.NotSeen(
            "no line of the dialplan that is loaded starts a recording",
            "AGI(start_record.py) where calls pass",
        )
    for line in lines:
        for host, port in _FASTAGI.findall(line.data):
            _require_listener(line, host, int(port or _DEFAULT_PORT), config)
    return f"{len(lines)} lines start a recording"


def _ours(running: Running) -> list[Line]:
    return [line for line in running.dialplan if _PROGRAM in line.data]


def _require_listener(line: Line, host: str, port: int, config: Config) -> None:
    """Raises NoojeeError. Another machine is not asked."""
    if host not in _LOCAL:
        return
    try:
        socket.create_connection((host.strip("[]"), port), _CONNECT_SECONDS).close()
    except OSError as exc:
        where, own = f"{host}:{port}", config.server_listen.rpartition(":")[2]
        what = f"{line.where}: agi://{where}/start_record, and nobody listens there"
        cure = _SERVE
        if own != str(port):
            cure = f"{cures.option(config, 'server', 'listen', f'127.0.0.1:{port}')} && {_SERVE}"
        raise NoojeeError(what, cure) from exc


def queues(running: Running, config: Config) -> str:
    """Whether we are told which agent has answered."""
    names = sorted({_queue_name(line.data) for line in _ours(running) if line.application == "Queue"})
    if not names:
        return "none is recorded by the argument AGI of Queue()"
    conf = os.path.join(running.setting("Configuration directory"), "queues.conf")
    for name in names:
        _require_queue(running, conf, name)
    return f"{', '.join(names)}: setinterfacevar = yes"


def _queue_name(data: str) -> str:
    return data.partition(",")[0]


def _require_queue(running: Running, conf: str, name: str) -> None:
    """Raises NoojeeError."""
    if "${" in name:
        raise stage.NotSeen(f"which queue is {name}: only a call knows")
    options = _options(conf, name)
    if running.ask(f"queue show {stage.quoted(name)}").startswith("No such queue"):
        if not options:
            raise stage.NotSeen(f"queue {name} is neither loaded nor in {conf}")
        raise NoojeeError(f"queue {name} is not loaded", running.cure("queue reload all"))
    if not options:
        raise stage.NotSeen(f"queue {name} is not in {conf}")
    again = running.cure("queue reload parameters")
    told = options.get("setinterfacevar")
    if told is None or told.value.lower() not in _YES:
        path = (told or options[""]).path
        change = cures.set_in(path, name, "setinterfacevar", "yes")
        raise NoojeeError(
            f"queue {name} does not tell which agent has answered (setinterfacevar)", f"{change} && {again}"
        )
    if other := options.get("monitor-format"):
        raise NoojeeError(
            f"queue {name} records its calls itself, too (monitor-format)",
            f"{cures.remove_lines(other.path, [other.number])} && {again}",
        )


def _options(conf: str, name: str) -> dict[str, _Option]:
    """A queue's options, of its templates, too; under '' where its section begins; empty: not there."""
    found: dict[str, dict[str, _Option]] = {}
    current: dict[str, _Option] = {}
    for path, number, line in _lines(conf, {conf}):
        if section := re.match(r"\[([^]]+)\](?:\(([^)]*)\))?", line):
            current = found.setdefault(section[1], {})
            for template in (section[2] or "").split(","):
                current.update(found.get(template.strip(), {}))
            current[""] = _Option("", path, number)
        elif "=" in line:
            option, _, value = line.partition("=")
            current[option.strip().lower()] = _Option(value.removeprefix(">").strip(), path, number)
    return found.get(name, {})


def _lines(path: str, seen: set[str]) -> Iterator[tuple[str, int, str]]:
    """With those of the files that it includes, where we can read them."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        text = line.partition(";")[0].strip()
        if included := re.match(r'#(?:try)?include\s+[<"]?([^>"]+)[>"]?$', text):
            other = os.path.join(os.path.dirname(path), included[1].strip())
            if other not in seen:
                yield from _lines(other, seen | {other})
        else:
            yield path, number, text


def others(running: Running, config: Config) -> str:
    """Whether somebody else records the same calls: Asterisk may then leave one side out of ours."""
    places = {(line.context, line.extension) for line in _ours(running)}
    for line in running.dialplan:
        if (line.context, line.extension) in places and line.application in _RECORDERS:
            raise NoojeeError(
                f"{line.extension}@{line.context} has {line.application}() beside start_record",
                _without(running, line),
            )
    for channel in _channels(running)[:_MOST_CHANNELS]:
        _require_alone(running, channel, config)
    return "nobody else records the same calls"


def _without(running: Running, line: Line) -> str:
    file, _, number = line.where.rpartition(":")
    if not number.isdecimal():
        return f"take {line.application}({line.data}) out of {line.where}"
    path = os.path.join(running.setting("Configuration directory"), file)
    change = f"{number}s/{line.application}(.*)/NoOp()/"
    return f"{stage.quoted('sed', '-i', change, path)} && {running.cure('dialplan reload')}"


def _channels(running: Running) -> list[str]:
    lines = running.ask("core show channels concise").splitlines()
    return [line.split("!")[0] for line in lines if "!" in line]


def _require_alone(running: Running, channel: str, config: Config) -> None:
    """Raises NoojeeError."""
    rows = [line.split("\t") for line in running.ask(f"mixmonitor list {channel}").splitlines()]
    files = {row[0]: row[1] for row in rows if len(row) > 1 and row[1] and recording.mixmonitor_id(row[0])}
    ours = [file for file in files.values() if file.startswith(f"{config.recordings_directory}/")]
    for mixmonitor, file in files.items():
        if ours and file not in ours:
            raise NoojeeError(
                f"{channel} is recorded by somebody else, too, to {file}",
                running.cure(f"mixmonitor stop {channel} {mixmonitor}"),
            )
