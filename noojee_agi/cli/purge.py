"""noojee-agi purge: the audio of old recordings goes."""

import re
import sys
from datetime import timedelta

import click

from noojee_agi.cli import output
from noojee_agi.cli.legs import person
from noojee_agi.config import Config
from noojee_agi.database.queries import Filter
from noojee_agi.recordings import recording
from noojee_agi.sync import drain, opening
from noojee_agi.sync import purge as purging

_AGE = re.compile(r"([1-9]\d{0,4})d")
_COLUMNS = ("started_at", "id", "owner", "tag", "status", "bytes", "file")


@click.command()
@click.option("--older-than", required=True, metavar="DAYS", help="Started so long ago, such as 90d.")
@click.option("--tag", help="Only of this tag or External Reference.")
@click.option("--owner", help="Only of this login.")
@click.option("--status", type=click.Choice(["completed", "empty", "interrupted"]))
@click.option("--dry-run", is_flag=True, help="Only list what would go.")
@click.pass_obj
def purge(
    config: Config, older_than: str, tag: str | None, owner: str | None, status: str | None, dry_run: bool
) -> None:
    """Delete the audio of old recordings. Rows and side-cars stay, and what is held stays as it is."""
    age = _AGE.fullmatch(older_than)
    if not age:
        raise click.ClickException(f"--older-than {older_than}: give days, such as 90d")
    store = opening.open_database(config)
    drain.run_own(store, config)  # a hold may wait there
    limit = recording.now() - timedelta(days=int(age[1]))
    wanted = Filter(tag=tag, owner=owner, status=status, started_to=limit)
    legs = list(purging.due(store, config, wanted))
    size = sum(leg["bytes"] or 0 for leg in legs)
    if dry_run:
        output.table(_COLUMNS, [[output.cell(leg[name]) for name in _COLUMNS] for leg in legs])
        output.say(f"{len(legs)} recordings would be purged, {size} bytes")
        return
    with output.progress("purging", len(legs)) as update:

        def progress(count: int) -> None:
            update(count)
            drain.run_own(store, config)  # a drain of a call's own may have found the spool locked by us

        done = purging.run(store, config, wanted, f"older than {older_than} (by {person()})", progress)
    output.say(f"{done.purged} recordings purged, {done.bytes} bytes")
    for file, why in done.left_alone.items():
        output.say(f"{file} is left alone: {why}", err=True)
    if done.left_alone:
        sys.exit(1)
