"""What was recorded: list it, and bring it into the database."""

import sys
from datetime import datetime, timezone

import click

from noojee_agi import drain, rebuild, spool
from noojee_agi.cli import output
from noojee_agi.cli.settings import save_settings
from noojee_agi.config import Config
from noojee_agi.database import queries, settings
from noojee_agi.database.store import Store

JSON_FIELDS = (
    *("id", "call_record_id", "leg", "uniqueid", "call_uniqueid", "channel", "extension"),
    *("source", "destination", "did", "external_reference", "tag", "owner", "agent_login_name"),
    *("file", "status", "started_at", "ended_at", "duration_seconds", "bytes"),
    *("peer_channel", "peer_uniqueid"),
)
_COLUMNS = (
    *("started_at", "call_uniqueid", "leg", "extension", "owner", "tag"),
    *("status", "duration_seconds", "id", "file"),
)


@click.command()
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
            output.say(f"there is no account {wanted_legs.heard_by}", err=True)
        rows = list(queries.legs(connection, wanted_legs))
    if as_json:
        legs = [{name: row[name] for name in JSON_FIELDS} for row in rows]
        output.say_json(legs)
        return
    output.table(_COLUMNS, [[output.cell(row[name]) for name in _COLUMNS] for row in rows])


def _local(moment: datetime | None) -> datetime | None:
    try:
        # Not astimezone(): it takes a time that summer time leaves out for an hour too early.
        return datetime.fromtimestamp(moment.timestamp(), timezone.utc) if moment else None
    except (ValueError, OverflowError) as exc:
        raise click.ClickException(f"{moment} is out of range") from exc


@click.command()
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
        output.say(f"{closed} legs closed that had ended without a word")
    drain.renew_snapshot(store, known.snapshot_file)
    is_copied = save_settings(store, known)
    if is_rebuild:
        for path in rebuild.files_without_side_car(store, known.recordings_directory):
            output.say(f"nothing is known of {output.cell(path)}: it has no side-car, and is left alone")
        drain.run(store, known.spool_directory)  # its own drain found the spool locked by us
    aside = spool.rejected(known.spool_directory)
    for path in aside:
        output.say(f"refused by the database: {path}; the reason is in {path}.reason", err=True)
    if aside:
        raise click.ClickException("mend the cause, then run noojee-agi sync --retry-rejected")
    if failed:
        raise click.ClickException(f"{failed} files could not be used: see above")
    if not is_copied:
        sys.exit(1)


def _drain(store: Store, known: Config) -> None:
    with output.progress("storing", len(spool.waiting(known.spool_directory))) as update:
        result = drain.run(store, known.spool_directory, update)
    output.say(f"{result.stored} events stored, {result.rejected} set aside, {len(result.left)} for later")
    if result.busy:
        output.say("another drain is at work and takes the rest")


def _rebuild(store: Store, known: Config) -> int:
    """Make every row again that the recordings tell of; returns how many files could not be used."""
    with output.progress("rebuilding", rebuild.count_side_cars(known.recordings_directory)) as update:
        result = rebuild.run(store, known.recordings_directory, update)
    drain.restore_key(store, known.snapshot_file)
    output.say(
        f"{result.side_cars} side-cars read, {result.legs} legs and {result.settings} settings made again"
    )
    for path, reason in result.refused.items():
        output.say(f"{output.cell(path)} cannot be used: {output.cell(reason)}", err=True)
    return len(result.refused)
