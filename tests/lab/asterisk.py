"""A private Asterisk: own folder, own configuration, no open port, gone when the test ends."""

from __future__ import annotations

import fnmatch
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lab import debian, processes
from lab.unavailable import LabUnavailable
from lab.waiting import wait_until

START_SECONDS = 90.0
STOP_SECONDS = 5.0
RX_SECONDS = 60.0  # usually some milliseconds, but Asterisk may wait for a processor
OPEN_FILES = 4096  # a call of two Local channels that is recorded has five open
SOCKET_PATH_BYTES = 100  # sun_path holds 108, its final zero included

DEBIAN_SUITES = {16: ("bullseye",), 22: ("forky", "sid")}

# They open ports, want a configuration or a server, or take time to start. `modules` asks for some of them.
NOT_LOADED = (
    "app_adsiprog", "app_agent_pool", "app_alarmreceiver", "app_amd", "app_festival", "app_followme",
    "app_getcpeid", "app_ices", "app_image", "app_jack", "app_minivm", "app_nbscat", "app_stasis*",
    "app_url", "app_voicemail*", "cdr_*", "cel_*", "chan_*", "func_odbc", "func_pjsip_*", "pbx_ael",
    "pbx_dundi", "pbx_lua", "res_adsi", "res_aeap", "res_ael_share", "res_ari*", "res_calendar*",
    "res_config_*", "res_fax*", "res_geolocation", "res_hep*", "res_http_*", "res_odbc*", "res_parking",
    "res_phoneprov", "res_pjproject", "res_pjsip*", "res_prometheus", "res_resolver_unbound", "res_rtp_*",
    "res_smdi", "res_snmp", "res_speech_aeap", "res_srtp", "res_stasis*", "res_statsd", "res_stir_shaken",
    "res_stun_monitor", "res_websocket_client", "res_xmpp",
)  # fmt: skip

# Modules that refuse to load without their file are content with an empty one.
EMPTY_FILES = (
    "acl", "ccss", "cdr", "cel", "cli_aliases", "confbridge", "extensions", "features", "indications",
    "musiconhold", "queues", "udptl",
)  # fmt: skip

LOGGER_CONF = """\
[general]
dateformat = %F %T.%3q
[logfiles]
full => notice,warning,error,verbose(3)
messages => notice,warning,error
console => warning,error
"""
# What a console is told first: host, process, version.
_GREETING = re.compile(r"[^/]+/\d+/.+")


class AsteriskFailed(Exception):
    """Asterisk did not start, or did not answer a command."""


@dataclass(frozen=True)
class Installation:
    """The program of one Asterisk: the words that run it, its modules, its data and what it calls itself."""

    command: tuple[str, ...]
    modules: Path
    data: Path
    version: str


def find(version: int | None) -> Installation:
    """Return an Asterisk of that major version from Debian.

    None is the machine's own one, else that of its distribution: on Debian 22. Raises LabUnavailable.
    """
    program = shutil.which("asterisk")
    if version is None and program is not None:
        return _installation((program,), Path("/"))
    if version is None and not debian.is_debian():
        return _unpacked(debian.unpack("asterisk", debian.own_suite()))
    major = version or 22
    suites = DEBIAN_SUITES.get(major)
    if suites is None:
        raise LabUnavailable(f"the lab has no Asterisk {major}, only {sorted(DEBIAN_SUITES)}")
    found = _unpacked(_unpack_first(suites))
    if not found.version.startswith(f"{major}."):
        raise LabUnavailable(f"wanted Asterisk {major}, Debian has {found.version} now")
    return found


def _unpacked(root: Path) -> Installation:
    return _installation((*debian.loader_command(root), str(root / "usr/sbin/asterisk")), root)


def for_everybody(version: int, folder: Path) -> Installation:
    """The same where every user can run it: the cache may lie in root's home. Links take no place.

    Raises LabUnavailable.
    """
    root = Path(find(version).command[-1]).parents[2]
    subprocess.run(["cp", "-al", str(root), str(folder)], check=True)
    return _installation((*debian.loader_command(folder), str(folder / "usr/sbin/asterisk")), folder)


def _unpack_first(suites: Sequence[str]) -> Path:
    reasons = []
    for suite in suites:
        try:
            return debian.unpack("asterisk", suite)
        except LabUnavailable as reason:
            reasons.append(str(reason))
    raise LabUnavailable("; ".join(reasons))


def _installation(command: tuple[str, ...], root: Path) -> Installation:
    mixmonitors = [*root.glob("usr/lib*/asterisk/modules/app_mixmonitor.so")]
    mixmonitors += root.glob("usr/lib/*/asterisk/modules/app_mixmonitor.so")
    data = [root / base for base in ("usr/share/asterisk", "var/lib/asterisk")]
    data = [folder for folder in data if (folder / "documentation").is_dir()]
    if not mixmonitors or not data:
        raise LabUnavailable(f"{command[-1]} is there, but not its modules or its documentation folder")
    answer = subprocess.run([*command, "-V"], capture_output=True, text=True, check=False)
    version = re.search(r"Asterisk (\S+)", answer.stdout)
    if version is None:
        raise LabUnavailable(f"{command[-1]} -V does not run: {answer.stderr.strip()[-300:]}")
    return Installation(command, mixmonitors[0].parent, data[0], version[1])


class PrivateAsterisk:
    """One Asterisk that lives in `folder`; a context manager.

    `extensions` is the text of extensions.conf; `files` adds or replaces other files of the configuration by
    their name. AMI is off until `files` has a manager.conf. `modules` names what shall be loaded although
    NOT_LOADED has it, with wildcards. Recordings without a path of their own are in folder/spool/monitor.
    user: as whom it runs, if not as we do; see for_everybody().
    """

    def __init__(
        self,
        installation: Installation,
        folder: Path,
        extensions: str,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        agi_dir: Path | None = None,
        system_name: str = "",
        modules: Sequence[str] = (),
        verbose: int = 3,
        user: str = "",
    ) -> None:
        self.installation = installation
        self.folder = folder.absolute()
        self._files = {"extensions.conf": extensions, **(files or {})}
        self._environment = dict(environment or {})
        self._agi_dir = (agi_dir or self.folder / "agi-bin").absolute()
        self._system_name = system_name
        self._modules = modules
        self._verbose = verbose
        self._user = pwd.getpwnam(user) if user else None
        self._run_dir = self.folder / "run"
        self._process: subprocess.Popen[bytes] | None = None
        self._sessions: list[int] = []
        self._files_of_calls = 0

    def __enter__(self) -> PrivateAsterisk:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the running Asterisk, which is also its session's."""
        if self._process is None:
            raise AsteriskFailed("this Asterisk is not started")
        return self._process.pid

    def start(self, changed: Mapping[str, str] | None = None) -> None:
        """Write the configuration, start, and return when all modules are loaded.

        May be called again after kill() or stop(): folder, database and recordings are as they were left.
        changed: files of its configuration that this start finds otherwise.
        """
        if self._process is not None:
            raise AsteriskFailed("this Asterisk is started already")
        self._write_folder(changed or {})
        command = [*self._as_user(), *self._command(), "-f"]
        with (self.folder / "log/console").open("ab") as console:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sessions.append(self._process.pid)
        try:
            wait_until(self._is_up, START_SECONDS, "Asterisk's start")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End Asterisk and all that it started: with SIGTERM first, what is left after that with SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            processes.end(process, STOP_SECONDS)
        while self._sessions:
            processes.end_session(self._sessions.pop())
        if self._run_dir != self.folder / "run":
            shutil.rmtree(self._run_dir, ignore_errors=True)
            self._run_dir = self.folder / "run"

    def kill(self) -> None:
        """Crash: SIGKILL for Asterisk alone; the scripts it started are left to notice, until stop()."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def rx(self, command: str, timeout: float = RX_SECONDS) -> str:
        """Return what Asterisk's command line answers to a command.

        As `asterisk -rx` asks (main/asterisk.c, ast_remotecontrol and netconsole), but 16 ms sooner.
        """
        answer = b""
        try:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(timeout)
                asking.connect(str(self._run_dir / "asterisk.ctl"))
                asking.sendall(f"cli quit after {command}\0".encode())
                while read := asking.recv(1 << 16):
                    answer += read
        except TimeoutError as expired:
            raise AsteriskFailed(f"{command}: no answer in {timeout:g} seconds") from expired
        except OSError as error:
            raise AsteriskFailed(f"{command}: {error}") from error
        greeting, _, said = answer.decode(errors="replace").partition("\n")
        if not _GREETING.fullmatch(greeting):
            raise AsteriskFailed(f"{command}: {greeting}")
        return said

    def originate(self, channel_exten: str, extension: str) -> None:
        """Start a call between two places of the dialplan, both written `exten@context`.

        When both ends of one Local channel play a tone, they do not hear each other (unreal_queue_frame drops
        the frames of two generators): let one of them reach its partner by Dial() or Queue().
        """
        self.rx(f"channel originate Local/{channel_exten} extension {extension}")

    def originate_at_once(self, calls: Iterable[tuple[str, str]]) -> None:
        """The same for many calls, by call files: Asterisk starts them all together."""
        for channel_exten, extension in calls:
            exten, _, context = extension.partition("@")
            self._files_of_calls += 1
            call = self.folder / f"call-{self._files_of_calls}"
            call.write_text(
                f"Channel: Local/{channel_exten}\nExtension: {exten}\nContext: {context}\nPriority: 1\n"
            )
            call.rename(self.folder / "spool/outgoing" / call.name)

    def wait_quiet(self, limit: float = 20.0) -> None:
        """Wait until no channel is up; MixMonitor may still close its file, and a script may still run."""
        wait_until(self.is_quiet, limit, "the end of all calls")

    def is_quiet(self) -> bool:
        """Whether no channel is up."""
        return self.rx("core show channels count").startswith("0 active channels")

    def has_closed(self) -> bool:
        """Whether no channel is up, and each MixMonitor has closed its file and has run its command."""
        return self.is_quiet() and "mixmonitor_thread" not in self.rx("core show threads")

    def log(self) -> str:
        """Return the full log so far; it has the lines `Executing [...]` of the dialplan."""
        return _read(self.folder / "log/full")

    def messages(self) -> str:
        """Return the log that Debian's logger.conf makes, and no more than that."""
        return _read(self.folder / "log/messages")

    def console(self) -> str:
        """Return what Asterisk and its scripts wrote to stdout and stderr so far."""
        return _read(self.folder / "log/console")

    def _is_up(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise AsteriskFailed(f"Asterisk ended while it started:\n{self.console()[-2000:]}")
        if not (self._run_dir / "asterisk.ctl").exists():
            return False
        try:
            return "fully booted" in self.rx("core waitfullybooted", START_SECONDS)
        except AsteriskFailed:
            return False  # the socket is there, nobody listens yet

    def _command(self) -> list[str]:
        return [*self.installation.command, "-C", str(self.folder / "etc/asterisk.conf")]

    def _as_user(self) -> list[str]:
        words = processes.dies_with_us()
        if self._user is None:
            return words
        ids = [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"]
        return [*(words or ["setpriv"]), *ids]  # in one: a change of user undoes what was set before

    def _clean_environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**ours, **self._environment}

    def _write_folder(self, changed: Mapping[str, str]) -> None:
        for name in ("etc", "db", "log", "run", "spool/monitor", "var/keys", "agi-bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if len(os.fsencode(self._run_dir / "asterisk.ctl")) > SOCKET_PATH_BYTES:
            self._run_dir = Path(tempfile.mkdtemp(prefix="lab-asterisk-", dir="/tmp"))
        files = {f"{name}.conf": "" for name in EMPTY_FILES}
        files["asterisk.conf"] = self._asterisk_conf()
        files["modules.conf"] = self._modules_conf()
        files["logger.conf"] = LOGGER_CONF
        for name, text in {**files, **self._files, **changed}.items():
            (self.folder / "etc" / name).write_text(text)
        if self._user is not None:
            for folder in [*(self.folder / name for name in ("db", "log", "spool", "var")), self._run_dir]:
                for path in [folder, *folder.rglob("*")]:
                    os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _asterisk_conf(self) -> str:
        folders = {
            "astetcdir": self.folder / "etc",
            "astmoddir": self.installation.modules,
            "astdatadir": self.installation.data,
            "astagidir": self._agi_dir,
            "astdbdir": self.folder / "db",
            "astkeydir": self.folder / "var",
            "astvarlibdir": self.folder / "var",
            "astcachedir": self.folder / "var",
            "astspooldir": self.folder / "spool",
            "astlogdir": self.folder / "log",
            "astrundir": self._run_dir,
        }
        options = {
            "verbose": str(self._verbose),
            "nocolor": "yes",
            "hideconnect": "yes",
            "maxfiles": str(OPEN_FILES),
            "systemname": self._system_name,
        }
        lines = ["[directories]", *(f"{name} => {path}" for name, path in folders.items())]
        lines += ["[options]", *(f"{name} = {value}" for name, value in options.items() if value)]
        return "\n".join(lines) + "\n"

    def _modules_conf(self) -> str:
        names = sorted(path.stem for path in self.installation.modules.glob("*.so"))
        unloaded = [name for name in names if _fits(name, NOT_LOADED) and not _fits(name, self._modules)]
        lines = ["[modules]", "autoload = yes", *(f"noload = {name}.so" for name in unloaded)]
        return "\n".join(lines) + "\n"


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
