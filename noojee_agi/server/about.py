"""What a server says of itself for `noojee-agi check`: its program, and its configuration."""

import hashlib
import os
from pathlib import Path

from noojee_agi.config import Config


def program() -> str:
    """The program as it lies on the disk now: another one after an upgrade."""
    digest = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        digest.update(b"%b\0%b\0" % (os.fsencode(path.relative_to(folder)), path.read_bytes()))
    return digest.hexdigest()


def configuration(config: Config) -> str:
    """All options, secrets too: the same for the same file only."""
    return hashlib.sha256(repr(tuple(config)).encode("utf-8", "surrogatepass")).hexdigest()


def fixed(config: Config) -> str:
    """What a running server cannot change."""
    sockets = (config.server_listen, config.socket_path, config.http_listen)
    return f"{' '.join(sockets)} {config.server_threads} {bool(config.http_certificate)}"


def of_server(program: str, begun: Config, config: Config) -> dict[str, str]:
    """What goes with its numbers. begun: the configuration that it began with."""
    return {
        "program": program,
        "path": config.path,
        "fixed": fixed(begun),
        "configuration": configuration(config),
    }
