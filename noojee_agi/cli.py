"""The command line: noojee-agi."""

import contextlib
import json
import os
import pwd
import secrets
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import click

from noojee_agi import access, check, config, drain, extensions, install, places, rebuild, snapshot, spool
from noojee_agi.config import Config
from noojee_agi.database import queries, schema, settings
from noojee_agi.database.store import Store
from noojee_agi.errors import ConfigurationError, NoojeeError
from noojee_agi.server import Server

JSON_FIELDS = (
    *("id", "call_record_id", "leg", "uniqueid", "call_uniqueid", "channel", "extension"),
    *("source", "destination", "did", "external_reference", "tag", "owner", "agent_login_name"),
    *("file", "status", "started_at", "ended_at", "duration_seconds", "bytes"),
)
_COLUMNS = (
    *("started_at", "call_uniqueid", "leg", "extension", "owner", "tag"),
    *("status", "duration_seconds", "id", "file"),
)
_SHORT_KEY = 16
_LONG_WORK = 1000


class _Commands(click.Group):
    """Errors are one line with the next step; --debug shows where they come from."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (NoojeeError, OSError) as exc:
            if context.params["debug"]:
                raise
            raise click.ClickException(str(exc)) from exc
        except ImportError as exc:  # as another user than root
            if context.params["debug"]:
                raise
            raise click.ClickException(
                f"user {os.geteuid()} cannot read this installation ({exc}):"
                " install it in a folder that Asterisk's user can enter, such as /opt/noojee-agi"
            ) from exc


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.version_option(package_name="noojee-agi")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Records Asterisk calls from the dialplan and loses none of them."""
    if context.invoked_subcommand == "install-agi":
        return
    os.umask(0o027)
    context.obj = config.load(places.configuration(os.environ))
    directory = context.obj.recordings_directory
    if context.invoked_subcommand == "check" and not os.path.isdir(directory):
        directory = context.obj.state_directory
        if not os.path.isdir(directory):
            return  # check says so, and has no place to leave a file in
    act_as_owner(directory)


def act_as_owner(directory: str) -> None:
    """As root, become the owner of the recordings: no file may be left that Asterisk's user cannot write.

    Raises ConfigurationError when the directory is not there to tell.
    """
    if os.geteuid() != 0:
        return
    try:
        owner = os.stat(directory)
    except OSError as exc:
        raise ConfigurationError(
            f"[recordings] directory = {directory}: {exc.strerror}:"
            f" install -d -o asterisk -g asterisk -m 0750 {directory}"
        ) from exc
    if owner.st_uid == 0:
        return
    try:
        account = pwd.getpwuid(owner.st_uid)
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.environ["HOME"] = account.pw_dir  # libpq looks for certificates there, and root's is closed to us
    except KeyError:  # an owner that has no name here
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.environ["HOME"] = "/nonexistent"
    os.setuid(owner.st_uid)


@cli.command("check")
@click.pass_obj
def check_command(known: Config) -> None:
    """Check every stage, from the configuration to the database."""
    failed = 0
    for stage in check.stages(known, install.programs_folder()):
        click.echo(f"{'ok  ' if stage.is_ok else 'FAIL'}  {stage.name:<14} {stage.text}")
        failed += not stage.is_ok
    if failed:
        sys.exit(1)


@cli.group()
def db() -> None:
    """The database."""


@db.command("upgrade")
@click.pass_obj
def db_upgrade(known: Config) -> None:
    """Make or upgrade the tables."""
    store = Store(known.database_url)
    is_new = not store.revision()
    schema.upgrade(store)
    if is_new:
        drain.restore_settings(store, known)
    drain.renew_snapshot(store, known.snapshot_file)
    click.echo(f"{store.name} has schema {store.revision()}")


@cli.group()
def apikey() -> None:
    """The key that a call must have in its channel variable (or the dialplan's global) apiKey."""


@apikey.command("new")
@click.pass_obj
def apikey_new(known: Config) -> None:
    """Make a new key and print it, this once. The old key ends at once."""
    key = secrets.token_hex(20)
    _set_key(known, key)
    click.echo(key)


@apikey.command("set")
@click.pass_obj
def apikey_set(known: Config) -> None:
    """Set the key that is read from standard input. The old key ends at once."""
    if sys.stdin.isatty():
        key = click.prompt("apiKey", hide_input=True)
    else:
        key = sys.stdin.buffer.readline().decode("utf-8", "replace").rstrip("\r\n")
    if not key or key != key.strip() or not key.isprintable() or "\ufffd" in key:
        raise click.ClickException("an apiKey is one line of printable characters, no blanks at its ends")
    if len(key) < _SHORT_KEY:
        click.echo(f"warning: under {_SHORT_KEY} characters, it can be guessed from its digest", err=True)
    _set_key(known, key)


def _set_key(known: Config, key: str) -> None:
    with _changing(known) as connection:
        settings.set_key_digest(connection, access.digest(key))


@contextlib.contextmanager
def _changing(known: Config) -> Iterator[Any]:
    """A transaction, with the snapshot in it: when that cannot be written, nothing has changed.

    It is written again after the commit: a drain may just have read what was there before.
    """
    store = drain.open_database(known)
    with store.transaction() as connection:
        yield connection
        snapshot.save(known.snapshot_file, settings.snapshot(connection))
    drain.renew_snapshot(store, known.snapshot_file)
    _save_settings(store, known)


@cli.group()
def account() -> None:
    """The accounts that own recordings."""


@account.command("add")
@click.argument("login")
@click.option("--name", default="", help="The person's name; the login when not given.")
@click.option("--group", "groups", multiple=True, help="Administrator, Recording Manager, … (repeatable).")
@click.pass_obj
def account_add(known: Config, login: str, name: str, groups: tuple[str, ...]) -> None:
    """Add an enabled account."""
    _require_name(login, "LOGIN", 100)
    _require_name(name or login, "--name", 255)
    for group in groups:
        _require_name(group, "--group", 100)
    with _changing(known) as connection:
        settings.add_account(connection, login, name or login, groups)


@account.command("enable")
@click.argument("login")
@click.pass_obj
def account_enable(known: Config, login: str) -> None:
    """Let LOGIN own and hear recordings again."""
    with _changing(known) as connection:
        settings.enable_account(connection, login, True)


@account.command("disable")
@click.argument("login")
@click.pass_obj
def account_disable(known: Config, login: str) -> None:
    """Let LOGIN own no more recordings by its name, and hear none; what it owns stays its own."""
    with _changing(known) as connection:
        settings.enable_account(connection, login, False)


@account.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def account_list(known: Config, as_json: bool) -> None:
    """List all accounts with their groups and the extensions they are attached to."""
    with drain.open_database(known).reading() as connection:
        rows = settings.accounts(connection)
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    head = ("login", "name", "enabled", "groups", "extensions")
    _table(head, [[_cell(row[name]) for name in head] for row in rows])


@cli.command()
@click.argument("login")
@click.argument("extension")
@click.pass_obj
def attach(known: Config, login: str, extension: str) -> None:
    """Let recordings of EXTENSION belong to LOGIN from now on; who had it until now is detached."""
    extension = extensions.of_interface(extension)
    _require_name(extension, "EXTENSION", 149)
    with _changing(known) as connection:
        settings.attach(connection, login, extension)
    click.echo(f"recordings of {extension} belong to {login} from now on")


@cli.command()
@click.argument("extension")
@click.pass_obj
def detach(known: Config, extension: str) -> None:
    """Let recordings of EXTENSION belong to nobody from now on."""
    with _changing(known) as connection:
        settings.detach(connection, extensions.of_interface(extension))


def _require_name(value: str, what: str, limit: int) -> None:
    if not value or len(value) > limit or value != value.strip() or not value.isprintable():
        raise click.ClickException(
            f"{what} must have 1 to {limit} printable characters, without blanks at its ends"
        )


@cli.command()
@click.option("--id", "leg_id", help="The leg's: RECORDING_ID.")
@click.option("--tag", help="Of the leg, or External Reference of the call.")
@click.option("--uniqueid", help="Of the channel or of the call.")
@click.option("--owner", help="A login.")
@click.option("--status", type=click.Choice(["recording", "completed", "empty", "failed", "interrupted"]))
@click.option("--from", "started_from", type=click.DateTime(), help="Started then or later, local time.")
@click.option("--to", "started_to", type=click.DateTime(), help="Started before, local time.")
@click.option("--as", "heard_by", metavar="LOGIN", help="Only what this account may hear.")
@click.option("--json", "as_json", is_flag=True, help="A list with one object per leg.")
@click.pass_obj
def recordings(
    known: Config,
    /,
    as_json: bool,
    started_from: datetime | None,
    started_to: datetime | None,
    **wanted: str | None,
) -> None:
    """List recording legs, oldest first."""
    wanted_legs = queries.Filter(
        started_from=_local(started_from),
        started_to=_local(started_to),
        **wanted,
    )
    with drain.open_database(known).reading() as connection:
        if wanted_legs.heard_by and not settings.has_account(connection, wanted_legs.heard_by):
            click.echo(f"there is no account {wanted_legs.heard_by}", err=True)
        rows = list(queries.legs(connection, wanted_legs))
    if as_json:
        legs = [{name: row[name] for name in JSON_FIELDS} for row in rows]
        click.echo(json.dumps(legs, indent=1, ensure_ascii=False, default=lambda value: value.isoformat()))
        return
    _table(_COLUMNS, [[_cell(row[name]) for name in _COLUMNS] for row in rows])


def _local(moment: datetime | None) -> datetime | None:
    try:
        # Not astimezone(): it takes a time that summer time leaves out for an hour too early.
        return datetime.fromtimestamp(moment.timestamp(), timezone.utc) if moment else None
    except (ValueError, OverflowError) as exc:
        raise click.ClickException(f"{moment} is out of range") from exc


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    if value in (None, ""):
        return "-"
    return "".join(character if character.isprintable() else "?" for character in str(value))


def _table(head: Any, rows: list[Any]) -> None:
    lines = [[str(cell) for cell in line] for line in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@cli.command()
@click.option("--retry-rejected", is_flag=True, help="Try again what the database has refused.")
@click.option("--rebuild", "is_rebuild", is_flag=True, help="Make rows that are missing from the side-cars.")
@click.pass_obj
def sync(known: Config, retry_rejected: bool, is_rebuild: bool) -> None:
    """Bring what waits in the spool into the database. Safe to repeat, and beside live calls."""
    # What the spool holds comes after that: an ending may wait there, or have been set aside, for its leg.
    store = drain.open_database(known)
    failed = _rebuild(store, known) if is_rebuild else 0
    if retry_rejected or is_rebuild:
        spool.retry_rejected(known.spool_directory)
    _drain(store, known)
    closed = drain.close_silent_legs(store, known.server_name, known.spool_directory)
    if closed:
        click.echo(f"{closed} legs closed that had ended without a word")
    drain.renew_snapshot(store, known.snapshot_file)
    is_copied = _save_settings(store, known)
    if is_rebuild:
        for path in rebuild.files_without_side_car(store, known.recordings_directory):
            click.echo(f"nothing is known of {_cell(path)}: it has no side-car, and is left alone")
        drain.run(store, known.spool_directory)  # its own drain found the spool locked by us
    aside = spool.rejected(known.spool_directory)
    for path in aside:
        click.echo(f"refused by the database: {path}; the reason is in {path}.reason", err=True)
    if aside:
        raise click.ClickException("mend the cause, then run noojee-agi sync --retry-rejected")
    if failed:
        raise click.ClickException(f"{failed} files could not be used: see above")
    if not is_copied:
        sys.exit(1)


def _drain(store: Store, known: Config) -> None:
    with _progress("storing", len(spool.waiting(known.spool_directory))) as update:
        result = drain.run(store, known.spool_directory, update)
    click.echo(f"{result.stored} events stored, {result.rejected} set aside, {len(result.left)} for later")
    if result.busy:
        click.echo("another drain is at work and takes the rest")


def _rebuild(store: Store, known: Config) -> int:
    """Make every row again that the recordings tell of; returns how many files could not be used."""
    with _progress("rebuilding", rebuild.count_side_cars(known.recordings_directory)) as update:
        result = rebuild.run(store, known.recordings_directory, update)
    drain.restore_key(store, known.snapshot_file)
    click.echo(
        f"{result.side_cars} side-cars read, {result.legs} legs and {result.settings} settings made again"
    )
    for path, reason in result.refused.items():
        click.echo(f"{_cell(path)} cannot be used: {_cell(reason)}", err=True)
    return len(result.refused)


def _save_settings(store: Store, known: Config) -> bool:
    """A copy with the recordings, for --rebuild; a failure is no reason to undo what was done."""
    path = rebuild.copy_path(known.recordings_directory)
    try:
        if rebuild.save_settings(store, known.recordings_directory):
            return True
        problem = "knows settings that the database has lost: noojee-agi sync --rebuild brings them back"
    except (OSError, NoojeeError) as exc:
        problem = f"cannot be renewed: {exc}"
    click.echo(f"warning: {path}, the copy of the settings, {problem}", err=True)
    return False


@contextlib.contextmanager
def _progress(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a line for each tenth of long work."""
    if sys.stderr.isatty():
        with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
            yield bar.update
        return
    done = 0

    def update(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if length >= _LONG_WORK and done * 10 // length > before * 10 // length:
            click.echo(f"{label}: {done} of {length}", err=True)

    yield update


@cli.command()
@click.pass_obj
def serve(known: Config) -> None:
    """Serve AGI programs and FastAGI until SIGTERM; SIGHUP reads the configuration anew."""
    Server(lambda: config.load(known.path), install.programs_folder()).run(click.echo)


@cli.command("install-agi")
@click.argument("folder", required=False)
def install_agi(folder: str | None) -> None:
    """Put links to the AGI programs where Asterisk looks: FOLDER, or its astagidir."""
    for link in install.link_programs(folder or install.agi_folder(os.environ)):
        click.echo(link)


def main() -> None:
    cli(prog_name="noojee-agi")
