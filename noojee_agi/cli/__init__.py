"""The command line: noojee-agi."""

import os
import sys
import traceback
from types import TracebackType
from typing import Any

import click

from noojee_agi import log, paths, text
from noojee_agi.cli import (
    export,
    identity,
    install,
    legs,
    output,
    people,
    purge,
    record,
    recordings,
    settings,
)
from noojee_agi.cli.check import command
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError
from noojee_agi.session import background


class _Commands(click.Group):
    """Errors are one line with the next step; --debug shows where they come from."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except click.UsageError:
            raise  # it holds nothing but what was typed here
        except click.ClickException as exc:
            raise click.ClickException(text.printable(exc.message)) from exc
        except (NoojeeError, OSError) as exc:
            if context.params["debug"]:
                raise
            raise click.ClickException(text.printable(str(exc))) from exc
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
    os.umask(background.UMASK)
    if context.invoked_subcommand == "check":  # which finds out itself who it shall be
        return
    context.obj = identity.begin(paths.configuration(os.environ))
    os.environ["HOME"] = background.home()


@cli.command()
def serve() -> None:
    """Serve AGI programs and FastAGI until SIGTERM; SIGHUP reads the configuration anew."""
    from noojee_agi.server.server import Server  # no other command has to load it

    def load() -> Config:
        return identity.load(paths.configuration(os.environ))  # it may be there since today only

    Server(load, install.programs_folder()).run(output.say)


@cli.command("install-agi")
@click.argument("folder", required=False)
@click.option("--remove", is_flag=True, help="Take them away again; what is not ours stays.")
def install_agi(folder: str | None, remove: bool) -> None:
    """Put links to the AGI programs where Asterisk looks: FOLDER, or its astagidir."""
    if not folder:
        folder = install.agi_folder(os.environ)
        if folder not in install.USUAL_AGI_FOLDERS:
            identity.act_for_namer(folder, install.asterisk_conf(os.environ))
    identity.act_for(folder)
    for line in install.remove_links(folder) if remove else install.link_programs(folder):
        output.say(line)


settings.account.add_command(people.account_group)
recordings.recordings.add_command(export.export)
for each in (
    *(settings.db, settings.apikey, settings.account, settings.attach, settings.detach, people.team),
    *(recordings.recordings, recordings.sync, purge.purge, record.record, command.check),
):
    cli.add_command(each)


for of_one_leg in (legs.show, legs.hold, legs.release):
    recordings.recordings.add_command(of_one_leg)


def _show(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(text.printable_lines("".join(traceback.format_exception(kind, exc, trace))))


def main() -> None:
    sys.excepthook = _show
    log.to_standard_error()
    cli(prog_name="noojee-agi")
