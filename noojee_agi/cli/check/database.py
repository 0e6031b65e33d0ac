"""The stages that are about the database: its use, its clock, the key, and whose legs it has."""

import os
import re
from datetime import timedelta

from noojee_agi.cli.check import cures, folders, logged, stage
from noojee_agi.config import Config
from noojee_agi.database import health, settings
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError, StoreRejected, StoreUnavailable
from noojee_agi.recordings import history, recording, sidecar
from noojee_agi.sync import housekeeping, opening

_CLOCK_SECONDS = 5.0
_LATELY = timedelta(hours=1)
_LOOKED_AT = 20
_LOCAL = ("", "localhost", "127.0.0.1", "::1")


def check(config: Config, owner: str, programs: str) -> str:
    """Whether it has its tables, and can be written. Raises NoojeeError."""
    url = Store(config.database_url).url
    if url.get_backend_name() == "sqlite":
        _require_files(str(url.database), owner)
    try:
        store = opening.open_database(config)
        right, table = health.missing_right(store)
        if right:
            raise NoojeeError(
                f"{store.name}: user {url.username} has no right to {right} in {table}",
                _psql(
                    store,
                    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
                    f' TO "{url.username}"',
                ),
            )
        health.try_to_write(store)
    except (StoreUnavailable, StoreRejected) as exc:
        raise NoojeeError(*_with_cure(str(exc), config, programs)) from exc
    return store.name


def is_in_state(config: Config) -> bool:
    """Whether it is a file in the state directory, as by itself."""
    url = Store(config.database_url).url
    return os.path.dirname(str(url.database)) == config.state_directory


def _require_files(file: str, owner: str) -> None:
    """SQLite's, which it writes beside each other. Raises NoojeeError."""
    folder = os.path.dirname(file)
    if not os.path.isdir(folder):
        if folders.closed_part(folder):
            raise NoojeeError(*folders.closed(folder))
        raise NoojeeError(f"{folder}, the database's folder, is not there", cures.make_folder(folder, owner))
    folders.require_changeable(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NoojeeError(
            f"{folder}, the database's folder, cannot be written by user {stage.user()}",
            cures.give(folder, owner, "0750"),
        )
    folders.require_files((file, f"{file}-wal", f"{file}-shm"), owner)


def _with_cure(said: str, config: Config, programs: str) -> tuple[str, str]:
    """What the database or its driver has said, and what to do about it."""
    before, ran, command = said.rpartition(": run noojee-agi ")
    if ran:
        return before, cures.ours(programs, *command.split())
    before, newer, _ = said.rpartition(": install the newer noojee-agi")
    if newer:
        return before, cures.install_again(programs)
    store = Store(config.database_url)
    url = store.url
    if url.get_backend_name() == "sqlite":
        return said, _of_sqlite(said, str(url.database), programs)
    host, port = url.host or str(url.query.get("host", "")), url.port or 5432
    of_user = "the user and password in url of [database]" + (f" in {config.path}" if config.path else "")
    for pattern, cure in (
        (r"database \S+ does not exist", f"sudo -u postgres createdb {stage.quoted(str(url.database))}"),
        (
            r"read-only transaction",
            _psql(store, f'ALTER DATABASE "{url.database}" RESET default_transaction_read_only'),
        ),
        (r"password|role \S+ does not exist|pg_hba", f"{of_user}, as PostgreSQL has them"),
        (r"translate host name", f"the host in url of [database], which cannot be looked up: {host}"),
        (
            r"refused|timeout|timed out|No such file|could not connect|not respond|unreachable",
            "systemctl start postgresql" if host in _LOCAL else f"start PostgreSQL on {host}, port {port}",
        ),
    ):
        if re.search(pattern, said):
            return said, cure
    return said, f"see the log of PostgreSQL on {host or 'this machine'}"


def _of_sqlite(said: str, file: str, programs: str) -> str:
    if "malformed" in said or "not a database" in said:
        moved = stage.quoted("mv", file, f"{file}.bad")
        rest = stage.quoted("rm", "-f", f"{file}-wal", f"{file}-shm")
        return f"{moved} && {rest} && {cures.ours(programs, 'sync', '--rebuild')}"
    if "locked" in said and (holder := _holder(file)):
        return f"kill {holder}"
    return f"free some space on {folders.mount_point(os.path.dirname(file))}"


def _holder(file: str) -> int:
    """The process that has it locked (proc(5), locks); 0 when there is none any more."""
    paths = (file, f"{file}-shm")
    numbers = {os.stat(path).st_ino for path in paths if os.path.exists(path)}
    with open("/proc/locks", encoding="utf-8") as locks:
        for line in locks:
            words = line.split()
            if "WRITE" in words and int(words[-3].rpartition(":")[2]) in numbers:
                return int(words[-4])
    return 0


def _psql(store: Store, statement: str) -> str:
    writes = "env PGOPTIONS='-c default_transaction_read_only=off'"
    return f"sudo -u postgres {writes} psql {stage.quoted('-d', str(store.url.database), '-c', statement)}"


def clocks(config: Config) -> str:
    """Raises NoojeeError when they are too far apart to say who sat where when a call came."""
    store = opened(config)
    if store.url.get_backend_name() == "sqlite":
        return "one, the database is a file of this machine"
    ahead = health.clock_difference(store)
    if abs(ahead) > _CLOCK_SECONDS:
        which = "ahead of" if ahead > 0 else "behind"
        raise NoojeeError(
            f"the database's clock is {abs(ahead):.0f} s {which} this machine's",
            "timedatectl set-ntp true (on both machines)",
        )
    return f"{abs(ahead):.1f} s apart"


def opened(config: Config) -> Store:
    """The database, where another stage tells what is wrong with it. Raises NotSeen."""
    try:
        return opening.open_database(config)
    except (NoojeeError, OSError) as exc:
        raise stage.NotSeen("the database cannot be used") from exc


def key_digest(config: Config) -> str:
    """Of the system's key; empty when there is none. Raises NotSeen."""
    with opened(config).reading() as connection:
        return settings.key_digest(connection)


def key(config: Config, programs: str) -> str:
    if not key_digest(config):
        raise NoojeeError("none is set, so no call is recorded", cures.ours(programs, "apikey", "new"))
    if not os.path.exists(config.snapshot_file):
        return "set; Asterisk's first call writes the snapshot"
    return "set"


def open_legs(config: Config, programs: str) -> str:
    known, store = history.load(config.state_directory).with_server(config.server_name), opened(config)
    legs = housekeeping.open_legs(store, known)
    if problems := housekeeping.left_open(legs):
        raise NoojeeError(problems[0])
    with store.reading() as connection:
        until = recording.now() - housekeeping.GONE_AFTER
        for server, count in health.others_with_open_legs(connection, until):
            if server not in known.servers:
                raise NoojeeError(
                    f"{count} legs of server {server}, which has begun nothing for a day, are open still",
                    cures.ours(programs, "sync", "--gone", server),
                )
    return f"{len(legs)} legs are being recorded"


def server_name(config: Config, programs: str, has_database: bool) -> str:
    host, known = os.uname().nodename, history.load(config.state_directory)
    if known.is_foreign():
        names = ", ".join(known.servers)
        raise NoojeeError(
            f"{config.state_directory} is another machine's too ({names}): each must have its own, with its"
            " own [server] name; if this is a copy of that machine",
            cures.ours(programs, "sync"),
        )
    if config.server_name == known.host != host and not Config.load_file(config.path).server_name:
        raise NoojeeError(
            f"{known.host}, which was this host's name at first, not {host}; a copy of this machine may have"
            f" it, too: say which it is with [server] name, {known.host} on one machine alone",
            cures.option(config, "server", "name", known.host),
        )
    if has_database:
        _require_one_host(config)
    return config.server_name


def _is_elsewhere(file: str, leg_id: str, config: Config) -> bool:
    """Whether nothing here knows of it: somebody may have moved what was recorded here, but not our log."""
    if os.path.exists(file) or os.path.exists(sidecar.path_for(file)):
        return False
    return leg_id not in logged.end_of(config.log_file)


def _require_one_host(config: Config) -> None:
    """What this server has recorded in the last hour must be here, or another host has its name.

    Raises NoojeeError.
    """
    with opened(config).reading() as connection:
        since = recording.now() - _LATELY
        legs = health.lately_ended(connection, config.server_name, since, _LOOKED_AT)
    away = [leg["file"] for leg in legs if _is_elsewhere(leg["file"], leg["id"], config)]
    if away:
        host = os.uname().nodename
        name = host if host != config.server_name else f"{host}-2"
        raise NoojeeError(
            f"{config.server_name} is another host's name, too: {away[0]} was recorded a short time ago,"
            " and is not here",
            cures.option(config, "server", "name", name),
        )
