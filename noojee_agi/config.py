"""noojee_agi.conf -> one frozen Config. Every option has a default; an unknown one is an error."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from noojee_agi import ini, paths
from noojee_agi.errors import ConfigurationError
from noojee_agi.recordings import history, spool

# Asterisk parses these twice and hands one of them to a shell: nothing in them may need quoting.
SAFE_PATH = re.compile(r"/[A-Za-z0-9._+@=~:/-]{0,254}")
_SAFE_FORMAT = r"[A-Za-z0-9]{1,12}"
# Those of MixMonitor's options that name no file, variable or mailbox and delete nothing.
_SAFE_OPTIONS = r"(?:[bpPScn]|B\(\d{1,4}\)|s\(\d{1,5}\)|[vVW]\(-?[0-4]\))*"

_SECRETS = ("database_url", "manager_secret")


class Config(NamedTuple):
    """Field name = section, then option: recordings_format is `format` in [recordings].

    path: the file that was read, empty when there was none.
    """

    path: str = ""
    database_url: str = "sqlite:////var/lib/noojee-agi/noojee.db"
    recordings_directory: str = "/var/spool/asterisk/noojee"
    recordings_format: str = "wav"
    recordings_mixmonitor_options: str = ""
    recordings_min_free_percent: float = 2.0
    recordings_unknown_agent: str = "record"
    recordings_follow: str = "yes"
    recordings_keep_days: int = 0
    state_directory: str = paths.STATE_DIRECTORY
    server_name: str = os.uname().nodename
    server_socket: str = ""
    server_listen: str = "127.0.0.1:4573"
    server_threads: int = 32
    manager_host: str = "127.0.0.1"
    manager_port: int = 5038
    manager_username: str = ""
    manager_secret: str = ""
    http_listen: str = ""
    http_certificate: str = ""
    http_certificate_key: str = ""
    http_allow: str = "127.0.0.0/8, ::1"
    http_allow_get: str = "no"
    log_level: str = "info"

    def __repr__(self) -> str:
        """Without what nobody may read."""
        shown = [f"{name}={value!r}" for name, value in self._asdict().items() if name not in _SECRETS]
        return f"Config({', '.join(shown)})"

    @property
    def spool_directory(self) -> str:
        return spool.directory_in(self.recordings_directory)

    @property
    def snapshot_file(self) -> str:
        return os.path.join(self.state_directory, "snapshot.json")

    @property
    def socket_path(self) -> str:
        return self.server_socket or paths.socket_in(self.state_directory)

    @property
    def log_file(self) -> str:
        return os.path.join(self.state_directory, "noojee-agi.log")

    @classmethod
    def load(cls, path: str) -> "Config":
        """Read the file at path; empty means the defaults.

        Where it gives the server no name, history knows it. Raises ConfigurationError, naming file, section
        and option.
        """
        return cls.load_file(path).with_name()

    @classmethod
    def load_file(cls, path: str) -> "Config":
        """load() without a look into the state directory: server_name is empty where the file gives none.

        Raises ConfigurationError.
        """
        return _read(path) if path else cls(server_name="")

    def with_name(self) -> "Config":
        """What load_file() has read, with the name that load() gives the server."""
        if self.server_name:
            return self
        return self._replace(server_name=history.server_name(self.state_directory))


def _read(path: str) -> Config:
    if not SAFE_PATH.fullmatch(path):
        raise ConfigurationError(f"{path}: the configuration file's path {_ABSOLUTE}")
    try:
        sections = ini.read(path)
    except OSError as exc:
        raise ConfigurationError(f"{path}: cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path}: not an INI file: it is not UTF-8") from exc
    except ValueError as exc:
        raise ConfigurationError(f"{path}: not an INI file: {exc}") from exc
    given = {
        f"{section}_{option}": (f"{path}: [{section}] {option}", text)
        for section, options in sections.items()
        for option, text in options.items()
    }
    for where, text in given.values():
        if " ;" in text:
            raise ConfigurationError(f"{where}: comments go on lines of their own")
    return _checked(path, set(sections), given)


def _checked(path: str, sections: set[str], given: Mapping[str, tuple[str, str]]) -> Config:
    known = {name: kind for name, kind in Config.__annotations__.items() if name != "path"}
    values: dict[str, object] = {"server_name": ""}
    for section in sections - {name.partition("_")[0] for name in known}:
        raise ConfigurationError(f"{path}: [{section}]: no such section: agi/noojee_agi.conf lists all")
    for name, (where, text) in given.items():
        if name not in known:
            raise ConfigurationError(f"{where}: no such option: agi/noojee_agi.conf lists all")
        values[name] = _value(where, known[name], text.strip())
    config = Config(path=path, **values)  # type: ignore[arg-type]
    for name, pattern, rule in _RULES:
        # The defaults are right, and to compile a rule takes some of a caller's time.
        is_asked = name in given or name == "socket_path"
        if is_asked and not re.fullmatch(pattern, str(getattr(config, name))):
            where = given.get(name, (f"{path}: {name}", ""))[0]
            raise ConfigurationError(f"{where}: {rule}")
    return config


def _value(where: str, kind: object, text: str) -> object:
    try:
        if kind is int:
            return int(text)
        if kind is float and 0 <= float(text) <= 100:
            return float(text)
    except ValueError as exc:
        raise ConfigurationError(f"{where}: must be a number") from exc
    if kind is float:
        raise ConfigurationError(f"{where}: must be a number from 0 to 100")
    return text


_ABSOLUTE = "must be an absolute path of at most 255 letters, digits and . _ + @ = ~ : - (a shell gets it)"
_ADDRESS = r"|(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):\d{1,5}"
_PATH = r"|/[^\x00-\x1f]{1,255}"
_RULES: list[tuple[str, str, str]] = [
    ("recordings_directory", SAFE_PATH.pattern, _ABSOLUTE),
    ("state_directory", SAFE_PATH.pattern, _ABSOLUTE),
    ("recordings_format", _SAFE_FORMAT, "must be a file format of Asterisk such as wav (letters and digits)"),
    (
        "recordings_mixmonitor_options",
        _SAFE_OPTIONS,
        "allowed are b, B(n), p, P, c, n, S, s(n), v(x), V(x), W(x), written without commas",
    ),
    ("recordings_unknown_agent", "record|refuse", "must be record or refuse"),
    ("recordings_follow", "yes|no", "must be yes or no"),
    ("recordings_keep_days", r"\d{1,5}", "must be a number of days, 0 for ever"),
    ("server_name", r"[^\x00-\x1f]{1,255}", "must be 1 to 255 characters"),
    (
        "server_listen",
        _ADDRESS,
        "must be address:port, or empty for no FastAGI",
    ),
    ("socket_path", r"/[^\x00-\x1f]{1,106}", "must be an absolute path of at most 107 characters"),
    ("server_threads", r"[1-9]\d{0,2}", "must be a number from 1 to 999"),
    (
        "manager_host",
        r"localhost|[0-9.]{7,15}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*",
        "must be an address, or localhost: no call waits for a name to be looked up",
    ),
    (
        "manager_port",
        r"[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5]",
        "must be a port, 1 to 65535",
    ),
    ("manager_username", r"[^\x00-\x1f]{0,255}", "must be one line of at most 255 characters"),
    ("manager_secret", r"[^\x00-\x1f]{0,255}", "must be one line of at most 255 characters"),
    ("http_listen", _ADDRESS, "must be address:port, or empty for no HTTP"),
    ("http_certificate", _PATH, "must be an absolute path"),
    ("http_certificate_key", _PATH, "must be an absolute path"),
    ("http_allow", r"[0-9a-fA-F.:/, ]*", "must be networks such as 127.0.0.0/8, ::1"),
    ("http_allow_get", "yes|no", "must be yes or no"),
    ("log_level", "debug|info|warning|error", "must be debug, info, warning or error"),
]
