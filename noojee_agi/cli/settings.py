"""What a sysadmin sets: the database, the apiKey, accounts, and who sits where."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from typing import Any

import click

from noojee_agi.actions import access
from noojee_agi.asterisk import extensions
from noojee_agi.cli import output
from noojee_agi.config import Config
from noojee_agi.database import schema, settings
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import history, snapshot
from noojee_agi.recordings.people import HEAR_ALL
from noojee_agi.sync import opening, rebuild, renew_snapshot

_SHORT_KEY = 16


@click.group()
def db() -> None:
    """The database."""


@db.command("upgrade")
@click.pass_obj
def db_upgrade(config: Config) -> None:
    """Make or upgrade the tables."""
    store = Store(config.database_url)
    is_new = not store.revision()
    schema.upgrade(store)
    if is_new:
        opening.restore_settings(store, config)
    renew_snapshot.run(store, config.snapshot_file)
    output.say(f"{store.name} has schema {store.revision()}")


@click.group()
def apikey() -> None:
    """The key that a call must have in its channel variable (or the dialplan's global) apiKey."""


@apikey.command("new")
@click.pass_obj
def apikey_new(config: Config) -> None:
    """Make a new key and print it, this once. The old key ends at once."""
    key = secrets.token_hex(20)
    _set_key(config, key, shown=key)


@apikey.command("set")
@click.pass_obj
def apikey_set(config: Config) -> None:
    """Set the key that is read from standard input. The old key ends at once."""
    key = ask_key()
    if not key or key != key.strip() or not key.isprintable() or "\ufffd" in key:
        raise click.ClickException("an apiKey is one line of printable characters, no blanks at its ends")
    if len(key) < _SHORT_KEY:
        output.say(f"warning: under {_SHORT_KEY} characters, it can be guessed from its digest", err=True)
    _set_key(config, key)


def ask_key() -> str:
    """The key that somebody types unseen, or the first line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt("apiKey", hide_input=True))
    return sys.stdin.buffer.readline().decode("utf-8", "replace").rstrip("\r\n")


def _set_key(config: Config, key: str, shown: str = "") -> None:
    digest = access.digest(key)
    try:
        with changing(config, shown) as connection:
            settings.set_key_digest(connection, digest)
    except (NoojeeError, OSError) as exc:
        raise click.ClickException(f"{exc}: {_which_key_counts(config, digest)}") from exc


def _which_key_counts(config: Config, digest: str) -> str:
    """After a failure: a commit that was not answered may be done."""
    try:
        with opening.open_database(config).reading() as connection:
            is_new = settings.key_digest(connection) == digest
    except (NoojeeError, OSError):
        return "if a new key was given or printed, it may be valid or not: run this again later"
    return "all the same the new key is valid" if is_new else "the apiKey is the old one, a new one is void"


@contextlib.contextmanager
def changing(config: Config, shown: str = "") -> Iterator[Any]:
    """A transaction, with the snapshot in it: when that cannot be written, nothing has changed.

    shown: a key, printed before the commit: what cannot be shown shall not be. The snapshot is written again
    after the commit, since a drain may just have read what was there before; that, and the settings' copy,
    is no reason to say that nothing was done.
    """
    store = opening.open_database(config)
    with _put_back_unless_done(config.snapshot_file), store.transaction() as connection:
        yield connection
        snapshot.save(config.snapshot_file, settings.snapshot(connection))
        if shown:
            output.show(shown)
    try:
        renew_snapshot.run(store, config.snapshot_file)
    except (NoojeeError, OSError) as exc:
        output.say(f"warning: done, but {config.snapshot_file} cannot be renewed now: {exc}", err=True)
    save_settings(store, config)


@contextlib.contextmanager
def _put_back_unless_done(file: str) -> Iterator[None]:
    """The file as it was, by a link to it: a full disk has room for that."""
    before, was_there = f"{file}.before", os.path.exists(file)
    with contextlib.suppress(OSError):
        os.unlink(before)
    with contextlib.suppress(OSError):
        os.link(file, before)
    with contextlib.ExitStack() as unless_done:
        unless_done.callback(_put_back, before if was_there else "", file)
        yield
        unless_done.pop_all()
    with contextlib.suppress(OSError):
        os.unlink(before)


def _put_back(before: str, file: str) -> None:
    """before: the file's other name; empty when there was no file."""
    with contextlib.suppress(OSError):
        if before:
            os.rename(before, file)  # rename(2) leaves two names of one file alone
        os.unlink(before or file)


@click.group()
def account() -> None:
    """The accounts that own recordings."""


@account.command("add")
@click.argument("login")
@click.option("--name", default="", help="The person's name; the login when not given.")
@click.option("--group", "groups", multiple=True, help="Administrator, Recording Manager, … (repeatable).")
@click.pass_obj
def account_add(config: Config, login: str, name: str, groups: tuple[str, ...]) -> None:
    """Add an enabled account."""
    require_name(login, "LOGIN", 100)
    require_name(name or login, "--name", 255)
    for group in groups:
        require_group(group, "--group")
    with changing(config) as connection:
        settings.add_account(connection, login, name or login, groups)


@account.command("enable")
@click.argument("login")
@click.pass_obj
def account_enable(config: Config, login: str) -> None:
    """Let LOGIN own and hear recordings again."""
    with changing(config) as connection:
        settings.enable_account(connection, login, True)


@account.command("disable")
@click.argument("login")
@click.pass_obj
def account_disable(config: Config, login: str) -> None:
    """Let LOGIN own no more recordings by its name, and hear none; what it owns stays its own."""
    with changing(config) as connection:
        settings.enable_account(connection, login, False)


@account.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def account_list(config: Config, as_json: bool) -> None:
    """List all accounts with their groups and the extensions they are attached to."""
    with opening.open_database(config).reading() as connection:
        rows = settings.accounts(connection)
    if as_json:
        output.say_json(rows)
        return
    head = ("login", "name", "enabled", "groups", "extensions")
    output.table(head, [[output.cell(row[name]) for name in head] for row in rows])


@click.command()
@click.argument("login")
@click.argument("extension")
@click.pass_obj
def attach(config: Config, login: str, extension: str) -> None:
    """Let recordings of EXTENSION belong to LOGIN from now on; who had it until now is detached."""
    extension = extensions.of_interface(extension)
    require_name(extension, "EXTENSION", 149)
    with changing(config) as connection:
        settings.attach(connection, login, extension)
    try:
        output.show(f"recordings of {extension} belong to {login} from now on")
    except NoojeeError as exc:
        raise click.ClickException(f"{exc}, but {extension} is attached to {login}") from exc


@click.command()
@click.argument("extension")
@click.pass_obj
def detach(config: Config, extension: str) -> None:
    """Let recordings of EXTENSION belong to nobody from now on."""
    with changing(config) as connection:
        settings.detach(connection, extensions.of_interface(extension))


def require_name(value: str, what: str, limit: int) -> None:
    if not value or len(value) > limit or value != value.strip() or not value.isprintable():
        raise click.ClickException(
            f"{what} must have 1 to {limit} printable characters, without blanks at its ends"
        )


def require_group(name: str, what: str) -> None:
    """One that is spelled otherwise would be another group, which may hear nothing."""
    require_name(name, what, 100)
    known = {group.casefold(): group for group in (*HEAR_ALL, "Team Leader", "Agent")}
    if known.get(name.casefold(), name) != name:
        raise click.ClickException(f"the group is spelled {known[name.casefold()]}")


def save_settings(store: Store, config: Config) -> bool:
    """A copy with the recordings, for --rebuild; a failure is no reason to undo what was done."""
    path = rebuild.copy_path(config.recordings_directory)
    try:
        if history.load(config.state_directory).is_away(config.recordings_directory):
            problem = "is not renewed, since the disk of the recordings is not there: see noojee-agi check"
        elif rebuild.save_settings(store, config.recordings_directory):
            return True
        else:
            problem = "knows settings that the database has lost: noojee-agi sync --rebuild brings them back"
    except (OSError, NoojeeError) as exc:
        problem = f"cannot be renewed: {exc}"
    output.say(f"warning: {path}, the copy of the settings, {problem}", err=True)
    return False
