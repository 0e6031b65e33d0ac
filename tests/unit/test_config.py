"""noojee_agi.conf: defaults, every option, and errors that name file, section and option but no secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from noojee_agi import paths
from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError

EVERY_OPTION = """\
; the whole file
[database]
url = postgresql://noojee:p4ss@db.example/noojee

[recordings]
; on its own disk
directory = /srv/recordings
format = wav49
mixmonitor_options = bW(2)
min_free_percent = 7.5
unknown_agent = refuse
follow = no
keep_days = 365

[state]
directory = /srv/state

[server]
name = pbx-7
socket = /run/noojee-agi/agi.sock
listen = 0.0.0.0:4574
threads = 8

[manager]
host = ::1
port = 5039
username = noojee
secret = s3cr%t=#1

[http]
listen = 0.0.0.0:8443
certificate = /etc/ssl/pbx.pem
certificate_key = /etc/ssl/pbx.key
allow = 192.0.2.0/24, 2001:db8::/32
allow_get = yes

[log]
level = debug
"""


def _load(directory: Path, text: str) -> Config:
    return Config.load(_written(directory, text))


def _written(directory: Path, text: str) -> str:
    path = directory / "noojee_agi.conf"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_without_a_file_everything_has_its_documented_default() -> None:
    default = Config.load("")

    assert default == Config(
        path="",
        database_url="sqlite:////var/lib/noojee-agi/noojee.db",
        recordings_directory="/var/spool/asterisk/noojee",
        recordings_format="wav",
        recordings_mixmonitor_options="",
        recordings_min_free_percent=2.0,
        recordings_unknown_agent="record",
        recordings_follow="yes",
        state_directory="/var/lib/noojee-agi",
        server_name=os.uname().nodename,
        server_listen="127.0.0.1:4573",
        server_threads=32,
        manager_host="127.0.0.1",
        manager_port=5038,
        manager_username="",
        manager_secret="",
        log_level="info",
    )
    assert default.spool_directory == "/var/spool/asterisk/noojee/.spool"
    assert default.snapshot_file == "/var/lib/noojee-agi/snapshot.json"
    assert default.log_file == "/var/lib/noojee-agi/noojee-agi.log"


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = _written(tmp_path, "")

    assert Config.load(path) == Config(path=path)


def test_every_option_is_read_and_has_its_type(tmp_path: Path) -> None:
    path = _written(tmp_path, EVERY_OPTION)

    assert Config.load(path) == Config(
        path=path,
        database_url="postgresql://noojee:p4ss@db.example/noojee",
        recordings_directory="/srv/recordings",
        recordings_format="wav49",
        recordings_mixmonitor_options="bW(2)",
        recordings_min_free_percent=7.5,
        recordings_unknown_agent="refuse",
        recordings_follow="no",
        recordings_keep_days=365,
        state_directory="/srv/state",
        server_name="pbx-7",
        server_socket="/run/noojee-agi/agi.sock",
        server_listen="0.0.0.0:4574",
        server_threads=8,
        manager_host="::1",
        manager_port=5039,
        manager_username="noojee",
        manager_secret="s3cr%t=#1",
        http_listen="0.0.0.0:8443",
        http_certificate="/etc/ssl/pbx.pem",
        http_certificate_key="/etc/ssl/pbx.key",
        http_allow="192.0.2.0/24, 2001:db8::/32",
        http_allow_get="yes",
        log_level="debug",
    )


def test_the_example_above_names_every_option_there_is(tmp_path: Path) -> None:
    default, given = Config(), _load(tmp_path, EVERY_OPTION)

    same = [name for name in Config._fields if getattr(default, name) == getattr(given, name)]
    assert same == []


@pytest.mark.parametrize("name", Config._fields[1:])
def test_each_default_keeps_the_rules(tmp_path: Path, name: str) -> None:
    """They are not looked at in each call."""
    section, _, option = name.partition("_")
    default = getattr(Config(), name)

    assert getattr(_load(tmp_path, f"[{section}]\n{option} = {default}\n"), name) == default


def test_the_configuration_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Config().log_level = "debug"  # type: ignore[misc]


def test_no_secret_is_shown_by_the_object(tmp_path: Path) -> None:
    shown = repr(_load(tmp_path, EVERY_OPTION))

    assert "p4ss" not in shown
    assert "s3cr%t" not in shown


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[recording]\nformat = wav\n", "[recording]"),
        ("[recordings]\nformat = wav\n[extra]\n", "[extra]"),
        ("[DEFAULT]\nformat = wav\n", "[DEFAULT]"),
        ("[DEFAULT]\nformat = wav\n[recordings]\n", "[DEFAULT]"),
        ("[no such section]\nformat = wav\n", "[no such section]"),
        ("[no such section]\nformat = wav\n[recordings]\n", "[no such section]"),
        ("[path]\n", "[path]"),
        ("[recordings]\nfromat = wav\n", "[recordings] fromat"),
        ("[database]\nurl = sqlite://\npassword = x\n", "[database] password"),
        ("[server]\nlevel = info\n", "[server] level"),
    ],
)
def test_an_unknown_section_or_option_is_an_error_that_names_it(
    tmp_path: Path, text: str, named: str
) -> None:
    path = _written(tmp_path, text)

    with pytest.raises(ConfigurationError) as refused:
        Config.load(path)

    assert str(refused.value).startswith(f"{path}: {named}: no such ")


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("recordings", "directory", "relative/folder"),
        ("recordings", "directory", ""),
        ("recordings", "directory", "/srv/with blank"),
        ("recordings", "directory", "/srv/a,b,touch"),
        ("recordings", "directory", "/srv/$(id)"),
        ("recordings", "directory", "/srv/`id`"),
        ("recordings", "directory", "/srv/${SHELL(id)}"),
        ("recordings", "directory", "/srv/^{X}"),
        ("recordings", "directory", '/srv/"x'),
        ("recordings", "directory", "/srv/a\\b"),
        ("recordings", "directory", "/srv/(x"),
        ("recordings", "directory", "/srv/a&b"),
        ("recordings", "directory", "/srv/a\n /b"),
        ("recordings", "directory", "/srv/M\u00fcller"),
        ("state", "directory", "relative"),
        ("state", "directory", "/srv/a b"),
        ("recordings", "format", ""),
        ("recordings", "format", "wav,b"),
        ("recordings", "format", "../wav"),
        ("recordings", "format", ".wav"),
        ("recordings", "format", "w av"),
        ("recordings", "mixmonitor_options", "b,touch"),
        ("recordings", "mixmonitor_options", "b,touch /tmp/x"),
        ("recordings", "mixmonitor_options", "r(/etc/x)"),
        ("recordings", "mixmonitor_options", "t(/etc/x)"),
        ("recordings", "mixmonitor_options", "m(1)"),
        ("recordings", "mixmonitor_options", "i(x)"),
        ("recordings", "mixmonitor_options", "a"),
        ("recordings", "mixmonitor_options", "d"),
        ("recordings", "mixmonitor_options", "D"),
        ("recordings", "mixmonitor_options", "b p"),
        ("recordings", "mixmonitor_options", "B(5),touch"),
        ("recordings", "mixmonitor_options", "B(x)"),
        ("recordings", "mixmonitor_options", "B("),
        ("recordings", "mixmonitor_options", "b\n p"),
        ("recordings", "mixmonitor_options", "v(5)"),
        ("recordings", "mixmonitor_options", '"'),
        ("recordings", "mixmonitor_options", "${X}"),
        ("recordings", "min_free_percent", "two"),
        ("recordings", "min_free_percent", ""),
        ("recordings", "min_free_percent", "2 %"),
        ("recordings", "min_free_percent", "nan"),
        ("recordings", "unknown_agent", "Record"),
        ("recordings", "unknown_agent", "ignore"),
        ("recordings", "follow", "on"),
        ("recordings", "keep_days", "-1"),
        ("recordings", "keep_days", "a year"),
        ("server", "name", ""),
        ("server", "name", "x" * 256),
        ("server", "threads", "many"),
        ("server", "threads", "1.5"),
        ("manager", "port", "ami"),
        ("log", "level", "loud"),
        ("log", "level", ""),
    ],
)
def test_a_value_that_cannot_be_is_an_error_that_names_its_place(
    tmp_path: Path, section: str, option: str, value: str
) -> None:
    path = _written(tmp_path, f"[{section}]\n{option} = {value}\n")

    with pytest.raises(ConfigurationError) as refused:
        Config.load(path)

    assert str(refused.value).startswith(f"{path}: [{section}] {option}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("directory", "/"),
        ("directory", "/srv/recordings-2/x_y.z"),
        ("format", "gsm"),
        ("format", "WAV"),
        ("format", "wav16"),
        ("mixmonitor_options", ""),
        ("mixmonitor_options", "b"),
        ("mixmonitor_options", "bB(5)p"),
        ("mixmonitor_options", "v(-4)V(4)W(0)"),
        ("mixmonitor_options", "s(90)"),
        ("mixmonitor_options", "nSPc"),
        ("unknown_agent", "refuse"),
    ],
)
def test_an_allowed_value_is_taken_as_it_is(tmp_path: Path, option: str, value: str) -> None:
    known = _load(tmp_path, f"[recordings]\n{option} = {value}\n")

    assert getattr(known, f"recordings_{option}") == value


@pytest.mark.parametrize(
    "text",
    [
        "s3cret\n",
        "secret = s3cret\n",
        "[manager]\ns3cret\n",
        "[manager]\n= s3cret\n",
        "[manager\nsecret = s3cret\n",
        "[manager]\nsecret = s3cret\nsecret = s3cret2\n",
        "[manager]\nsecret = s3cret\n[manager]\nsecret = s3cret2\n",
        "[manager]\nport = s3cret\n",
        "[recordings]\ndirectory = s3cret\n",
        "[recordings]\nmixmonitor_options = s3cret\n",
        "[recordings]\nmin_free_percent = s3cret\n",
        "[log]\nlevel = s3cret\n",
    ],
)
def test_an_error_is_one_line_that_repeats_nothing_of_the_values(tmp_path: Path, text: str) -> None:
    path = _written(tmp_path, text)

    with pytest.raises(ConfigurationError) as refused:
        Config.load(path)

    assert str(refused.value).startswith(path)
    assert "s3cret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.conf")

    with pytest.raises(ConfigurationError, match=r"missing\.conf: cannot be read: No such file"):
        Config.load(missing)
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        Config.load(str(tmp_path))


def test_a_file_that_is_not_utf_8_is_refused_without_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "noojee_agi.conf"
    path.write_bytes(b"[manager]\nsecret = s3cr\xfct\n")

    with pytest.raises(ConfigurationError) as refused:
        Config.load(str(path))

    assert str(refused.value) == f"{path}: not an INI file: it is not UTF-8"


@pytest.mark.parametrize("path", ["noojee_agi.conf", "/etc/a b.conf", "/etc/x;touch", "/etc/$(id).conf"])
def test_the_files_own_path_must_be_safe_for_a_shell(path: str) -> None:
    with pytest.raises(ConfigurationError, match="must be an absolute path"):
        Config.load(path)


def test_the_file_is_looked_for_in_the_documented_order(tmp_path: Path) -> None:
    in_asterisks_folder = tmp_path / "noojee_agi.conf"
    in_asterisks_folder.touch()
    environment = {"AST_CONFIG_DIR": str(tmp_path)}

    assert paths.configuration(environment) == str(in_asterisks_folder)
    assert paths.configuration({**environment, "NOOJEE_AGI_CONF": "/not/there.conf"}) == "/not/there.conf"
    assert paths.configuration({**environment, "NOOJEE_AGI_CONF": ""}) == str(in_asterisks_folder)

    in_asterisks_folder.unlink()
    assert paths.configuration(environment) == paths.configuration({})
