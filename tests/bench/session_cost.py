"""What one session costs a process that is warm, in microseconds: its parts, and the whole of it.

python -m bench.session_cost (in tests/) prints the table. Asterisk is in this process: what it needs itself
is taken off. The kernel's part of a connection, and the event loop's, are bench.load's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import places, table
from bench.call import Call
from noojee_agi import log
from noojee_agi.actions import access
from noojee_agi.actions.result import Report, Result
from noojee_agi.asterisk import target, variables
from noojee_agi.asterisk.channel import Channel
from noojee_agi.asterisk.stream import Stream
from noojee_agi.config import Config
from noojee_agi.recordings import disk, recording, snapshot
from noojee_agi.recordings.recording import Leg
from noojee_agi.recordings.snapshot import Snapshot
from noojee_agi.server import fastagi
from noojee_agi.session import session

SESSIONS = 2000
KEY = "f863246a-Key-973e"
_IN_A_ROW = 50  # of one part, before the next has its turn
_ASKED = (variables.API_KEY, *target.READ)
_DIGEST = access.digest(KEY)


class Asterisk(io.TextIOBase):
    """The end to which a session writes: answers into its stream, and keeps the time that this takes."""

    def __init__(self, number: int) -> None:
        self.call = Call(number, 1762420501, KEY.encode())
        self.stream = Stream(-1, -1, self.call.environment)
        self.spent = 0

    def write(self, text: str, /) -> int:
        begun = time.perf_counter_ns()
        self.stream._take(self.call.reply(text.encode().rstrip(b"\n")))
        self.spent += time.perf_counter_ns() - begun
        return len(text)

    def flush(self) -> None:
        pass


@contextlib.contextmanager
def site(folder: Path) -> Iterator[session.Surroundings]:
    """A configuration with its folders, a snapshot that knows key and login, and the log file."""
    state, recordings = folder / "state", folder / "recordings"
    state.mkdir()
    recordings.mkdir()
    config = Config(
        path="/etc/noojee_agi.conf",
        recordings_directory=str(recordings),
        recordings_min_free_percent=0.0,
        state_directory=str(state),
        server_name="pbx1",
    )
    known = Snapshot(access.digest(KEY), frozenset(["Fred"]), recording.now(), frozenset(["410"]))
    snapshot.save(config.snapshot_file, known)
    log.to_file(config)
    disk.look_whether_local(config.recordings_directory)
    yield session.Surroundings(
        str(Path(sys.executable).parent), lambda: config, lambda config: None, snapshot.Cached()
    )


def whole(surroundings: session.Surroundings) -> Callable[[int], int]:
    """A session from its first line to the log's; its nanoseconds."""

    def run(number: int) -> int:
        asterisk = Asterisk(number)
        begun = time.perf_counter_ns()
        stream = Stream(-1, -1, asterisk.call.environment)
        asterisk.stream = stream
        report = session.run((stream, asterisk), fastagi.invocation_of, surroundings)
        log.session(report)
        spent = time.perf_counter_ns() - begun - asterisk.spent
        assert report.result.status == 200, report
        assert asterisk.call.failure() == ""
        os.unlink(report.result.file)
        return spent

    return run


def parts() -> dict[str, Callable[[int], int]]:
    """Each returns the nanoseconds of one."""
    return {
        "25 lines of environment": _environment,
        "GET FULL VARIABLE": _get_all,
        "MixMonitor and MSet": _begin,
        "a new leg and its event": _leg,
        "the key's digest": _key,
        "the log's line": _log_line,
    }


def _environment(number: int) -> int:
    environment = Call(number, 1762420501, b"").environment
    begun = time.perf_counter_ns()
    stream = Stream(-1, -1, environment)
    Channel(stream, stream)
    return time.perf_counter_ns() - begun


def _in_session(number: int, work: Callable[[Channel], object]) -> int:
    asterisk = Asterisk(number)
    channel = Channel(asterisk.stream, asterisk)
    begun = time.perf_counter_ns()
    work(channel)
    return time.perf_counter_ns() - begun - asterisk.spent


def _get_all(number: int) -> int:
    return _in_session(number, lambda channel: channel.get_all(*_ASKED))


def _begin(number: int) -> int:
    folder = "/nonexistent/2026/11/30"
    leg_id = "0e5f6b1c-6a57-4a6e-8f5e-0123456789ab"
    told = {
        variables.STATUS: "200",
        variables.MESSAGE: "OK",
        variables.LEG_ID: leg_id,
        variables.FILE: f"{folder}/1762420501.{number}-0e5f6b1c.wav",
        variables.LEG: f"{leg_id} Fred",
    }

    def work(channel: Channel) -> None:
        file = told[variables.FILE]
        channel.mixmonitor(file, "i(NOOJEE_MIXMONITOR_ID)", f"/opt/bin/finish_record.py - {leg_id} {file}")
        channel.set_all(told)

    return _in_session(number, work)


def _leg(number: int) -> int:
    uniqueid = f"1762420501.{number}"
    begun = time.perf_counter_ns()
    leg_id, at = recording.new_id(), recording.now()
    leg = Leg(
        id=leg_id,
        server="pbx1",
        call_uniqueid=uniqueid,
        uniqueid=uniqueid,
        channel="PJSIP/410-0000001f",
        extension="410",
        extensions=("410",),
        agent_login_name="Fred",
        agent_known=True,
        tag="INV-22",
        source="0301234567",
        destination="5550100",
        did="5550100",
        file=recording.file_path("/var/spool/asterisk/noojee", uniqueid, leg_id, "wav", at),
        started_at=at,
        peer_channel="",
        peer_uniqueid="",
    )
    recording.to_json(leg)
    return time.perf_counter_ns() - begun


def _key(number: int) -> int:
    begun = time.perf_counter_ns()
    access.matches(KEY, _DIGEST)
    return time.perf_counter_ns() - begun


def _log_line(number: int) -> int:
    leg_id = "0e5f6b1c-6a57-4a6e-8f5e-0123456789ab"
    file = f"/var/spool/asterisk/noojee/2026/11/30/1762420501.{number}-0e5f6b1c.wav"
    report = Report("start_record", f"1762420501.{number}", Result(200, "OK", leg_id, file), 1.2)
    begun = time.perf_counter_ns()
    log.session(report)
    return time.perf_counter_ns() - begun


def measure(sessions: int, folder: Path) -> dict[str, float]:
    """Microseconds of each, below which a tenth was: what others do meanwhile only adds."""
    with site(folder) as surroundings:
        works = {
            **parts(),
            "a session": whole(surroundings),
        }
        taken: dict[str, list[int]] = {name: [] for name in works}
        for begin in range(0, sessions, _IN_A_ROW):
            for name, work in works.items():
                taken[name] += [work(number) for number in range(begin, begin + _IN_A_ROW)]
    return {name: statistics.quantiles(each, n=10)[0] / 1000 for name, each in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.session_cost", description=__doc__)
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"of each kind ({SESSIONS})")
    given = parser.parse_args()
    with places.make() as where:
        taken = measure(given.sessions, where.memory)
    print(table.text(("part", "µs"), [(name, f"{each:.1f}") for name, each in taken.items()]))


if __name__ == "__main__":
    main()
