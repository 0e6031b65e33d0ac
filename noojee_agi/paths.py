"""Where the configuration and the server's socket are: the little that a hand-over must know.

It imports os alone, since a call waits for it.
"""

import os

TYPE_CHECKING = False  # importing collections for it would cost the caller 2 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME = "noojee_agi.conf"
STATE_DIRECTORY = "/var/lib/noojee-agi"
_SOCKET_NAME = "agi.sock"


def configuration(environment: "Mapping[str, str]") -> str:
    """The configuration file by the documented order; empty when there is none.

    A file that NOOJEE_AGI_CONF names is meant, so it is returned although it may not exist.
    """
    named = environment.get("NOOJEE_AGI_CONF")
    if named:
        return named
    directories = [environment.get("AST_CONFIG_DIR"), "/etc/asterisk"]
    candidates = [os.path.join(directory, FILE_NAME) for directory in directories if directory]
    return next((candidate for candidate in candidates if os.path.exists(candidate)), "")


def socket_in(state_directory: str) -> str:
    """The server's socket where no other is configured."""
    return os.path.join(state_directory, _SOCKET_NAME)


def socket(configuration_path: str) -> str:
    """What config.Config.socket_path says, without a parser that takes 3 ms to import (a test compares)."""
    options: dict[tuple[str, str], str] = {}
    section, option, indent = "", "", 0
    for line in _lines(configuration_path):
        text = line.strip()
        if not text or text[0] in "#;":
            continue
        before, indent = indent, len(line) - len(line.lstrip())
        if option and indent > before:  # goes on with that option
            indent = before
            options[section, option] = f"{options[section, option]}\n{text}".strip()
        elif text[0] == "[":
            section, option = text[1:].partition("]")[0], ""
        else:
            end = next((at for at, character in enumerate(text) if character in "=:"), len(text))
            option = text[:end].strip().lower()
            options.setdefault((section, option), text[end + 1 :].strip())
    configured = options.get(("server", "socket"), "")
    return configured or socket_in(options.get(("state", "directory"), STATE_DIRECTORY))


def _lines(path: str) -> list[str]:
    try:
        with open(path or os.devnull, encoding="utf-8", errors="replace") as file:
            return list(file)
    except OSError:
        return []
