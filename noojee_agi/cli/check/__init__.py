"""`noojee-agi check`: every stage between the dialplan and the database, with ok or what to do."""

import os
from collections.abc import Iterator

from noojee_agi.cli import identity
from noojee_agi.cli.check import (
    asterisk,
    cures,
    database,
    dialplan,
    disks,
    events,
    http,
    manager,
    programs,
    running,
    server,
    stage,
)
from noojee_agi.cli.check.running import Running
from noojee_agi.cli.check.stage import OK, Stage, look, look_behind
from noojee_agi.config import Config
from noojee_agi.recordings import disk

__all__ = ["Stage", "stages"]


def stages(
    config: Config, folder: str, asked: Running | None = None, is_passive: bool = False
) -> Iterator[Stage]:
    """Run every stage, also after a failed one. folder: of our programs. asked: the Asterisk that runs.

    is_passive: leave no line in our log, and run no program for that.
    """
    pbx = asked or Running(os.devnull)
    owner = cures.owner(pbx.owner)
    yield look("configuration", lambda: disks.configuration(config, owner))
    yield look("asterisk", lambda: running.check(pbx, config))
    yield (recordings := look("recordings", lambda: disks.recordings(config, owner)))
    silent = recordings if disk.does_not_answer() else None  # who looks there waits for ever
    yield (state := look("state", lambda: disks.state(config, owner)))
    yield look_behind(silent, "free space", lambda: disks.free_space(config))
    yield look("programs", lambda: _programs(pbx, config, folder, is_passive))
    yield look("links", lambda: asterisk.links(pbx, folder))
    yield look("modules", lambda: asterisk.modules(pbx, config))
    below = state if database.is_in_state(config) and not os.path.isdir(config.state_directory) else None
    yield (store := look_behind(below, "database", lambda: database.check(config, owner, folder)))
    yield look_behind(store, "clocks", lambda: database.clocks(config))
    yield look_behind(store, "apiKey", lambda: database.key(config, folder))
    yield look_behind(store, "key of calls", lambda: _key_of_calls(pbx, config, folder))
    yield look("dialplan", lambda: dialplan.check(pbx, config))
    yield look("queues", lambda: dialplan.queues(pbx, config))
    yield look("recorders", lambda: dialplan.others(pbx, config))
    yield look_behind(recordings, "spool", lambda: events.waiting(config, owner, folder))
    yield look_behind(silent, "drains", lambda: events.drains(config, folder))
    yield look_behind(silent, "rejected", lambda: events.refused(config, folder))
    yield look_behind(silent, "former spools", lambda: events.former_spools(config, folder))
    yield look_behind(silent or store, "open legs", lambda: database.open_legs(config, folder))
    yield look("server name", lambda: database.server_name(config, folder, store.state == OK and not silent))
    yield look("server", lambda: server.check(config))
    yield look("http", lambda: http.check(config, owner, folder))
    yield look("manager", lambda: manager.check(pbx, config))


def _programs(pbx: Running, config: Config, folder: str, is_passive: bool) -> str:
    """As Asterisk's user, with Asterisk's environment; with our own where Asterisk cannot be asked."""
    if is_passive:
        raise stage.NotSeen("not run, since each of them would leave a line in the log")
    if pbx.owner not in (None, os.geteuid()):
        raise stage.NotSeen(f"only user {identity.user_name(pbx.owner or 0)} runs them as Asterisk does")
    try:
        environment = pbx.environment
    except stage.NotSeen:
        environment = {"NOOJEE_AGI_CONF": config.path} if config.path else {}
    return programs.check(folder, environment)


def _key_of_calls(pbx: Running, config: Config, folder: str) -> str:
    pbx.setting("Version")  # first of all: without it there is nothing to compare
    digest = database.key_digest(config)
    if not digest:
        raise stage.NotSeen("there is no key to compare with")
    return asterisk.key_of_calls(pbx, config, digest, folder)
