"""start_record.py and finish_record.py with a server, without one, and with one that is ill or dies."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from lab import installation, processes
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until
from unit.fakes import FakeAsterisk

from integration import patience, stand_ins
from integration.piped import Piped
from noojee_agi.database.store import Store
from noojee_agi.database.tables import recording_leg
from noojee_agi.recordings import files, journal, spool
from noojee_agi.session import handoff

MOST_SECONDS = 0.05
Illness = Callable[[Path], AbstractContextManager[None]]
ILLNESSES: list[Illness] = [
    *(stand_ins.absent, stand_ins.stale, stand_ins.full, stand_ins.lets_nobody_in),
    *(stand_ins.says_nothing, stand_ins.hangs_up_at_once, stand_ins.says_something_else),
    *(stand_ins.takes_and_dies, stand_ins.dies_after_go),
]


def name_of(illness: Illness) -> str:
    return str(getattr(illness, "__name__", ""))


# All commands are needed: SET VARIABLE for what MSet would act on, and VERBOSE.
WORDS = ("", "INV-22", "Nemo")
_numbers = itertools.count(1)


class Calls:
    """Calls of one site, each on a channel of its own.

    is_patient: their programs wait for the server's word much longer than they do elsewhere.
    """

    def __init__(self, site: Site, is_patient: bool = False) -> None:
        self.site = site
        self.program = site.agi_directory / "start_record.py"
        self.patience = patience.environment(site.folder / "patience") if is_patient else {}
        self.environment = {**site.environment, **self.patience}

    def channel(self) -> FakeAsterisk:
        asterisk = FakeAsterisk(apiKey=self.site.key)
        asterisk.environment["agi_uniqueid"] = f"1762420501.{next(_numbers)}"
        return asterisk

    def program_of(
        self, asterisk: FakeAsterisk, *words: str | bytes, environment: dict[str, str] | None = None
    ) -> Piped:
        """AGI(start_record.py,words) on this channel."""
        environment = {**self.environment, **(environment or {})}
        return Piped(asterisk, [str(self.program), *words], environment)

    def record(
        self, asterisk: FakeAsterisk, *words: str | bytes, environment: dict[str, str] | None = None
    ) -> float:
        """The same from start to end, which must be right; returns how many seconds it took."""
        with self.program_of(asterisk, *words, environment=environment) as program:
            seconds = program.run()
        assert program.stderr == ""
        assert_recording(asterisk)
        return seconds

    def leg(self, asterisk: FakeAsterisk) -> dict[str, Any]:
        """The row of what the dialplan was told of, once it is there."""
        leg_id = asterisk.answers()["RECORDING_ID"]

        def row() -> dict[str, Any] | None:
            with Store(self.site.database_url).reading() as connection:
                found = connection.execute(recording_leg.select().where(recording_leg.c.id == leg_id)).first()
            return dict(found._mapping) if found else None

        return wait_until(row, 20, f"leg {leg_id} in the database")

    def process_of(self, asterisk: FakeAsterisk) -> int:
        """Who has served it, by the log."""
        line = rf"^\S+ \S+ \w+ (\d+) start_record 200 .*leg {asterisk.answers()['RECORDING_ID']}"

        def found() -> re.Match[str] | None:
            return re.search(line, self.site.log(), re.MULTILINE)

        return int(wait_until(found, 10, "the line in the log")[1])

    def hang_up(self, asterisk: FakeAsterisk) -> None:
        """Every MixMonitor that runs ends, and runs its command."""
        for mixmonitor in asterisk.mixmonitors:
            mixmonitor.end()
            if mixmonitor.command:
                command = shlex.split(mixmonitor.command)
                subprocess.run(command, env=self.patience, check=True, timeout=60)


def assert_recording(asterisk: FakeAsterisk) -> None:
    """Status 200, nothing was done wrong, and one MixMonitor runs: that of which the dialplan knows."""
    asterisk.check()
    answers = asterisk.answers()
    assert answers["RECORDING_STATUS"] == "200", (answers, asterisk.lines)
    assert asterisk.running() == [answers["RECORDING_FILE"]], asterisk.lines


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("handoff") / "site")


@pytest.fixture(scope="module")
def served_of_module(site: Site) -> Iterator[Served]:
    with Served(site, {"server.threads": "1"}) as served:
        yield served


@pytest.fixture
def served(served_of_module: Served) -> Served:
    """One worker, which runs one session at a time."""
    served_of_module.configure()
    assert wait_until(served_of_module.workers, 10, "the worker to be started again")
    served_of_module.status()
    wait_until(lambda: not served_of_module.site.processes(), 20, "the last test's drain to end")
    return served_of_module


@pytest.fixture
def calls(site: Site) -> Calls:
    return Calls(site)


@pytest.fixture
def patient(site: Site) -> Calls:
    """For what the server must do itself, however busy the machine is."""
    return Calls(site, is_patient=True)


# --- a server that is well ---


def test_the_server_does_the_work_and_the_program_starts_no_drain(served: Served, patient: Calls) -> None:
    asterisk = patient.channel()

    patient.record(asterisk, *WORDS)

    assert patient.site.processes() == []
    assert patient.process_of(asterisk) in served.workers()
    assert patient.leg(asterisk)["tag"] == "INV-22"


def test_without_a_server_the_program_does_the_work_and_starts_the_drain(
    calls: Calls, tmp_path: Path
) -> None:
    calls = Calls(Site(tmp_path / "site"))
    asterisk = calls.channel()

    calls.record(asterisk, *WORDS)

    assert calls.leg(asterisk)["tag"] == "INV-22"
    wait_until(lambda: not calls.site.processes(), 20, "the drain to end")
    assert calls.site.log().count(" drained: ") == 1


def test_the_dialplan_and_the_database_are_told_the_same_either_way(served: Served, calls: Calls) -> None:
    seen = []
    for environment in ({}, {"NOOJEE_AGI_CONF": str(without_server(calls.site))}):
        asterisk = calls.channel()
        calls.record(asterisk, *WORDS, environment=environment)
        told = {name: asterisk.answers()[name] for name in ("RECORDING_STATUS", "RECORDING_MESSAGE")}
        row = {name: value for name, value in calls.leg(asterisk).items() if name not in OF_THIS_CALL}
        seen.append((told, asterisk.console, row))

    assert seen[0] == seen[1]


OF_THIS_CALL = {"id", "call_record_id", "leg", "uniqueid", "file", "started_at"}


def without_server(site: Site) -> Path:
    """The same site's configuration, with a socket where nobody listens."""
    conf = site.folder / "without_server.conf"
    conf.write_text(re.sub(r"(?m)^listen = .*", f"socket = {site.folder}/none", site.conf.read_text()))
    return conf


def test_a_server_with_another_configuration_does_nothing_for_this_one(
    served: Served, patient: Calls
) -> None:
    """It would record with the other's options, into the other's folder. So with the leg's end."""
    conf = patient.site.folder / "another.conf"
    text = re.sub(r"(?m)^socket = .*", "", patient.site.conf.read_text())
    conf.write_text(text.replace("[server]", f"[server]\nsocket = {served.socket}"))
    asterisk, before = patient.channel(), served.status()["sessions"]

    patient.record(asterisk, *WORDS, environment={"NOOJEE_AGI_CONF": str(conf)})
    wait_until(lambda: not patient.site.processes(), 20, "the program's drain to end")
    patient.hang_up(asterisk)

    assert f"start_record does its work itself: its configuration is {str(conf)!r}" in patient.site.log()
    assert f"finish_record does its work itself: its configuration is {str(conf)!r}" in patient.site.log()
    assert patient.process_of(asterisk) not in served.workers()
    assert served.status()["sessions"] == before
    wait_until(lambda: patient.leg(asterisk)["status"] == "empty", 20, "the leg's end")
    wait_until(lambda: not patient.site.processes(), 20, "the drain to end")


@pytest.mark.parametrize("leg_id", ["x", "../../../../x", "0e5f6b1c-6a57-4a6e-8f5e-0123456789AB"])
def test_the_end_of_what_is_no_leg_of_ours_makes_no_file(served: Served, patient: Calls, leg_id: str) -> None:
    """Neither the server's nor the program's own: the id would be part of its name."""
    site = patient.site
    wait_until((site.state_directory / "tending.lock").exists, 20, "the server's first drain")
    before = lasting_files(site)
    log = len(site.log())
    file = site.recordings_directory / "2026/11/27/x.wav"
    program = Path(sys.executable).parent / "finish_record.py"

    words = [str(program), str(site.conf), leg_id, str(file)]
    subprocess.run(words, check=True, env=patient.patience, timeout=60)

    wait_until(lambda: not site.processes(), 20, "the drain to end")
    said = site.log()[log:]
    assert "what came to the socket is none of ours: it was sent away" in said
    assert "is no leg's id: start_record.py writes this command" in said
    assert lasting_files(site) == before


def lasting_files(site: Site) -> list[Path]:
    """Without those that are there only while SQLite or the server is at work, which closes earlier legs."""
    begins, ends = ("noojee.db-", f"{journal.NAME}."), files.HALF_WRITTEN
    paths = sorted(site.folder.rglob("*"))
    return [path for path in paths if not path.name.startswith(begins) and not path.name.endswith(ends)]


@pytest.mark.parametrize("words", [(b"", b"caf\xe9 \xff"), (b"", "Grüße, ☎".encode())])
@pytest.mark.parametrize("language", ["C", "POSIX", "C.UTF-8"])
def test_arguments_of_any_bytes_arrive_in_any_locale(
    served: Served, patient: Calls, words: tuple[bytes, ...], language: str
) -> None:
    locale = {"LC_ALL": language, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    asterisk = patient.channel()

    patient.record(asterisk, *words, environment=locale)

    assert patient.process_of(asterisk) in served.workers()
    assert patient.leg(asterisk)["tag"] == words[1].decode("utf-8", "replace")


def test_a_caller_s_name_in_another_encoding_arrives(served: Served, patient: Calls) -> None:
    asterisk = patient.channel()
    asterisk.environment["agi_calleridname"] = "J\udcf6rg"

    patient.record(asterisk)

    assert patient.process_of(asterisk) in served.workers()
    assert patient.leg(asterisk)["channel"] == asterisk.environment["agi_channel"]


def test_what_is_too_much_for_one_message_goes_the_plain_way(served: Served, calls: Calls) -> None:
    asterisk = calls.channel()

    calls.record(asterisk, "", "x" * 200, *[""] * 70_000)

    assert calls.process_of(asterisk) not in served.workers()


def test_a_wrong_key_is_refused_by_the_server_too(served: Served, patient: Calls) -> None:
    asterisk = patient.channel()
    asterisk.variables["apiKey"] = "wrong"

    with patient.program_of(asterisk) as program:
        program.run()

    asterisk.check()
    assert (asterisk.answers()["RECORDING_STATUS"], asterisk.mixmonitors) == ("401", [])
    assert patient.site.processes() == []


# --- a server that is ill ---


@pytest.mark.parametrize("illness", ILLNESSES, ids=name_of)
def test_a_server_that_is_ill_costs_no_recording(calls: Calls, tmp_path: Path, illness: Illness) -> None:
    """Neither the start nor the end of the leg, which is noted once."""
    calls = Calls(Site(tmp_path / "site"))
    asterisk = calls.channel()

    with illness(calls.site.state_directory / "agi.sock"):
        calls.record(asterisk, *WORDS)
        calls.hang_up(asterisk)

    (leg,) = calls.site.wait_for_legs(status="empty")
    assert (leg["id"], leg["tag"]) == (asterisk.answers()["RECORDING_ID"], "INV-22")
    assert (leg["source"], leg["destination"]) == ("0301234567", "800")
    wait_until(lambda: not calls.site.processes(), 20, "the drain to end")


def test_a_stopped_server_costs_no_recording_and_does_nothing_when_it_goes_on(
    served: Served, calls: Calls, patient: Calls
) -> None:
    asterisk = calls.channel()
    everybody = processes.members(served.pid)
    processes.send(signal.SIGSTOP, everybody)
    try:
        calls.record(asterisk, *WORDS)
    finally:
        processes.send(signal.SIGCONT, everybody)

    after = patient.channel()
    patient.record(after, *WORDS)
    assert calls.process_of(asterisk) not in served.workers()
    assert calls.process_of(after) in served.workers()
    assert_recording(asterisk)
    assert len(asterisk.mixmonitors) == 1


@pytest.mark.alone
@pytest.mark.parametrize("illness", [stand_ins.says_nothing, stand_ins.full], ids=name_of)
def test_the_caller_notices_a_silent_server_for_50_ms_at_most(
    tmp_path: Path, illness: Illness, is_long: bool, tell: Callable[[str], None]
) -> None:
    """The best of several tries, and of more while it is not good: the machine does other things too.

    No drain is one of them.
    """
    assert handoff.PATIENCE_SECONDS <= MOST_SECONDS
    calls = Calls(Site(tmp_path / "site"))
    taken: dict[Illness, list[float]] = {stand_ins.absent: [], illness: []}
    lock = spool.take_lock(str(calls.site.recordings_directory / ".spool"))
    assert lock is not None

    def beside() -> float:
        return min(taken[illness]) - min(taken[stand_ins.absent])

    fewest, most = (200, 200) if is_long else (5, 60)
    for number in range(most):
        for each in sorted(taken, key=name_of, reverse=bool(number % 2)):
            with each(calls.site.state_directory / "agi.sock"):
                taken[each].append(calls.record(calls.channel()))
            wait_until(lambda: not calls.site.processes(), 20, "the program's child to end")
        if number + 1 >= fewest and beside() < 1.2 * MOST_SECONDS:
            break
    os.close(lock)

    without = min(taken[stand_ins.absent])
    tell(f"{name_of(illness)}: {1000 * beside():.0f} ms beside {1000 * without:.0f} without a server")
    assert beside() < 1.2 * MOST_SECONDS


def test_when_patience_ends_as_the_server_begins_the_call_is_recorded_once(
    served: Served, calls: Calls, is_long: bool, tell: Callable[[str], None]
) -> None:
    count = 200 if is_long else 12
    front = calls.site.folder / "front.sock"
    served.configure({"server.socket": str(front)})  # for the programs: the server is not told
    shares = [0.7 + 0.6 * number / count for number in range(count)]
    delay = 0.0

    def is_by_server(share: float) -> bool:
        nonlocal delay
        delay = share * handoff.PATIENCE_SECONDS
        asterisk = calls.channel()
        calls.record(asterisk)
        assert len(asterisk.mixmonitors) == 1, asterisk.lines
        return calls.process_of(asterisk) in served.workers()

    with stand_ins.slow(front, served.socket, lambda: delay):
        assert any(is_by_server(0.0) for _ in range(10)), "a busy machine misses some, but not all"
        by_server = [is_by_server(share) for share in shares]
        assert not is_by_server(10.0), "by then the server has given up, too, however late the program is"

    tell(f"{len(shares)} calls whose server is just in time, or not: {sum(by_server)} served by it, 0 twice")


# --- a server that dies ---

AT_ONCE = "its reply is not read any more"
LATER = "its reply has been read"


def commands_of(calls: Calls, asterisk: FakeAsterisk) -> int:
    calls.record(asterisk, *WORDS)
    return asterisk.count


@pytest.mark.parametrize("moment", [AT_ONCE, LATER])
@pytest.mark.parametrize("is_second", [False, True], ids=["first start", "second start"])
def test_a_worker_killed_after_any_command_costs_nothing(
    served: Served, calls: Calls, moment: str, is_second: bool, is_long: bool
) -> None:
    """In the short form a second start has one of the two moments at each command."""
    others = {leg["id"] for leg in calls.site.legs()}
    asterisk = calls.channel()
    if is_second:
        calls.record(asterisk, *WORDS)
    commands = commands_of(calls, asterisk)
    all_files = {mixmonitor.file for mixmonitor in asterisk.mixmonitors}
    calls.hang_up(asterisk)

    step = 2 if is_second and not is_long else 1
    for number in range(1 if moment == AT_ONCE else step, commands + 1, step):
        asterisk = calls.channel()
        if is_second:
            calls.record(asterisk, *WORDS)
        record_with_a_kill(served, calls, asterisk, number, moment)
        all_files |= {mixmonitor.file for mixmonitor in asterisk.mixmonitors}
        calls.hang_up(asterisk)

    assert_all_in_database(calls.site, all_files, others)


def record_with_a_kill(
    served: Served, calls: Calls, asterisk: FakeAsterisk, number: int, moment: str
) -> None:
    """The worker is killed at this command, and the program goes on alone."""
    (worker,) = wait_until(served.workers, 10, "the worker")
    served.status()
    with calls.program_of(asterisk, *WORDS) as program:

        def kill(at: int) -> None:
            if at == number:
                if moment == LATER:
                    program.wait_until_read()
                os.kill(worker, signal.SIGKILL)

        if moment == AT_ONCE:
            program.before_reply = kill
        else:
            program.after_reply = kill
        program.run()
    assert (number, program.stderr) == (number, "")
    assert_recording(asterisk)
    if moment == AT_ONCE:  # later than its last reply the worker may be done
        assert calls.process_of(asterisk) != worker


def assert_all_in_database(site: Site, files: set[str], others: set[str]) -> None:
    """Each of these files has its leg, which has ended; no further leg, but for these others, has a file."""

    def stored() -> set[str]:
        return {leg["file"] for leg in site.legs() if leg["status"] == "empty"}

    wait_until(lambda: files <= stored(), 30, f"the legs of {sorted(files)}")
    further = [leg for leg in site.legs() if leg["status"] != "empty" and leg["id"] not in others]
    assert [leg for leg in further if Path(leg["file"]).exists()] == []


def test_a_worker_that_dies_before_its_first_command_costs_nothing(served: Served, calls: Calls) -> None:
    """Nothing was read, nothing said: Asterisk's environment is with the program."""
    asterisk = calls.channel()
    (worker,) = served.workers()
    with calls.program_of(asterisk, *WORDS) as program:
        os.kill(worker, signal.SIGSTOP)
        processes.send(signal.SIGKILL, [worker])
        program.run()

    assert_recording(asterisk)
    assert calls.leg(asterisk)["channel"] == asterisk.environment["agi_channel"]


# --- whose socket it is ---


def test_the_socket_is_open_to_its_user_alone(served: Served) -> None:
    assert served.socket.stat().st_mode & 0o7777 == 0o600


@pytest.fixture(scope="module")
def programs_for_all() -> Iterator[Path]:
    """Where our commands are installed so that every user can run them."""
    if os.geteuid() != 0:
        pytest.skip("only root can start programs as other users: run this test as root")
    with tempfile.TemporaryDirectory(prefix="noojee-agi-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield installation.copy_to(Path(folder) / "venv")


@pytest.fixture(scope="module")
def shared_by_nobody(programs_for_all: Path) -> Iterator[Served]:
    """See `served_by_nobody`."""
    folder = Path(tempfile.mkdtemp(prefix="noojee-agi-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        site = Site(folder / "site", programs=programs_for_all)
        site.agi_directory.chmod(0o755)
        nobody = pwd.getpwnam("nobody")
        for root in (site.conf, site.recordings_directory, site.state_directory):
            for path in [root, *root.rglob("*")]:
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        with Served(site) as served:
            site.conf.chmod(0o644)
            yield served
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def served_by_nobody(shared_by_nobody: Served) -> Iterator[Served]:
    """A server of another user than root, as Asterisk's is, whose files everybody can get at."""
    site = shared_by_nobody.site
    opened = {path: path.stat().st_mode for path in (site.recordings_directory, site.state_directory)}
    yield shared_by_nobody
    for path, mode in opened.items():
        path.chmod(mode)
    shared_by_nobody.socket.chmod(0o600)


def run_as(user: str, calls: Calls, asterisk: FakeAsterisk) -> None:
    account = pwd.getpwnam(user)
    words = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    with Piped(asterisk, [*words, str(calls.program), *WORDS], calls.environment) as program:
        program.run()
    asterisk.check()
    assert program.stderr == ""


def test_the_server_s_own_user_is_served(served_by_nobody: Served) -> None:
    calls = Calls(served_by_nobody.site, is_patient=True)
    asterisk = calls.channel()

    run_as("nobody", calls, asterisk)

    assert_recording(asterisk)
    assert calls.process_of(asterisk) in served_by_nobody.workers()


def test_root_hands_nothing_to_another_user_s_server(served_by_nobody: Served) -> None:
    """Its call goes the plain way."""
    calls = Calls(served_by_nobody.site)
    asterisk, before = calls.channel(), served_by_nobody.status()["sessions"]

    run_as("root", calls, asterisk)

    assert_recording(asterisk)
    assert served_by_nobody.status()["sessions"] == before
    wait_until(lambda: not calls.site.processes(), 20, "the drain to end")


@pytest.mark.parametrize("is_open", [False, True], ids=["socket 0600", "socket and folders opened to all"])
def test_another_user_hands_over_nothing(served_by_nobody: Served, is_open: bool) -> None:
    """Its call goes the plain way, and that can use nothing here."""
    site = served_by_nobody.site
    site.recordings_directory.chmod(0o755)
    site.state_directory.chmod(0o755)
    if is_open:
        served_by_nobody.socket.chmod(0o666)
    calls = Calls(site)
    asterisk, before = calls.channel(), served_by_nobody.status()["sessions"]

    run_as("daemon", calls, asterisk)

    assert asterisk.mixmonitors == []
    assert asterisk.answers()["RECORDING_STATUS"] in ("401", "503")
    assert served_by_nobody.status()["sessions"] == before


ASK = """
import socket, sys
from noojee_agi.session import handoff
server = socket.socket(socket.AF_UNIX)
server.settimeout(10)
server.connect(sys.argv[1])
server.sendall(handoff.framed(handoff.STATUS))
print(server.recv(100))
"""


@pytest.mark.parametrize(("user", "is_answered"), [("nobody", True), ("root", True), ("daemon", False)])
def test_the_server_answers_its_own_user_and_root_alone(
    served_by_nobody: Served, user: str, is_answered: bool
) -> None:
    served_by_nobody.site.state_directory.chmod(0o755)
    served_by_nobody.socket.chmod(0o666)
    account = pwd.getpwnam(user)

    done = subprocess.run(
        [served_by_nobody.site.programs / "python", "-c", ASK, str(served_by_nobody.socket)],
        cwd="/",
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )

    heard = done.stdout.strip() not in ("", "b''")
    assert heard == is_answered, done
    is_refused = "ConnectionReset" in done.stderr or "BrokenPipe" in done.stderr
    assert is_answered or "b''" in done.stdout or is_refused, done


# --- the end of a leg ---


def test_an_end_is_handed_over(served: Served, patient: Calls) -> None:
    asterisk = patient.channel()
    patient.record(asterisk, *WORDS)

    patient.hang_up(asterisk)

    assert patient.site.processes() == []
    wait_until(lambda: patient.leg(asterisk)["status"] == "empty", 20, "the leg's end")
