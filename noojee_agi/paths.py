"""Where the configuration and the server's socket are: the little that a hand-over must know.

It imports as little, since a call waits for it.
"""

import os

from noojee_agi import ini

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
    """What config.Config.socket_path says (a test compares), without a look at the rest of the file."""
    try:
        sections = ini.read(configuration_path or os.devnull)
    except (OSError, ValueError):  # then no call is recorded, wherever the server is
        sections = {}
    configured = sections.get("server", {}).get("socket", "")
    return configured or socket_in(sections.get("state", {}).get("directory", STATE_DIRECTORY))
