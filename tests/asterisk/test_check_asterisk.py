"""What `noojee-agi check` sees of a real Asterisk 22 and 16, which does not run as root.

Each fault is planted into the Asterisk that runs, and the cure is run as it is printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import asterisk, processes
from lab.asterisk import Installation, PrivateAsterisk
from lab.checked import KEY, USER, Checked
from lab.loaded_command import loaded
from lab.postgresql import free_port
from lab.site import PROGRAMS
from lab.waiting import wait_until

from noojee_agi.cli.check import call, running
from noojee_agi.cli.check.stage import FAILED, NOT_SEEN, NotSeen, Stage
from noojee_agi.cli.install import AGI_PROGRAMS
from noojee_agi.config import Config
from noojee_agi.database import queries, schema
from noojee_agi.database.store import Store
from noojee_agi.server.counters import Counters
from noojee_agi.web import gauges

EXTENSIONS = f"""\
[general]
clearglobalvars = yes
[globals]
apiKey = {KEY}
[inbound]
exten => 500,1,Answer()
 same => n,Queue(support,,,,60,"start_record.py,,INV-22")
 same => n,Hangup()
exten => stays,1,Answer()
 same => n,AGI(start_record.py,,check)
 same => n,Wait(600)
[phones]
exten => 410,1,Answer()
 same => n,Milliwatt()
"""
QUEUES = """\
[general]
[support]
strategy = ringall
setinterfacevar = yes
member => Local/410@phones/n
"""
MANAGER = """\
[general]
enabled = yes
bindaddr = 127.0.0.1
port = {port}
[noojee]
secret = hunter2-hunter2
read = call
write = system,call
"""

MODULES = ("app_mixmonitor.so", "func_env.so", "func_strings.so", "format_wav.so", "format_gsm.so")

Plant = Callable[["Pbx"], object]


class Pbx(Checked):
    """The same with an Asterisk of its own, whose files are kept and put back."""

    asterisk: PrivateAsterisk
    manager_port: int

    @property
    def etc(self) -> Path:
        return self.asterisk.folder / "etc"

    @property
    def agi_bin(self) -> Path:
        return self.folder / "agi-bin"

    def start(self, of: Installation) -> None:
        self.manager_port = free_port()
        files = {"queues.conf": QUEUES, "manager.conf": MANAGER.format(port=self.manager_port)}
        self.agi_bin.mkdir()
        self.link()
        environment = {"NOOJEE_AGI_CONF": str(self.conf)}
        self.asterisk = PrivateAsterisk(
            of, self.folder / "asterisk", EXTENSIONS, files, environment, self.agi_bin, user=USER
        )
        self.asterisk.start()
        self.asterisk_conf = self.etc / "asterisk.conf"
        words = " ".join(self.asterisk._command()[:-2])
        self.tool("asterisk", f'exec {words} "$@"')
        for path in (self.etc, self.agi_bin):
            self.give(path, "root")
        self.kept = {path: path.read_text() for path in self.etc.iterdir() if path.is_file()}

    def link(self) -> None:
        shutil.rmtree(self.agi_bin, ignore_errors=True)
        self.agi_bin.mkdir(mode=0o755)
        for name in AGI_PROGRAMS:
            (self.agi_bin / name).symlink_to(self.programs / name)

    def call(self) -> list[Stage]:
        """The stages of --call alone."""
        return list(call.stages(running.of(str(self.asterisk_conf), {}), Config.load(str(self.conf))))

    def put_back(self) -> None:
        """Everything as it was at first."""
        self.wait_until_idle()
        self.make_anew()
        self.link()
        loaded = self.asterisk.rx("module show")
        for module in MODULES:
            if module not in loaded:
                self.asterisk.rx(f"module load {module}")
        changed = [path for path, text in self.kept.items() if not path.exists() or path.read_text() != text]
        for path in changed:
            path.write_text(self.kept[path])
        if changed:
            for command in ("dialplan reload", "queue reload all", "manager reload"):
                self.asterisk.rx(command)

    def wait_until_idle(self) -> None:
        """Until no program of ours runs: a call's last drain would write into a folder that goes."""
        marks = (str(self.conf).encode(), str(self.agi_bin).encode())

        def ours() -> list[bytes]:
            return [words for _, words in processes.told("cmdline") if any(mark in words for mark in marks)]

        wait_until(lambda: not ours(), 60, "our programs to end", ours)

    def edit(self, name: str, before: str, after: str, reload: str) -> None:
        path = self.etc / name
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))
        self.asterisk.rx(reload)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    schema.upgrade(Store(f"sqlite:///{file}"))
    return file


@pytest.fixture(scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
def pbx_of_module(request: pytest.FixtureRequest, template: Path) -> Iterator[Pbx]:
    folder = Path(tempfile.mkdtemp(prefix="noojee-agi-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        found = Pbx(folder, PROGRAMS, template)
        found.start(asterisk.for_everybody(request.param, folder / "root"))
        yield found
        found.wait_until_idle()
        found.asterisk.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def pbx(pbx_of_module: Pbx) -> Pbx:
    pbx_of_module.put_back()
    return pbx_of_module


def cured(pbx: Pbx, plant: Plant, stage: str, words: str, is_real: bool = False) -> Stage:
    """Plant it, see what check says, do what it says, and see that all is well."""
    plant(pbx)
    failed = pbx.failed(is_real)
    assert set(failed) == {stage}, failed
    said = failed[stage]
    assert words in said.text
    assert said.text.endswith(said.cure)
    assert "\n" not in said.text
    assert KEY not in str(failed)
    assert "hunter2" not in str(failed)
    pbx.cure(said.cure)
    assert pbx.failed(is_real) == {}
    return said


def _edited(name: str, before: str, after: str, reload: str) -> Plant:
    return lambda pbx: pbx.edit(name, before, after, reload)


def _unloaded(module: str) -> Plant:
    return lambda pbx: pbx.asterisk.rx(f"module unload {module}.so")


def _not_at_the_next_start_either(pbx: Pbx) -> None:
    pbx.edit("modules.conf", "[modules]\n", "[modules]\nnoload => app_mixmonitor.so\n", "core show version")
    pbx.asterisk.rx("module unload app_mixmonitor.so")


def _no_links(pbx: Pbx) -> None:
    for path in pbx.agi_bin.iterdir():
        path.unlink()


def _no_folder(pbx: Pbx) -> None:
    shutil.rmtree(pbx.agi_bin)


def _dangling(pbx: Pbx) -> None:
    link = pbx.agi_bin / "stop_record.py"
    link.unlink()
    link.symlink_to(pbx.folder / "venv-that-was/bin/stop_record.py")


def _copied(pbx: Pbx) -> None:
    link = pbx.agi_bin / "start_record.py"
    link.unlink()
    shutil.copy(pbx.programs / "start_record.py", link)


def _of_another(pbx: Pbx) -> None:
    other = pbx.folder / "other.py"
    other.touch()
    link = pbx.agi_bin / "start_record.py"
    link.unlink()
    link.symlink_to(other)


def _closed_folder(pbx: Pbx) -> None:
    pbx.agi_bin.chmod(0o700)


def _another_key(pbx: Pbx) -> None:
    pbx.edit("extensions.conf", KEY, "another key of some length", "dialplan reload")


def _only_on_the_disk(pbx: Pbx) -> None:
    pbx.edit("extensions.conf", f"apiKey = {KEY}\n", "", "dialplan reload")
    path = pbx.etc / "extensions.conf"
    path.write_text(pbx.kept[path])


def _recordings_of_another(pbx: Pbx) -> None:
    pbx.give(pbx.recordings, "daemon")


def _unknown_format(pbx: Pbx) -> None:
    pbx.conf.write_text(pbx.conf.read_text().replace("min_free", "format = mp4\nmin_free"))


def _gsm(pbx: Pbx) -> None:
    pbx.conf.write_text(pbx.conf.read_text().replace("min_free", "format = gsm\nmin_free"))
    pbx.asterisk.rx("module unload format_gsm.so")


def _not_loaded(pbx: Pbx) -> None:
    pbx.edit("queues.conf", "[support]", "[other]", "queue reload all")
    (pbx.etc / "queues.conf").write_text(QUEUES)


def _manager(changes: str, before: str = "", after: str = "") -> Plant:
    """[manager] is configured, with these changes; and manager.conf is not as it should be."""

    def plant(pbx: Pbx) -> None:
        lines = {"port": str(pbx.manager_port), "username": "noojee", "secret": "hunter2-hunter2"}
        lines |= dict(change.split("=") for change in changes.split())
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        pbx.configure(f"[server]\nlisten =\n[manager]\n{text}")
        words = pbx.conf.read_text()
        pbx.conf.write_text(words.replace("[recordings]\n", "[recordings]\nfollow = yes\n", 1))
        pbx.conf.chmod(0o640)
        os.chown(pbx.conf, 0, pwd.getpwnam(USER).pw_gid)
        if before:
            pbx.edit("manager.conf", before, after, "manager reload")

    return plant


def _manager_disabled(pbx: Pbx) -> None:
    """From Asterisk's start on, as it is where nobody has ever enabled it.

    Where a reload has disabled it, the next one may cancel any thread, also its own: `asterisk -rx` waits for
    a minute then (main/tcptls.c ast_tcptls_server_start: `master` has been joined, and is not reset).
    """
    _manager("")(pbx)
    pbx.asterisk.stop()
    pbx.asterisk.start(
        {"manager.conf": pbx.kept[pbx.etc / "manager.conf"].replace("enabled = yes", "enabled = no")}
    )


EXTENSION, QUEUE, RELOAD_QUEUE = "extensions.conf", "queues.conf", "queue reload all"
FAULTS: dict[str, tuple[Plant, str, str]] = {
    "recordings of another": (_recordings_of_another, "recordings", "cannot be written by user nobody"),
    "no links": (_no_links, "links", "is not there, so Asterisk does not find it"),
    "no folder": (_no_folder, "links", "is not there"),
    "dangling link": (_dangling, "links", "leads to a program that is not there"),
    "copied script": (_copied, "links", "is a copy, and does not find what lies beside the program"),
    "link to another": (_of_another, "links", "leads to another noojee-agi"),
    "closed folder": (_closed_folder, "links", "cannot be entered by user nobody"),
    "no app_mixmonitor": (_unloaded("app_mixmonitor"), "modules", "app_mixmonitor.so is not loaded"),
    "no func_env": (_unloaded("func_env"), "modules", "func_env.so is not loaded"),
    "no func_strings": (_unloaded("func_strings"), "modules", "func_strings.so is not loaded"),
    "no format_wav": (_unloaded("format_wav"), "modules", "format_wav.so is not loaded, so"),
    "noload": (_not_at_the_next_start_either, "modules", "app_mixmonitor.so is not loaded"),
    "no format_gsm": (_gsm, "modules", "format_gsm.so is not loaded"),
    "unknown format": (_unknown_format, "modules", "format = mp4 is none that this Asterisk knows"),
    "another key": (_another_key, "key of calls", "is not this system's key, so calls answer 401"),
    "key in other letters": (
        _edited(EXTENSION, "apiKey =", "APIKEY =", "dialplan reload"),
        "key of calls",
        "the global is called APIKEY, and must be apiKey",
    ),
    "key only on the disk": (_only_on_the_disk, "key of calls", "and the dialplan that is loaded has not"),
    "no setinterfacevar": (
        _edited(QUEUE, "setinterfacevar = yes\n", "", RELOAD_QUEUE),
        "queues",
        "queue support does not tell which agent has answered",
    ),
    "setinterfacevar = no": (
        _edited(QUEUE, "setinterfacevar = yes", "setinterfacevar = no", RELOAD_QUEUE),
        "queues",
        "queue support does not tell which agent has answered",
    ),
    "monitor-format": (
        _edited(QUEUE, "setinter", "monitor-format = wav\nsetinter", RELOAD_QUEUE),
        "queues",
        "queue support records its calls itself, too",
    ),
    "queue that is not loaded": (
        _not_loaded,
        "queues",
        "queue support is not loaded",
    ),
    "MixMonitor beside it": (
        _edited(EXTENSION, "500,1,Answer()", "500,1,MixMonitor(a,b.wav)", "dialplan reload"),
        "recorders",
        "500@inbound has MixMonitor() beside start_record",
    ),
    "manager port": (_manager("port=1"), "manager", "see [manager], and manager.conf"),
    "manager user": (_manager("", "[noojee]", "[other]"), "manager", "refuses user noojee"),
    "manager rights": (_manager("", "write = system,call", "write = call"), "manager", "may not MixMonitor"),
    "manager events": (_manager("", "read = call", "read = log"), "manager", "hears of no transfer"),
    "manager disabled": (_manager_disabled, "manager", "see [manager], and"),
}  # fmt: skip


# Where the words of Asterisk's own answers matter. What 16 has disabled opens only when it is started again.
ASKED_OF_BOTH = (
    *("no app_mixmonitor", "no format_gsm", "another key", "queue that is not loaded"),
    *("MixMonitor beside it", "manager port", "manager user", "manager rights", "manager events"),
)


@pytest.mark.asterisk
@pytest.mark.parametrize(
    ("pbx_of_module", "fault"),
    [*((22, fault) for fault in FAULTS), *((16, fault) for fault in ASKED_OF_BOTH)],
    indirect=["pbx_of_module"],
    scope="module",  # or each fault would have an Asterisk started
)
def test_a_fault_is_named_and_its_cure_leads_to_green(pbx: Pbx, fault: str) -> None:
    cured(pbx, *FAULTS[fault])


@pytest.mark.asterisk
def test_a_line_for_fastagi_where_no_server_listens(pbx: Pbx) -> None:
    """What systemd would start is started."""
    port, process = free_port(), pbx.folder / "server.pid"
    serve = f"setsid {pbx.programs}/noojee-agi serve > {pbx.folder}/server.out 2>&1 & echo $! > {process}"
    pbx.tool("systemctl", f"{serve}\nuntil grep -q ^serves {pbx.folder}/server.out; do sleep 0.05; done")
    try:
        said = cured(
            pbx,
            _edited(
                EXTENSION,
                "AGI(start_record.py",
                f"AGI(agi://127.0.0.1:{port}/start_record",
                "dialplan reload",
            ),
            "dialplan",
            f"agi://127.0.0.1:{port}/start_record, and nobody listens there",
        )
    finally:
        if process.exists():
            server = int(process.read_text())
            os.kill(server, signal.SIGTERM)
            wait_until(lambda: not processes.members(server), 20, "the end of the server")

    assert said.cure.endswith(" && systemctl restart noojee-agi")


@pytest.mark.asterisk
def test_a_healthy_asterisk_has_no_fault_and_all_is_seen(pbx: Pbx) -> None:
    stages = {stage.name: stage for stage in pbx.look(is_real=True)}

    assert {name for name, stage in stages.items() if stage.state in (FAILED, NOT_SEEN)} == set()
    assert f"as user {USER}" in stages["asterisk"].text
    assert KEY not in str(stages)


@pytest.mark.asterisk
def test_its_manager_interface_is_up_for_metrics_over_one_connection_as_long_as_it_takes_our_user(
    pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "_MANAGER_KEPT_SECONDS", -1.0)
    right = Config(
        state_directory=str(pbx.state),
        manager_port=pbx.manager_port,
        manager_username="noojee",
        manager_secret="hunter2-hunter2",
    )

    async def asked(config: Config) -> tuple[list[bool | None], int]:
        """Whether it is up, three times, and how many connections of ours there are then."""
        read = gauges.Gauges(lambda: config, Counters(1).counted)
        found = [(await read.read()).manager_is_up for _ in range(3)]
        return found, len(re.findall("^ *noojee ", pbx.asterisk.rx("manager show connected"), re.MULTILINE))

    assert asyncio.run(asked(right)) == ([True] * 3, 1)
    assert asyncio.run(asked(right._replace(manager_secret="wrong")))[0] == [False] * 3


@pytest.mark.asterisk
def test_the_asterisk_that_runs_is_found_or_named(pbx: Pbx) -> None:
    """By the usual asterisk.conf, that of $AST_CONFIG_DIR, or --asterisk-conf; else by the processes."""
    by_folder = running.of("", {"AST_CONFIG_DIR": str(pbx.etc)})
    by_nothing = running.Running("/nonexistent/asterisk.conf")

    assert by_folder.setting("Configuration file") == str(pbx.etc / "asterisk.conf")
    with pytest.raises(NotSeen) as caught:
        by_nothing.ask("core show version")
    assert str(caught.value).startswith(
        "/nonexistent/asterisk.conf: No such file or directory; an Asterisk runs"
    )
    assert "/noojee-agi check --asterisk-conf /" in caught.value.cure


@pytest.mark.asterisk
def test_another_configuration_than_that_of_asterisks_programs(pbx: Pbx) -> None:
    right, other = pbx.conf, pbx.folder / "other.conf"
    shutil.copy(right, other)
    pbx.conf = other
    try:
        failed = pbx.failed()
        assert f"Asterisk's programs read {right}, and this check has read {other}" in failed["asterisk"].text
        pbx.cure(failed["asterisk"].cure)  # it is a check that is content
    finally:
        pbx.conf = right


@pytest.mark.asterisk
@pytest.mark.parametrize("pbx_of_module", [22], indirect=True)
def test_an_asterisk_that_has_begun_without_res_agi(pbx: Pbx) -> None:
    """It cannot be unloaded. A restart takes seconds, so one Asterisk must do."""
    conf = pbx.kept[pbx.etc / "modules.conf"]
    pbx.asterisk.stop()
    pbx.asterisk.start({"modules.conf": f"{conf}noload = res_agi.so\n"})

    said = cured(
        pbx, lambda pbx: None, "modules", "res_agi.so is not loaded, so no program of ours is started"
    )

    assert "modules.conf && asterisk" in said.cure


# --- a call of its own ---


def _check(pbx: Pbx, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return loaded(pbx.programs / "noojee-agi").run(
        ["check", "--asterisk-conf", str(pbx.asterisk_conf), *words],
        text,
        {"NOOJEE_AGI_CONF": str(pbx.conf), "PATH": os.environ["PATH"], "HOME": "/root"},
    )


def _contexts(pbx: Pbx) -> list[str]:
    return re.findall("Context '(.*)' created", pbx.asterisk.rx("dialplan show"))


@pytest.mark.asterisk
def test_a_call_of_its_own_is_followed_from_the_dialplan_to_the_side_car(pbx: Pbx) -> None:
    before = _contexts(pbx)

    done = _check(pbx, "--call", "--yes", "--json")

    stages = {stage["name"]: stage for stage in json.loads(done.stdout)}
    assert (done.returncode, done.stderr) == (0, "")
    assert {stage["state"] for stage in stages.values()} == {"ok"}
    assert stages["call"]["text"].startswith("200 OK: leg ")
    assert stages["call"]["text"].endswith(", which stays on record with tag noojee-agi check")
    assert int(stages["its file"]["text"].split()[-2]) > 8000
    assert stages["its row"]["text"].startswith("leg 1 of call ")
    assert Path(stages["its side-car"]["text"]).exists()
    assert _contexts(pbx) == before
    assert pbx.asterisk.rx("core show channels count").startswith("0 active channels")
    with Store(pbx.url).reading() as connection:
        (leg,) = queries.legs(connection, queries.Filter(tag="noojee-agi check"))
    assert leg["status"] == "completed"
    assert KEY not in done.stdout


@pytest.mark.asterisk
@pytest.mark.parametrize("answer", ["n\n", ""])
def test_no_call_is_placed_unless_that_is_agreed_to(pbx: Pbx, answer: str) -> None:
    calls = pbx.asterisk.rx("core show channels count").splitlines()[-1]

    done = _check(pbx, "--call", text=answer)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Place a call from Asterisk to itself?")
    assert pbx.asterisk.rx("core show channels count").splitlines()[-1] == calls


@pytest.mark.asterisk
def test_a_call_that_is_not_recorded_says_what_it_was_told(pbx: Pbx) -> None:
    _another_key(pbx)
    before = _contexts(pbx)

    stages = {stage.name: stage for stage in pbx.call()}

    assert stages["call"].text == (
        "the test call was told 401: the channel variable apiKey is not this system's key:"
        " see noojee-agi apikey --help"
    )
    assert {name for name, stage in stages.items() if stage.state == NOT_SEEN} == {
        *("its file", "its row", "its side-car")
    }
    assert _contexts(pbx) == before


@pytest.mark.asterisk
def test_a_call_has_no_key_where_only_endpoints_give_one(pbx: Pbx) -> None:
    pbx.edit("extensions.conf", f"apiKey = {KEY}\n", "", "dialplan reload")

    stages = {stage.name: stage for stage in pbx.call()}

    assert stages["call"].text.startswith("no global apiKey, and the test call comes by no endpoint")
    assert {stage.state for stage in stages.values()} == {NOT_SEEN}


@pytest.mark.asterisk
def test_a_call_for_which_no_program_was_run_says_so(pbx: Pbx) -> None:
    _no_links(pbx)

    stages = {stage.name: stage for stage in pbx.call()}

    assert stages["call"].text.startswith("the program was not run for the test call (AGISTATUS NOTFOUND)")


# --- who else records a call that is up ---


@pytest.mark.asterisk
def test_another_recorder_of_a_call_that_is_up(pbx: Pbx) -> None:
    pbx.asterisk.originate("410@phones/n", "stays@inbound")
    try:
        wait_until(lambda: list(pbx.recordings.rglob("*.wav")), 20, "the recording")
        channel = pbx.asterisk.rx("core show channels concise").partition("!")[0]
        channel = channel[:-1] + "1"  # the half that has the dialplan
        other = f"mixmonitor start {channel} {pbx.asterisk.folder}/spool/other.wav,i(OTHER)"

        words = "is recorded by somebody else, too, to"
        said = cured(pbx, lambda pbx: pbx.asterisk.rx(other), "recorders", words)

        assert "mixmonitor stop" in said.cure
    finally:
        pbx.asterisk.rx("channel request hangup all")
        pbx.asterisk.wait_quiet()
