"""The stage `manager`: whether other calls than the asking one can be recorded. They need not be."""

import contextlib
import os
import re

from noojee_agi import text
from noojee_agi.asterisk import manager, other_calls, rights
from noojee_agi.cli.check import cures, stage
from noojee_agi.cli.check.running import Running
from noojee_agi.config import Config
from noojee_agi.errors import ManagerUnavailable, NoojeeError

_RIGHTS = {"system", "call"}
_RELOAD = "manager reload"
_RESTART = "core restart when convenient"  # when no call is up


def check(running: Running, config: Config) -> str:
    """Raises NoojeeError."""
    if not config.manager_username:
        return "not configured, only the call that asks can be recorded"
    try:
        with contextlib.closing(manager.Manager(config)) as asked:
            rights.require_all(asked)
            count = len(other_calls.channels(asked))
    except ManagerUnavailable as exc:
        raise NoojeeError(str(exc), _cure(str(exc), running, config)) from exc
    unseen = _require_events(running, config) if config.recordings_follow == "yes" else ""
    return f"{count} channels at {config.manager_host}:{config.manager_port}{unseen}"


def _require_events(running: Running, config: Config) -> str:
    """What tells the server that somebody else talks now; what could not be seen. Raises NoojeeError.

    An event that is not allowed is not sent, and nothing says so (manager.c): Asterisk's command line does.
    """
    name = config.manager_username
    try:
        rights = _rights("read", running.ask(f"manager show user {stage.quoted(name)}"))
        conf = os.path.join(running.setting("Configuration directory"), "manager.conf")
    except stage.NotSeen:
        return "; whether they tell of transfers (read = call) could not be seen"
    if rights & {"call", "all"}:
        return ""
    raise NoojeeError(
        f"user {text.plain(name)} hears of no transfer, so a recording follows its call seconds late",
        f"{cures.set_in(conf, name, 'read', 'call')} && {running.cure(_RELOAD)}",
    )


def _rights(kind: str, user: str) -> set[str]:
    """Of what `manager show user` says."""
    found = re.search(rf"{kind} perm: (\S*)", user)
    return set(found[1].split(",")) if found else set()


def _cure(said: str, running: Running, config: Config) -> str:
    """By what the Asterisk that runs here says of its manager interface, where it may be asked."""
    try:
        settings = running.ask("manager show settings")
        name, folder = config.manager_username, running.setting("Configuration directory")
        user = running.ask(f"manager show user {stage.quoted(name)}")
    except stage.NotSeen:
        return f"compare [manager] in {config.path} with manager.conf"
    conf, again = os.path.join(folder, "manager.conf"), running.cure(_RELOAD)
    if not re.search(r"Manager \(AMI\):\s+Yes", settings):
        opened = again if _opens_again(running) else running.cure(_RESTART)
        return f"{cures.set_in(conf, 'general', 'enabled', 'yes')} && {opened}"
    port = re.search(r"TCP Bindaddress:\s+\S*:(\d+)", settings)
    if port and int(port[1]) != config.manager_port:
        return cures.option(config, "manager", "port", port[1])
    if "refused" in said:
        return running.cure(_RESTART)
    if "username:" not in user:
        return f"{_add_user(conf, config)} && {again}"
    given = _rights("write", user)
    if given and "all" not in given and not given >= _RIGHTS:
        return f"{cures.set_in(conf, name, 'write', 'system,call')} && {again}"
    return f"the line secret = … of [manager] in {config.path}, as [{name}] of {conf} has it"


def _opens_again(running: Running) -> bool:
    """Whether a reload opens what it has closed: 22 does, 16 says that it is open, and refuses who comes."""
    return int(running.setting("Version").split(".")[0]) >= 22


def _add_user(conf: str, config: Config) -> str:
    """The secret goes from file to file: nobody sees it on the way."""
    secret = f'"$(sed -n "s/^ *secret *= *//p" {stage.quoted(config.path)})"'
    lines = (
        "\\n[%s]\\nsecret = %s\\nread = call\\nwrite = system,call\\npermit = 127.0.0.1/255.255.255.255\\n"
    )
    return f"printf '{lines}' {stage.quoted(config.manager_username)} {secret} >> {stage.quoted(conf)}"
