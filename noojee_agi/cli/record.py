"""Any live call, from the command line: record it, stop or pause that, list them."""

import contextlib
import os
from datetime import datetime, timedelta

import click

from noojee_agi.asterisk import live, live_channel, manager, other_calls, variables
from noojee_agi.asterisk.live_channel import LiveChannel
from noojee_agi.cli import install, output
from noojee_agi.cli.settings import ask_key
from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError, NoSuchCall
from noojee_agi.session import background, plain, session

_KEY = "NOOJEE_AGI_KEY"
_FIELDS = ("extension", "uniqueid", "call_uniqueid", "channel", "state", "other_party", "since", "recorded")
_COLUMNS = ("extension", "uniqueid", "other_party", "since", "state", "recorded", "channel")


@click.group()
def record() -> None:
    """Live calls of this Asterisk, through its manager interface.

    All but list need the apiKey: in the environment as NOOJEE_AGI_KEY, or they ask for it.
    """


@record.command("start")
@click.argument("exten_or_uniqueid")
@click.option("--tag", default="", help="External Reference of the call, and the leg's tag.")
@click.option("--login", default="", help="Who owns the leg; else whoever is attached to the extension.")
@click.pass_obj
def record_start(config: Config, exten_or_uniqueid: str, tag: str, login: str) -> None:
    """Record the live call at EXTEN_OR_UNIQUEID."""
    _run(config, "start_record", extenOrUniqueId=exten_or_uniqueid, tag=tag, agentLoginName=login)


@record.command("stop")
@click.argument("exten_or_uniqueid")
@click.option("--login", default="", help="Stop it only if this account may hear the leg.")
@click.pass_obj
def record_stop(config: Config, exten_or_uniqueid: str, login: str) -> None:
    """End the recording of the live call at EXTEN_OR_UNIQUEID."""
    _run(config, "stop_record", extenOrUniqueId=exten_or_uniqueid, agentLoginName=login)


@record.command("pause")
@click.argument("exten_or_uniqueid")
@click.option("--login", default="", help="Pause it only if this account may hear the leg.")
@click.pass_obj
def record_pause(config: Config, exten_or_uniqueid: str, login: str) -> None:
    """Keep what follows in the live call at EXTEN_OR_UNIQUEID out of its recording, until resume."""
    _run(config, "pause_record", extenOrUniqueId=exten_or_uniqueid, agentLoginName=login)


@record.command("resume")
@click.argument("exten_or_uniqueid")
@click.option("--login", default="", help="Resume it only if this account may hear the leg.")
@click.pass_obj
def record_resume(config: Config, exten_or_uniqueid: str, login: str) -> None:
    """Record the paused call at EXTEN_OR_UNIQUEID again: with the same tag and owner, in its next leg."""
    _run(config, "resume_record", extenOrUniqueId=exten_or_uniqueid, agentLoginName=login)


def _run(config: Config, program: str, **arguments: str) -> None:
    if not arguments["extenOrUniqueId"].strip():
        raise click.ClickException("EXTEN_OR_UNIQUEID is empty: noojee-agi record list shows the live calls")
    key = os.environ.pop(_KEY, "") or ask_key()
    surroundings = session.Surroundings(
        install.programs_folder(), lambda: Config.load(config.path), background.read_database
    )
    pairs = [(name, value) for name, value in arguments.items() if value]
    report = session.run_from_command_line(session.Invocation(program, pairs=pairs), key, surroundings)
    plain.finish_in_background(report, config)
    result = report.result
    if result.status != 200:
        raise click.ClickException(f"{result.status} {result.message}")
    output.say(f"{result.status} {result.message}")
    output.say(f"leg   {result.leg_id or '-'}")
    output.say(f"file  {result.file}")


@record.command("list")
@click.option("--json", "as_json", is_flag=True, help="A list with one object per channel.")
@click.pass_obj
def record_list(config: Config, as_json: bool) -> None:
    """List live calls: who talks with whom since when, and whether we record it."""
    if not config.manager_username:
        raise ConfigurationError(
            f"{config.path or 'noojee_agi.conf'} has no [manager] username: agi/README.md says what to set"
        )
    with contextlib.closing(manager.Manager(config)) as asked:
        board = live.Switchboard(other_calls.channels(asked))
        rows = [_row(asked, channel, board) for channel in board.telephones()]
    if as_json:
        objects = [{name: row[name] for name in _FIELDS} for row in rows]
        output.say_json(objects)
        return
    output.table(_COLUMNS, [[output.cell(row[name]) for name in _COLUMNS] for row in rows])


def _row(asked: manager.Manager, channel: LiveChannel, board: live.Switchboard) -> dict[str, object]:
    conversation = list(board.conversation(channel))
    peers = [other.own_extension for other in conversation[1:] if not other.is_local]
    return {
        "extension": channel.own_extension,
        "uniqueid": channel.uniqueid,
        "call_uniqueid": channel.linkedid,
        "channel": channel.name,
        "state": "up" if channel.state == live_channel.UP else "ringing",
        "other_party": channel.connected or ", ".join(peers),
        "since": datetime.now().astimezone() - timedelta(seconds=channel.seconds),
        "recorded": any(_is_recorded(asked, other) for other in conversation),
    }


def _is_recorded(asked: manager.Manager, channel: LiveChannel) -> bool:
    """Its variable outlives a MixMonitor that somebody else has stopped, so that is asked too."""
    mixmonitor_id = channel.mixmonitor_id
    with contextlib.suppress(NoSuchCall):  # it has just ended
        return bool(mixmonitor_id and asked.get(channel.name, variables.mixmonitor_file(mixmonitor_id)))
    return False
