"""kill -9 of our programs and of Asterisk itself in the middle of real calls, and a crowd of calls at once.

A leg that nobody closed is closed 15 s after the last sign of life (closing.SETTLED_AFTER). So
everything is broken first, and looked at later: the waits pass together.
"""

from __future__ import annotations

import re
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lab import asterisk, audit
from lab.asterisk import PrivateAsterisk
from lab.killing import Killer
from lab.pbx import Pbx
from lab.site import PROGRAMS, Site
from lab.waiting import wait_until
from sqlalchemy import select

from noojee_agi.database.store import Store
from noojee_agi.database.tables import call_record

pytestmark = pytest.mark.asterisk

AT_ONCE = 6
GOLDEN_RATIO = 0.6180339887
EXTENSIONS = """
[globals]
apiKey = {key}
[recorded]
exten => _X.,1,Answer()
 same => n,Set(BEFORE=${{STRFTIME(,,%s.%3q)}})
 same => n,AGI(start_record.py,,tag-${{EXTEN}})
 same => n,NoOp(WENT ON ${{EXTEN}} ${{AGISTATUS}} ${{BEFORE}} ${{STRFTIME(,,%s.%3q)}} ${{RECORDING_STATUS}})
 same => n,Milliwatt()
[stay]
exten => s,1,Answer()
 same => n,Wait(600)
"""
WENT_ON = re.compile(r'NoOp\("[^"]*", "WENT ON (\d+) (\w+) (\S+) (\S+) (\d*)"\)')
# Asterisk keeps so much of a WAV file to itself before it writes (main/file.c, setvbuf).
BUFFER_BYTES = 32 * 1024
YOUNG_SECONDS = 1.9  # that takes 2.05 to fill


@dataclass(frozen=True)
class WentOn:
    """A call whose dialplan has come to the line after AGI."""

    tag: str
    agi_status: str
    recording_status: str
    at: float
    held: float


class Phones:
    """Calls that stay until they are all hung up, or Asterisk dies."""

    def __init__(self, pbx: Pbx) -> None:
        self.pbx = pbx
        self.calls = 0
        self._died = 0

    def call(self, count: int = AT_ONCE) -> list[WentOn]:
        """So many calls at once; returns when the AGI() of each is over. All of them are still up then."""
        numbers = range(1000 + self.calls, 1000 + self.calls + count)
        self.calls += count
        self.pbx.asterisk.originate_at_once((f"{number}@recorded/n", "s@stay") for number in numbers)
        wait_until(lambda: len(self.went_on()) == self.calls, 180, f"{count} calls to go on after AGI()")
        assert self.channels() == 2 * count
        return self.went_on()[-count:]

    def hang_up(self) -> None:
        """All of them; returns when the programs that this starts are gone, too."""
        self.pbx.asterisk.rx("channel request hangup all", 60)
        self.pbx.asterisk.wait_quiet(120)
        wait_until(lambda: self._recording() == self._died, 60, "the end of all recordings")
        self.pbx.wait_until_idle()

    def die(self) -> float:
        """Asterisk is killed; returns when that was, in seconds of time.time()."""
        self.pbx.asterisk.kill()
        killed_at = time.time()
        self._died = self._recording()
        for call in self.pbx.asterisk.folder.glob("spool/outgoing/*"):
            call.unlink()  # or Asterisk would place that call again
        return killed_at

    def channels(self) -> int:
        return int(self.pbx.asterisk.rx("core show channels count", 60).split()[0])

    def went_on(self) -> list[WentOn]:
        found = WENT_ON.findall(self.pbx.asterisk.log())
        return [
            WentOn(f"tag-{extension}", agi, recording, float(after), float(after) - float(before))
            for extension, agi, before, after, recording in found
        ]

    def _recording(self) -> int:
        log = self.pbx.asterisk.log()
        return log.count("Begin MixMonitor Recording") - log.count("End MixMonitor Recording")


@contextmanager
def phones(folder: Path, install: Callable[[Site], Path] | None = None) -> Iterator[Phones]:
    """A private Asterisk 22; `install` puts other programs into a folder for it."""
    site = Site(folder / "site")
    programs = install(site) if install else site.agi_directory
    extensions = EXTENSIONS.format(key=site.key)
    with PrivateAsterisk(
        asterisk.find(22), folder / "asterisk", extensions, {}, site.environment, programs
    ) as running:
        yield Phones(Pbx(running, site))


# --- what is broken ---

Plan = Sequence[tuple[str, str]]
Wave = Callable[[Phones, Plan], None]


@dataclass(frozen=True)
class Kills:
    """How many are to be met."""

    by_clock: int
    by_line: int


@dataclass(frozen=True)
class Killed:
    """What kills of one of our programs have left behind."""

    site: Site
    calls: int
    went_on: Sequence[WentOn]
    by_clock: Sequence[str]
    by_line: Sequence[str]

    @property
    def kills(self) -> int:
        return len(self.by_clock) + len(self.by_line)

    def told(self) -> str:
        by_clock = ", ".join(f"{count} x {who}" for who, count in sorted(Counter(self.by_clock).items()))
        lines = len(set(self.by_line))
        return (
            f"{self.kills} kills (by the clock: {by_clock}; at {lines} different lines), {self.calls} calls"
        )


@dataclass(frozen=True)
class Died:
    """Calls whose Asterisk was killed: their tags, and how much they had been given to record."""

    phones: Phones
    seconds_given: dict[str, float]
    young: Sequence[str]


@dataclass(frozen=True)
class Aftermath:
    starts: Killed
    ends: Killed
    asterisk: Died


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory, is_long: bool) -> Iterator[Aftermath]:
    folder = tmp_path_factory.mktemp("kills")
    kills = Kills(by_clock=120, by_line=200) if is_long else Kills(by_clock=3, by_line=6)
    with ExitStack() as stack:
        starts = killed_starts(folder / "starts", kills)
        ends = killed_ends(folder / "ends", kills)
        those = stack.enter_context(phones(folder / "asterisk"))
        yield Aftermath(starts, ends, dead_asterisk(those, rounds=10 if is_long else 1))


def killed_starts(folder: Path, kills: Kills) -> Killed:
    """start_record.py is killed; the call stays until all that was started has come to its end."""
    (folder / "programs").mkdir(parents=True)
    stand_in = folder / "programs/start_record.py"
    killers = []

    def install(site: Site) -> Path:
        killers.append(Killer(stand_in, site.agi_directory / stand_in.name))
        return stand_in.parent

    def one_wave(those: Phones, plan: Plan) -> None:
        for kind, what in plan:
            killers[0].plan(kind, what)
        those.call(len(plan))
        those.pbx.wait_until_idle()
        assert those.channels() == 2 * len(plan)
        those.hang_up()

    with phones(folder, install) as those:
        return _kill(those, killers[0], one_wave, kills)


def killed_ends(folder: Path, kills: Kills) -> Killed:
    """finish_record.py is killed: start_record.py takes it from its own folder."""
    (folder / "programs").mkdir(parents=True)
    shutil.copy(PROGRAMS / "start_record.py", folder / "programs")
    killer = Killer(folder / "programs/finish_record.py", PROGRAMS / "finish_record.py")

    def one_wave(those: Phones, plan: Plan) -> None:
        those.call(len(plan))
        those.pbx.wait_until_idle()
        for kind, what in plan:
            killer.plan(kind, what)
        those.hang_up()

    with phones(folder, lambda site: folder / "programs") as those:
        return _kill(those, killer, one_wave, kills)


def _kill(those: Phones, killer: Killer, one_wave: Wave, kills: Kills) -> Killed:
    """Watch undisturbed programs first; then kill by the clock, and at so many lines."""
    one_wave(those, [("watch", "")] * AT_ONCE + [("trace", "")])
    lines = [("line", place) for place in some_lines(killer.met("trace")[0], kills.by_line)]
    for first in range(0, len(lines), AT_ONCE):
        one_wave(those, lines[first : first + AT_ONCE])
    tries, by_clock = 0, kills.by_clock + len(lines) - len(killer.met("line"))  # a drain may pass a line by
    while len(killer.met("time")) < by_clock:
        assert tries < 5 * by_clock, f"only {killer.met('time')} of {tries} were there to be killed"
        watched = killer.met("watch")[-AT_ONCE:]
        moments = [("time", moment(number, watched)) for number in range(tries, tries + AT_ONCE - 1)]
        one_wave(those, [("watch", ""), *moments])
        tries += len(moments)
    assert killer.is_done()
    return Killed(those.pbx.site, those.calls, those.went_on(), killer.met("time"), killer.met("line"))


def moment(number: int, watched: Sequence[str]) -> str:
    """Evenly spread, however many there are: until 1.5 x what the program takes, or its fork's end."""
    share = number * GOLDEN_RATIO % 1
    program, everything = (
        statistics.median(float(line.split()[column]) for line in watched) for column in (0, 1)
    )
    return f"{share * everything:.4f} all" if number % 2 else f"{share * 1.5 * program:.4f} program"


def some_lines(trace: str, count: int) -> list[str]:
    """Evenly spread over all lines of our functions that run, in the program and in its fork."""
    places = list(dict.fromkeys(trace.splitlines()))
    count = min(count, len(places))
    return [places[len(places) * number // count] for number in range(count)]


def dead_asterisk(those: Phones, rounds: int) -> Died:
    """Asterisk is killed with some calls, again and again; at last with some that have just begun."""
    given: dict[str, float] = {}
    for number in range(rounds):
        calls = those.call(AT_ONCE)
        age = 3.1 + 3 * (number * GOLDEN_RATIO % 1)
        wait_until(lambda: time.time() >= calls[-1].at + age, 60, f"calls of {age:.1f} s")  # noqa: B023
        given.update(_die(those, calls))
        those.pbx.asterisk.start()
    young: list[str] = []
    while not young:  # on a busy machine they may have grown old before the last of them goes on
        died = _die(those, those.call(3))
        given.update(died)
        young = [tag for tag, seconds in died.items() if seconds < YOUNG_SECONDS]
        if not young:
            those.pbx.asterisk.start()
    return Died(those, given, young)


def _die(those: Phones, calls: Sequence[WentOn]) -> dict[str, float]:
    """Kill Asterisk; returns for each call how many seconds of tone it had by then."""
    killed_at = those.die()
    return {call.tag: killed_at - call.at for call in calls}


# --- what has become of it ---


def test_a_start_that_is_killed_anywhere_loses_no_audio_and_no_call(
    aftermath: Aftermath, is_long: bool, tell: Callable[[str], None]
) -> None:
    starts = aftermath.starts
    assert starts.kills >= (200 if is_long else 9)
    assert len(starts.went_on) == starts.calls

    audit.sync_until_all_is_closed(starts.site)

    legs = {leg["tag"]: leg for leg in audit.assert_nothing_is_lost_or_twice(starts.site)}
    promised = [call.tag for call in starts.went_on if call.recording_status == "200"]
    assert {legs[tag]["status"] for tag in promised} <= {"completed", "empty"}
    failures = sum(call.agi_status == "FAILURE" for call in starts.went_on)
    states = Counter(leg["status"] for leg in legs.values())
    files = len(starts.site.audio_files())
    tell(
        f"kill -9 of start_record: {starts.told()}, all went on, {failures} with"
        f" AGISTATUS FAILURE; {files} files, legs: {dict(states)}; 0 lost, 0 twice"
    )


def test_a_crowd_of_calls_at_once_is_recorded_call_by_call(
    tmp_path: Path, is_long: bool, tell: Callable[[str], None]
) -> None:
    count = 200 if is_long else 20
    with phones(tmp_path) as those:
        site = those.pbx.site
        begun = time.monotonic()
        calls = those.call(count)
        seconds = time.monotonic() - begun
        assert Counter(call.recording_status for call in calls) == {"200": count}
        assert len(site.audio_files()) == count
        site.wait_for_legs(count=count, status="recording")
        wait_until(lambda: all(map(has_audio, site.audio_files())), 20, "audio of each call")
        assert those.channels() == 2 * count
        those.hang_up()
        audit.sync_until_all_is_closed(site)

    legs = audit.assert_nothing_is_lost_or_twice(site)
    assert Counter(leg["status"] for leg in legs) == {"completed": count}
    assert sorted(leg["tag"] for leg in legs) == sorted(call.tag for call in calls)
    assert max(leg["started_at"] for leg in legs) < min(leg["ended_at"] for leg in legs)
    held = sorted(call.held for call in calls)
    tell(
        f"{count} calls at once: {len(legs)} legs, all completed; all recorded after {seconds:.1f} s,"
        f" held {statistics.median(held):.1f} s in the median, {held[-1]:.1f} s at most"
    )


def test_an_end_that_is_killed_anywhere_is_made_good(
    aftermath: Aftermath, is_long: bool, tell: Callable[[str], None]
) -> None:
    ends = aftermath.ends
    assert ends.kills >= (200 if is_long else 9)

    audit.sync_until_all_is_closed(ends.site)

    legs = audit.assert_nothing_is_lost_or_twice(ends.site)
    states = Counter(leg["status"] for leg in legs)
    assert len(legs) == len(ends.site.audio_files()) == ends.calls
    assert set(states) <= {"completed", "empty"}
    tell(f"kill -9 of finish_record: {ends.told()}; legs: {dict(states)}; 0 lost, 0 twice")


def test_an_asterisk_that_dies_leaves_files_that_play_and_legs_that_say_so(
    aftermath: Aftermath, tell: Callable[[str], None]
) -> None:
    site, given = aftermath.asterisk.phones.pbx.site, aftermath.asterisk.seconds_given

    audit.sync_until_all_is_closed(site)

    legs = {leg["tag"]: leg for leg in audit.assert_nothing_is_lost_or_twice(site)}
    assert set(legs) == set(given)
    assert all(call["ended_at"] for call in call_records(site))
    young = [legs.pop(tag) for tag in aftermath.asterisk.young]
    assert {(leg["status"], leg["bytes"]) for leg in young} == {("interrupted", audit.WITHOUT_AUDIO_BYTES)}
    assert {leg["status"] for leg in legs.values()} == {"interrupted"}
    lost = [given[tag] - leg["duration_seconds"] for tag, leg in legs.items()]
    assert all(leg["bytes"] % BUFFER_BYTES == audit.WITHOUT_AUDIO_BYTES for leg in legs.values())
    tell(
        f"kill -9 of Asterisk: {len(legs)} calls, {len(legs)} files that play to the last frame and lack the"
        f" {min(lost):.2f} to {max(lost):.2f} s that Asterisk had not written yet; {len(young)} more calls in"
        " their first 2 s, all of which it had not written"
    )


def test_after_a_restart_the_next_call_is_recorded_and_the_old_legs_stay(aftermath: Aftermath) -> None:
    those = aftermath.asterisk.phones
    site = those.pbx.site
    audit.sync_until_all_is_closed(site)
    before = site.legs()
    those.pbx.asterisk.start()

    (call,) = those.call(1)
    those.hang_up()

    def ended() -> list[dict[str, Any]]:
        """A call that is hung up at once may have brought no audio."""
        return [leg for leg in site.legs("--tag", call.tag) if leg["status"] in ("completed", "empty")]

    (leg,) = wait_until(ended, 20, f"the end of leg {call.tag}")
    assert [other for other in site.legs() if other != leg] == before


def has_audio(file: Path) -> bool:
    return file.stat().st_size > audit.WITHOUT_AUDIO_BYTES


def call_records(site: Site) -> list[dict[str, Any]]:
    with Store(site.database_url).reading() as connection:
        return [dict(row._mapping) for row in connection.execute(select(call_record))]
