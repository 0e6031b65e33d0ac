"""As whom check looks: as Asterisk's user, whoever has run it."""

import os

from noojee_agi.asterisk.console import DEFAULT_CONF
from noojee_agi.cli import identity
from noojee_agi.cli.check import cures
from noojee_agi.config import Config
from noojee_agi.database.store import Store
from noojee_agi.errors import ConfigurationError


def begin(configuration: str, asterisk_socket: str) -> Config:
    """Read the configuration; root becomes, for good, Asterisk's user, also where a folder is not there.

    That is the first other user to whom a part of the way to Asterisk's own socket, or else to our folders,
    belongs. Raises ConfigurationError and OSError.
    """
    if os.geteuid() != 0:
        config = Config.load(configuration)
        _require_own(config.recordings_directory)
        return config
    part = identity.act_for_first([configuration] if configuration else [])
    config = Config.load_file(configuration)
    ways = [asterisk_socket, config.recordings_directory, config.state_directory, _folder_of_database(config)]
    for way in filter(None, ways):
        part = part or identity.act_for_first([way])
    if not part:
        identity.require_roots(config)
    return config.with_name()


def _folder_of_database(config: Config) -> str:
    """SQLite's; empty for another."""
    url = Store(config.database_url).url
    return os.path.dirname(str(url.database)) if url.get_backend_name() == "sqlite" else ""


def _require_own(directory: str) -> None:
    """Whoever else looks, sees faults that are none. Raises ConfigurationError."""
    try:
        holder = os.stat(directory).st_uid
    except (FileNotFoundError, NotADirectoryError):
        return
    if holder != os.geteuid():
        his, ours = identity.user_name(holder), identity.user_name(os.geteuid())
        raise ConfigurationError(
            f"{directory} is user {his}'s, and user {ours} does not see what that user sees",
            f"sudo {cures.check_with(DEFAULT_CONF)}",
        )
