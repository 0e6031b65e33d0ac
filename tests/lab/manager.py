"""The manager interface of a private Asterisk: its configuration, and ours."""

from __future__ import annotations

from collections.abc import Mapping

USER, SECRET = "noojee", "s3cret-of-the-manager"
_GENERAL = """\
[general]
enabled = yes
bindaddr = 127.0.0.1
port = {port}
{more}
"""
# As agi/README.md has it.
_USER = """\
[noojee]
secret = {secret}
read = call
write = {write}
deny = 0.0.0.0/0.0.0.0
permit = 127.0.0.1/255.255.255.255
"""
# One who may do the same, and hears of no call.
DEAF = "deaf"


def manager_conf(port: int, write: str = "system,call", more: str = "") -> str:
    """manager.conf with our user; more: further lines of [general]."""
    user = _USER.format(secret=SECRET, write=write)
    deaf = user.replace(f"[{USER}]", f"[{DEAF}]").replace("read = call\n", "")
    return _GENERAL.format(port=port, more=more) + user + deaf


def options(port: int, secret: str = SECRET) -> Mapping[str, str]:
    """The [manager] section of noojee_agi.conf."""
    return {"manager.port": str(port), "manager.username": USER, "manager.secret": secret}
