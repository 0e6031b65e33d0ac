"""The command `noojee-agi check`: says of each stage what came of it."""

import os
import sys
from collections.abc import Iterator

import click

from noojee_agi import paths
from noojee_agi.cli import check as checks
from noojee_agi.cli import install, output
from noojee_agi.cli.check import call, mistakes, running, stage, user
from noojee_agi.cli.check.running import Running
from noojee_agi.cli.check.stage import Stage
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import disk
from noojee_agi.session import background

_QUESTION = (
    "Place a call from Asterisk to itself? It rings nobody, lasts some seconds, and its recording stays."
)
_WORDS = {stage.OK: "ok", stage.FAILED: "FAIL", stage.NOT_SEEN: "?"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A list with one object per stage.")
@click.option("--asterisk-conf", default="", help="Of the Asterisk that runs, if it has its own (-C).")
@click.option("--passive", "is_passive", is_flag=True, help="Leave no line in the log: for monitoring.")
@click.option("--call", "is_call", is_flag=True, help="Also place a call through Asterisk; asks first.")
@click.option("--yes", "is_agreed", is_flag=True, help="With --call: do not ask.")
def check(as_json: bool, asterisk_conf: str, is_passive: bool, is_call: bool, is_agreed: bool) -> None:
    """Check every stage, from the dialplan to the database: ok, FAIL and what to do, or not seen (?)."""
    asked = running.of(asterisk_conf, os.environ)
    if is_call and not is_agreed:
        click.confirm(_QUESTION, abort=True, err=True)
    found = []
    for each in stages(asked, is_call, is_passive):
        found.append(each)
        if not as_json:
            output.say(f"{_WORDS[each.state]:<4}  {each.name:<14} {each.text}")
    if as_json:
        output.say_json([each._asdict() for each in found])
    if any(each.has_failed for each in found):
        sys.exit(1)


def stages(asked: Running, is_call: bool = False, is_passive: bool = False) -> Iterator[Stage]:
    """All of them, as Asterisk's user; only the first where it cannot be told who that is."""
    try:
        config = _begin(asked)
    except (NoojeeError, OSError) as exc:
        yield _mistake(exc, asked)
        return
    yield from checks.stages(config, install.programs_folder(), asked, is_passive)
    if is_call:
        yield from call.stages(asked, config)


def _mistake(exc: Exception, asked: Running) -> Stage:
    if isinstance(exc, NoojeeError) and exc.cure:
        return Stage("configuration", stage.FAILED, str(exc), exc.cure)
    said, cure = mistakes.explained(str(exc), paths.configuration(os.environ), asked.owner)
    return Stage("configuration", stage.FAILED, f"{said}: {cure}" if cure else said, cure)


def _begin(asked: Running) -> Config:
    """Raises NoojeeError and OSError."""
    begin = disk.bounded()(user.begin)  # it looks at the recordings' disk, which may hang
    config = begin(paths.configuration(os.environ), asked.socket)
    os.environ["HOME"] = background.home()
    return config
