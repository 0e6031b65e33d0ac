"""A program that hands over finds the socket that the configuration names; both read one file in one way."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from noojee_agi import ini, paths
from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError

OPTIONS = {
    "database": {"url": ["sqlite:////srv/x.db", "postgresql://u:p=q@h/d"]},
    "recordings": {"directory": ["/srv/recordings"], "format": ["wav", "gsm"]},
    "state": {"directory": ["/srv/state", "/srv/a:b=c", "/"]},
    "server": {
        "socket": ["", "/run/agi.sock", "/run/a=b:c;d#e", "/run/ü x", "/run/[x]"],
        "name": ["pbx", "[state]"],
        "listen": ["", "127.0.0.1:4573"],
        "threads": ["8"],
    },
    "manager": {"username": ["noojee"], "secret": ["s3cr%t=#1", "[server]", "socket = /x", ""]},
    "log": {"level": ["debug"]},
}
BLANK = st.sampled_from(["", "", "", " ", "\t", "  "])
NOISE = st.sampled_from(
    ["", "   ", "# socket = /no", "; socket = /no", "  # [server]", ";[server]", "\t;directory=/no", "#"]
)


@st.composite
def option_lines(draw: st.DrawFn, section: str) -> list[str]:
    """Some of a section's options as people write them, now and then going on in an indented line."""
    lines = []
    names = draw(st.lists(st.sampled_from(sorted(OPTIONS[section])), unique=True))
    indent = draw(BLANK)
    for name in names:
        spelt = draw(st.sampled_from([name, name.upper(), name.title()]))
        value = draw(st.sampled_from(OPTIONS[section][name]))
        delimiter = draw(BLANK) + draw(st.sampled_from("=:")) + draw(BLANK)
        lines.append(f"{indent}{spelt}{delimiter}{value}{draw(BLANK)}")
        lines += draw(st.lists(NOISE, max_size=1))
        if draw(st.integers(0, 9)) == 0:
            lines.append(f"{indent} {draw(st.sampled_from(['socket = /no', '[server]', 'directory: /no']))}")
    return lines


@st.composite
def ini_texts(draw: st.DrawFn) -> str:
    lines = draw(st.lists(NOISE, max_size=2))
    for section in draw(st.lists(st.sampled_from(sorted(OPTIONS)), unique=True)):
        ending = draw(st.sampled_from(["", "", " ", " junk", "; comment"]))
        lines += [f"[{section}]{ending}", *draw(option_lines(section))]
        lines += draw(st.lists(NOISE, max_size=2))
    return draw(st.sampled_from(["\n", "\n", "\r\n"])).join([*lines, ""])


def loaded(path: Path) -> Config | None:
    """None when the full parser refuses the file: then no call is recorded, wherever the socket is."""
    try:
        return Config.load(str(path))
    except ConfigurationError:
        return None


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("places") / "noojee_agi.conf"


@given(text=ini_texts())
@example(text="[server]\nsocket = /run/one.sock\n")
@example(text="[state]\ndirectory = /srv/state\n")
@example(text="[manager]\nsecret = x\n  [server]\n  socket = /no\n")
@example(
    text="[manager]\nsecret = x\n\n\n  [server]\n# comment\n  socket = /no\n[state]\ndirectory=/srv/state"
)
@example(text="[server]\nsocket =\n  /run/agi.sock\n[state]\ndirectory:\n\n /srv/state\n")
@example(text="   [server]\n   threads = 3\n   socket = /run/agi.sock\n   name = x\n")
@example(text="[server]\n  threads = 3\n socket = /run/agi.sock\n")
def test_the_socket_is_the_one_that_the_full_parser_finds(conf: Path, text: str) -> None:
    conf.write_text(text, newline="")
    known = loaded(conf)

    if known is not None:
        assert paths.socket(str(conf)) == known.socket_path


@given(text=ini_texts())
@example(text="[server]\nsocket =\n  /run/agi.sock\n[state]\ndirectory:\n\n /srv/state\n")
def test_an_ini_file_is_read_as_configparser_does(text: str) -> None:
    """Which takes 3 ms to import; but blank lines are no part of a value."""
    lines = text.replace("\r\n", "\n").splitlines(keepends=True)
    known = configparser.ConfigParser(interpolation=None, default_section="\n")
    try:
        known.read_string("".join(lines))
    except configparser.Error:
        with pytest.raises(ValueError, match="line"):
            ini.parse(lines)
        return

    assert ini.parse(lines) == {
        section: {name: "\n".join(filter(None, value.split("\n"))) for name, value in known.items(section)}
        for section in known.sections()
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("socket = /x\n", 1),
        ("[server]\nsocket\n", 2),
        ("[server]\n= /x\n", 2),
        ("# comment\n[server\n", 2),
        ("[server]\nsocket = a\nSocket = b\n", 3),
        ("[server]\nsocket = a\n\n[server]\n", 4),
        ("[]\n", 1),
    ],
)
def test_what_is_no_ini_file_is_an_error_that_names_the_line(text: str, line: int) -> None:
    with pytest.raises(ValueError, match=rf"line {line}\b"):
        ini.parse(text.splitlines())


@given(text=st.lists(st.sampled_from("[]=:;# \n\tserverstatesocketdirectory/x"), max_size=80).map("".join))
def test_no_text_makes_it_fail_or_differ(conf: Path, text: str) -> None:
    conf.write_text(text, newline="")
    known = loaded(conf)

    found = paths.socket(str(conf))

    assert known is None or found == known.socket_path


@pytest.mark.parametrize("data", [b"\xff\xfe[server]\n", b"[server]\nsocket = /caf\xe9\n", b"\0" * 100])
def test_a_file_that_is_no_text_is_the_full_parsers_matter(conf: Path, data: bytes) -> None:
    conf.write_bytes(data)

    assert paths.socket(str(conf)).startswith("/")


def test_without_a_file_the_socket_is_in_the_usual_place(tmp_path: Path) -> None:
    usual = "/var/lib/noojee-agi/agi.sock"

    assert paths.socket("") == Config().socket_path == usual
    assert paths.socket(str(tmp_path / "none.conf")) == usual
    assert paths.socket(str(tmp_path)) == usual


def test_what_the_tests_texts_hold_is_what_the_configuration_knows(conf: Path) -> None:
    """The generated texts are not all refused."""
    for section, options in OPTIONS.items():
        for name, values in options.items():
            for value in values:
                conf.write_text(f"[{section}]\n{name} = {value}\n")
                assert loaded(conf) is not None, (section, name, value)
