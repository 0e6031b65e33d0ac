"""The commands that `noojee-agi check` gives as cures: what a shell takes, run as root."""

import grp
import os
import pwd
import re
from collections.abc import Sequence

from noojee_agi.asterisk.console import DEFAULT_CONF
from noojee_agi.cli import identity, install
from noojee_agi.cli.check import stage
from noojee_agi.config import Config
from noojee_agi.paths import FILE_NAME

_USUAL_USER = "asterisk"
_USUAL_PROGRAMS = "/opt/noojee-agi/bin"
_HOMES = ("/root", "/home")


def owner(seen: int | None) -> str:
    """The name of Asterisk's user: as it was seen, else our own, else the usual one."""
    uid = seen if seen is not None else os.geteuid()
    return identity.user_name(uid) if uid or seen is not None else _USUAL_USER


def make_folder(path: str, user: str) -> str:
    return f"install -d -o {user} -g {_group(user)} -m 0750 {stage.quoted(path)}"


def give(path: str, user: str, mode: str = "", is_whole: bool = False) -> str:
    """Give the file or folder, or all below it, to that user."""
    chown = f"chown {'-R ' if is_whole else ''}{user}: {stage.quoted(path)}"
    return f"{chown} && chmod {mode} {stage.quoted(path)}" if mode else chown


def let_read(path: str, user: str) -> str:
    """Root's file, which may hold a secret, to that user and to nobody else."""
    return f"chgrp {_group(user)} {stage.quoted(path)} && chmod 0640 {stage.quoted(path)}"


def rx(conf: str, command: str) -> str:
    """Say it at the command line of the Asterisk that has this asterisk.conf."""
    which = "" if conf == DEFAULT_CONF else f"-C {stage.quoted(conf)} "
    return f"asterisk {which}-rx {_double_quoted(command)}"


def ours(programs: str, *words: str) -> str:
    """One of our own commands, by the way on which this one was called: an upgrade leads it to the new."""
    if programs == install.programs_folder():
        programs = install.linked_folder()
    return stage.quoted(os.path.join(programs, "noojee-agi"), *words)


def start(programs: str) -> str:
    """The server, which does not run; the journal says why it did not begin."""
    is_linked = programs in (install.programs_folder(), _USUAL_PROGRAMS)
    is_usual = is_linked and install.linked_folder() == _USUAL_PROGRAMS
    return "systemctl restart noojee-agi" if is_usual else ours(programs, "serve")


def check_with(conf: str) -> str:
    """This check, with that asterisk.conf."""
    words = ["--asterisk-conf", conf] if conf != DEFAULT_CONF else []
    return ours(install.programs_folder(), "check", *words)


def option(config: Config, section: str, name: str, value: str) -> str:
    """Set an option of noojee_agi.conf."""
    return set_in(config.path or f"/etc/asterisk/{FILE_NAME}", section, name, value)


def set_in(path: str, section: str, name: str, value: str) -> str:
    """Set an option in a file of sections, where it stands there already or not."""
    lines, file = _lines(path), stage.quoted(path)
    head = rf"^\[{re.escape(section)}\]"
    begin = next((number for number, line in enumerate(lines) if re.match(head, line)), None)
    if begin is None:
        return f"printf '\\n[%s]\\n%s = %s\\n' {stage.quoted(section, name, value)} >> {file}"
    end = next((at for at in range(begin + 1, len(lines)) if lines[at].startswith("[")), len(lines))
    given = [at for at in range(begin + 1, end) if re.match(rf"\s*{re.escape(name)}\s*=", lines[at])]
    if given:
        return f"sed -i {stage.quoted(f'{given[-1] + 1}s/=.*/= {_of_sed(value)}/')} {file}"
    return f"sed -i {stage.quoted(f'{begin + 1}a {name} = {value}')} {file}"


def remove_lines(path: str, numbers: Sequence[int]) -> str:
    """Take these lines, counted from 1, out of the file."""
    return f"sed -i {stage.quoted(';'.join(f'{number}d' for number in numbers))} {stage.quoted(path)}"


def install_again(programs: str) -> str:
    """To be run in a checkout."""
    if os.path.realpath(_USUAL_PROGRAMS) == programs:
        return install_elsewhere()
    return f"{stage.quoted(os.path.join(programs, 'pip'))} install --force-reinstall ."


def install_web(programs: str) -> str:
    """The parts of HTTP, in a checkout."""
    if os.path.realpath(_USUAL_PROGRAMS) == programs:
        return "agi/install --web # in a checkout of noojee-agi"
    return f"{stage.quoted(os.path.join(programs, 'pip'))} install '.[web]' # in a checkout of noojee-agi"


def install_elsewhere() -> str:
    return "agi/install # in a checkout of noojee-agi"


def is_home(path: str) -> bool:
    """Whether it is somebody's own, which is not to be opened to others."""
    return any(path == home or path.startswith(f"{home}/") for home in _HOMES)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _group(user: str) -> str:
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def _double_quoted(text: str) -> str:
    return stage.quoted(text) if re.search(r'["\\$`!]', text) else f'"{text}"'


def _of_sed(text: str) -> str:
    return re.sub(r"([\\/&])", r"\\\1", text)
