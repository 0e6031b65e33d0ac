"""Where our programs lie, and how Asterisk finds them."""

import os
import re
import sys
from collections.abc import Mapping

from noojee_agi.errors import ConfigurationError

AGI_PROGRAMS = ("start_record.py", "stop_record.py")
USUAL_AGI_FOLDERS = ("/usr/share/asterisk/agi-bin", "/var/lib/asterisk/agi-bin")


def programs_folder() -> str:
    """The folder of the programs that were installed with this one."""
    return os.path.dirname(os.path.realpath(sys.argv[0]))


def asterisk_conf(environment: Mapping[str, str]) -> str:
    return os.path.join(environment.get("AST_CONFIG_DIR") or "/etc/asterisk", "asterisk.conf")


def agi_folder(environment: Mapping[str, str]) -> str:
    """Asterisk's astagidir: from asterisk.conf, else the usual places. Raises ConfigurationError."""
    conf = asterisk_conf(environment)
    try:
        with open(conf, encoding="utf-8", errors="replace") as file:
            found = re.search(r"^\s*astagidir\s*=>?\s*([^;\s]+)", file.read(), re.MULTILINE)
    except OSError:
        found = None
    folders = [found[1]] if found else [folder for folder in USUAL_AGI_FOLDERS if os.path.isdir(folder)]
    if not folders:
        raise ConfigurationError(f"{conf} names no astagidir: noojee-agi install-agi FOLDER")
    return folders[0]


def link_programs(folder: str) -> list[str]:
    """Link every AGI program into folder, replacing older links. Raises ConfigurationError and OSError."""
    links = []
    for name in AGI_PROGRAMS:
        target, link = os.path.join(programs_folder(), name), os.path.join(folder, name)
        if not os.access(target, os.X_OK):
            raise ConfigurationError(f"{target} is not there: install noojee-agi with pip")
        if os.path.lexists(link) and not os.path.islink(link):
            raise ConfigurationError(f"{link} is a file of somebody else: move it away first")
        new = f"{link}.{os.urandom(8).hex()}.new"
        os.symlink(target, new)
        os.replace(new, link)
        links.append(f"{link} -> {target}")
    return links
