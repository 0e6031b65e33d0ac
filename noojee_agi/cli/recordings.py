"""What was recorded: list it, and bring it into the database."""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import click
from click.core import ParameterSource

from noojee_agi.cli import leg_id, listing, output
from noojee_agi.cli.settings import save_settings
from noojee_agi.config import Config
from noojee_agi.database import queries
from noojee_agi.database.store import Store
from noojee_agi.recordings import history, rejected, spool
from noojee_agi.sync import audit, drain, housekeeping, opening, rebuild, renew_snapshot

_TERMINAL_LIMIT = 50
_FORMS = {"table": listing.print_table, "json": listing.print_json, "csv": listing.print_csv}


@click.group(invoke_without_command=True)
@click.option(
    "--id",
    "leg_id",
    metavar="ID",
    type=leg_id.leg_id,
    help="The leg's: RECORDING_ID, or its first eight digits.",
)
@click.option("--tag", help="Of the leg, or External Reference of the call.")
@click.option("--uniqueid", help="Of the channel or of the call.")
@click.option("--number", help="Source, destination, DID or extension.")
@click.option("--owner", help="A login.")
@click.option("--status", type=click.Choice(["recording", "completed", "empty", "failed", "interrupted"]))
@click.option("--from", "started_from", type=click.DateTime(), help="Started then or later, local time.")
@click.option("--to", "started_to", type=click.DateTime(), help="Started before, local time.")
@click.option("--as", "heard_by", metavar="LOGIN", help="Only what this account may hear.")
@click.option("--limit", type=click.IntRange(1), help=f"The newest so many; {_TERMINAL_LIMIT} on a terminal.")
@click.option("--json", "form", flag_value="json", help="A list with one object per leg.")
@click.option("--csv", "form", flag_value="csv", help="The same fields, a line per leg.")
@click.pass_context
def recordings(
    context: click.Context,
    /,
    form: str | None,
    limit: int | None,
    started_from: datetime | None,
    started_to: datetime | None,
    **wanted: Any,
) -> None:
    """List recording legs, the newest last."""
    if context.invoked_subcommand:
        _require_no_options(context)
        return
    wanted_legs = queries.Filter(started_from=_local(started_from), started_to=_local(started_to), **wanted)
    if limit is None and form is None and sys.stdout.isatty():
        limit = _TERMINAL_LIMIT
    store = opening.open_database(context.obj)
    try:
        has_more = listing.show(store, wanted_legs, limit, _FORMS[form or "table"])
        if has_more and form is None:
            output.say(f"there are more: these are the newest {limit}, --limit shows others", err=True)
    except BrokenPipeError:  # such as `| head`
        output.discard()
        sys.exit(1)


def _require_no_options(context: click.Context) -> None:
    sources = map(context.get_parameter_source, context.params)
    if ParameterSource.COMMANDLINE in sources:
        raise click.UsageError(f"options of the list do not go with {context.invoked_subcommand}", context)


def _local(moment: datetime | None) -> datetime | None:
    try:
        # Not astimezone(): it takes a time that summer time leaves out for an hour too early.
        return datetime.fromtimestamp(moment.timestamp(), timezone.utc) if moment else None
    except (ValueError, OverflowError) as exc:
        raise click.ClickException(f"{moment} is out of range") from exc


@click.command()
@click.option("--retry-rejected", is_flag=True, help="Try again what the database has refused.")
@click.option("--rebuild", "is_rebuild", is_flag=True, help="Make rows that are missing from the side-cars.")
@click.option("--gone", metavar="SERVER", help="Also close the open legs of a server that is gone.")
@click.option(
    "--audit", "is_audit", is_flag=True, help="Then say where files and rows differ. Deletes nothing."
)
@click.pass_obj
def sync(config: Config, retry_rejected: bool, is_rebuild: bool, gone: str | None, is_audit: bool) -> None:
    """Bring what waits in the spool into the database. Safe to repeat, and beside live calls."""
    # What the spool holds comes after that: an ending may wait there, or have been set aside, for its leg.
    store, spools = opening.open_database(config), housekeeping.spools(config)
    failed = _rebuild(store, config) if is_rebuild else 0
    for directory in spools if retry_rejected or is_rebuild else []:
        spool.retry_rejected(directory)
    said = _drain(store, config)
    tended = housekeeping.run(
        store, config, failed_since=housekeeping.ALL if is_rebuild else housekeeping.LATELY
    )
    if gone:
        said.append(f"{housekeeping.close_gone(store, config, gone)} legs of {gone} closed")
    renew_snapshot.run(store, config.snapshot_file)
    is_copied = save_settings(store, config)
    for line in [*said, *_tended(tended)]:  # a full disk of the log that this goes to keeps no work back
        output.say(line)
    if is_rebuild:
        for path in rebuild.files_without_side_car(store, config.recordings_directory):
            output.say(f"nothing is known of {output.cell(path)}: it has no side-car, and is left alone")
        drain.run(store, config.spool_directory)  # its own drain found the spool locked by us
    for problem in tended.problems:
        output.say(problem, err=True)
    _require_none_refused(spools[:1] if tended.busy else spools)
    if failed:
        raise click.ClickException(f"{failed} files could not be used: see above")
    differs = is_audit and _audit(store, config)
    if tended.problems or not is_copied or differs:
        sys.exit(1)


def _drain(store: Store, config: Config) -> list[str]:
    length = 0
    with contextlib.suppress(OSError):  # the drain tells of what cannot be read, and goes on with the rest
        length = spool.count(config.spool_directory)
    with output.progress("storing", length) as update:
        result = drain.run_own(store, config, lambda events: update(len(events)))
    said = [f"{result.stored} events stored, {result.rejected} set aside, {result.left} for later"]
    return [*said, "another drain is at work and takes the rest"] if result.busy else said


def _tended(tended: housekeeping.Result) -> Iterator[str]:
    if tended.busy:
        yield "another process looks after former spools and silent legs; if it stays so, a former disk hangs"
    if tended.stored:
        yield f"{tended.stored} events stored that waited where recordings were kept before"
    if tended.closed:
        yield f"{tended.closed} legs closed that had ended without a word"


def _require_none_refused(spools: list[str]) -> None:
    aside = [path for directory in spools for path in rejected.paths(directory)]
    for path in aside:
        output.say(f"refused by the database: {path}; the reason is in {path}.reason", err=True)
    if aside:
        raise click.ClickException("mend the cause, then run noojee-agi sync --retry-rejected")


def _audit(store: Store, config: Config) -> bool:
    """Say where files and rows differ; whether they still do."""
    counts = Counter[str]()
    for finding in audit.run(store, config):
        counts[finding.kind] += 1
        output.say(f"{finding.kind}: {finding.path}: {finding.says}")
    said = ", ".join(f"{counts[kind]} {kind}" for kind in audit.KINDS if counts[kind])
    output.say(f"audit: {said or 'files and rows agree'}")
    return any(kind != audit.CONVERTED for kind in counts)


def _rebuild(store: Store, config: Config) -> int:
    """Make every row again that the recordings tell of; returns how many files could not be used."""
    remembered = history.load(config.state_directory)
    if problem := housekeeping.obstacle(config, remembered, config.recordings_directory):
        raise click.ClickException(problem)
    with output.progress("rebuilding", rebuild.count_side_cars(config.recordings_directory)) as update:
        result = rebuild.run(store, config.recordings_directory, update)
    opening.restore_key(store, config.snapshot_file)
    output.say(
        f"{result.side_cars} side-cars read, {result.legs} legs and {result.settings} settings made again"
    )
    for path, reason in result.refused.items():
        output.say(f"{output.cell(path)} cannot be used: {output.cell(reason)}", err=True)
    return len(result.refused)
