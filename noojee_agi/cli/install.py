"""Where our programs lie, and how Asterisk finds them."""

import contextlib
import os
import sys
from collections.abc import Mapping

from noojee_agi.asterisk import console
from noojee_agi.errors import ConfigurationError

AGI_PROGRAMS = (
    *("start_record.py", "stop_record.py", "pause_record.py", "resume_record.py"),
    *("attach_user.py", "detach_user.py"),
)
USUAL_AGI_FOLDERS = ("/usr/share/asterisk/agi-bin", "/var/lib/asterisk/agi-bin")


def programs_folder() -> str:
    """The folder of the programs that were installed with this one; an upgrade leads nobody away from it."""
    return os.path.dirname(os.path.realpath(sys.argv[0]))


def linked_folder() -> str:
    """The same by the way on which this program was called: an upgrade leads that to the new programs.

    Where /usr/local/bin/noojee-agi is a link to /opt/noojee-agi/bin/noojee-agi, and /opt/noojee-agi one that
    an upgrade replaces, this is /opt/noojee-agi/bin.
    """
    program, folder = os.path.join(_working_folder(), sys.argv[0]), programs_folder()
    while os.path.realpath(os.path.dirname(program)) != folder:
        if not os.path.islink(program):
            return folder
        program = os.path.join(os.path.dirname(program), os.readlink(program))
    return os.path.dirname(program)


def _working_folder() -> str:
    """By the way on which the shell went there, if it says so (POSIX, PWD)."""
    told = os.environ.get("PWD", "")
    return told if os.path.isabs(told) and os.path.realpath(told) == os.getcwd() else os.getcwd()


def asterisk_conf(environment: Mapping[str, str]) -> str:
    return os.path.join(environment.get("AST_CONFIG_DIR") or "/etc/asterisk", "asterisk.conf")


def agi_folder(environment: Mapping[str, str]) -> str:
    """Asterisk's astagidir: from asterisk.conf, else the usual places. Raises ConfigurationError."""
    conf, named = asterisk_conf(environment), ""
    with contextlib.suppress(OSError):
        named = console.settings(conf).get("directories", {}).get("astagidir", "")
    folders = [named] if named else [folder for folder in USUAL_AGI_FOLDERS if os.path.isdir(folder)]
    if not folders:
        raise ConfigurationError(f"{conf} names no astagidir: noojee-agi install-agi FOLDER")
    return folders[0]


def link_programs(folder: str) -> list[str]:
    """Link every AGI program into folder, replacing older links. Raises ConfigurationError and OSError."""
    links, programs = [], linked_folder()
    for name in AGI_PROGRAMS:
        target, link = os.path.join(programs, name), os.path.join(folder, name)
        if not os.access(target, os.X_OK):
            raise ConfigurationError(f"{target} is not there: install noojee-agi with pip")
        if os.path.lexists(link) and not os.path.islink(link):
            raise ConfigurationError(f"{link} is a file of somebody else: move it away first")
        new = f"{link}.{os.urandom(8).hex()}.new"
        os.symlink(target, new)
        os.replace(new, link)
        links.append(f"{link} -> {target}")
    return links


def remove_links(folder: str) -> list[str]:
    """Remove from folder what link_programs() of this installation has made there. Raises OSError."""
    said = []
    for name in AGI_PROGRAMS:
        link = os.path.join(folder, name)
        if is_ours(link):
            os.unlink(link)
            said.append(f"{link} is removed")
        elif os.path.lexists(link):
            said.append(f"{link} is left alone: it is not this installation's")
    return said or [f"there are no programs in {folder}"]


def is_ours(link: str) -> bool:
    """Whether it is a link to the program of that name that was installed with this one."""
    return os.path.islink(link) and os.path.realpath(link) == os.path.join(
        programs_folder(), os.path.basename(link)
    )
