"""Copies of recordings for somebody outside, with a table of what they are; each is noted in access_log."""

import os
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import click

from noojee_agi import text
from noojee_agi.cli import identity, leg_id, listing, output
from noojee_agi.config import Config
from noojee_agi.database import hearing, queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.errors import NoojeeError
from noojee_agi.recordings import exported, recording, spool
from noojee_agi.recordings.recording import Access
from noojee_agi.sync import drain, opening

_CSV = "recordings.csv"


class _NotExported(NoojeeError):
    """One leg is not, and why; the others are."""


class _Refused(_NotExported):
    """By the rule of who may hear what."""


class _Exporter(NamedTuple):
    """login: whose rights count; empty: who may use the command line on this machine hears all."""

    store: Store
    spool: str
    folder: exported.Folder
    login: str

    def export(self, asked: str) -> dict[str, Any]:
        """Copy the audio of one leg; its row, with the name of the copy. Raises _NotExported and OSError.

        What is not noted is not given away, so the note comes first.
        """
        leg = self._leg(asked)
        if self.login and not self._may_hear(leg["id"]):
            self._note(leg["id"], is_allowed=False)
            raise _Refused(f"{self.login} may not hear {leg['id']}")
        name = _name_of_copy(leg)
        self._note(leg["id"], is_allowed=True)
        self._copy(leg, name)
        return {**leg, "file": name}

    def _note(self, leg_id: str, is_allowed: bool) -> None:
        at, what = recording.now(), recording.EXPORTED
        noted = Access(recording.new_id(), leg_id, at, self.login, what, is_allowed, _address())
        spool.put(self.spool, noted)

    def _leg(self, asked: str) -> dict[str, Any]:
        found = self._found(Filter(leg_id=asked))
        if not found:
            raise _NotExported(f"there is no leg {asked}")
        if len(found) > 1:
            ids = ", ".join(leg["id"] for leg in found)
            raise _NotExported(f"{asked} is the beginning of {len(found)} legs' ids, name one whole: {ids}")
        return found[0]

    def _may_hear(self, leg_id: str) -> bool:
        return bool(self._found(Filter(leg_id=leg_id, heard_by=self.login)))

    def _found(self, wanted: Filter) -> list[dict[str, Any]]:
        with self.store.reading() as connection:
            return list(queries.legs(connection, wanted))

    def _copy(self, leg: dict[str, Any], name: str) -> None:
        try:
            self.folder.copy(leg["file"], name)
        except FileExistsError as exc:
            raise _NotExported(f"{leg['id']}: {name} is there already, and is left as it is") from exc
        except FileNotFoundError as exc:
            raise _NotExported(f"{leg['id']} has no audio: {leg['file']} is not there") from exc


def _name_of_copy(leg: dict[str, Any]) -> str:
    """Raises _NotExported when there is nothing to copy."""
    if leg["status"] == "recording":
        raise _NotExported(f"{leg['id']} is still being recorded")
    if not leg["file"]:
        raise _NotExported(f"{leg['id']} has no audio any more: it was purged")
    return os.path.basename(str(leg["file"]))


@click.command("export")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=leg_id.leg_id)
@click.option("--as", "login", metavar="LOGIN", default="", help="Only what this account may hear.")
@click.option("--to", "path", metavar="FOLDER", required=True, help="Made if it is not there.")
@click.pass_obj
def export(config: Config, ids: tuple[str, ...], login: str, path: str) -> None:
    """Copy the audio of these legs to FOLDER, with a table of them; nothing there is replaced."""
    store = opening.open_database(config)
    if login:
        with store.reading() as connection:
            hearing.owners(connection, login)  # or it is said why there are none
    exporter = _Exporter(store, config.spool_directory, _folder(config, path), login)
    rows: list[dict[str, Any]] = []
    refused = failed = 0
    try:
        with output.progress("exporting", len(ids)) as update:
            for asked in dict.fromkeys(ids):
                try:
                    rows.append(exporter.export(asked))
                except _NotExported as exc:
                    refused += isinstance(exc, _Refused)
                    failed += not isinstance(exc, _Refused)
                    output.say(str(exc), err=True)
                update(1)
    finally:  # also of what was copied before the disk was full, or somebody had enough
        table = _write_table(exporter.folder, rows)
        drain.run_own(store, config)
    output.say(f"{len(rows)} exported to {path}{table}, {refused} refused, {failed} not to be had")
    if refused or failed:
        sys.exit(1)


def _folder(config: Config, path: str) -> exported.Folder:
    real, recordings = os.path.realpath(path), os.path.realpath(config.recordings_directory)
    if os.path.commonpath([real, recordings]) == recordings:
        raise click.ClickException(f"{path} lies with the recordings themselves: name another folder")
    try:
        return exported.Folder(path)
    except OSError as exc:
        user = identity.user_name(os.geteuid())
        raise click.ClickException(
            f"{path}: {exc.strerror}; user {user} must be able to write there: install -d -o {user} {path}"
        ) from exc


def _write_table(folder: exported.Folder, rows: Iterable[dict[str, Any]]) -> str:
    """What is said of it; a table that is there from before stays, and this one gets a number."""
    content = [[row[name] for name in listing.JSON_FIELDS] for row in rows]
    if not content:
        return ""
    table = output.csv_text([listing.JSON_FIELDS, *content])
    number, name = 1, _CSV
    while True:
        try:
            folder.write(name, table)
            return f" with {name}"
        except FileExistsError:
            number += 1
            name = _CSV.replace(".", f"-{number}.")


def _address() -> str:
    """Who typed it, as far as that is known: root acts as another user by now."""
    user = os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or identity.user_name(os.getuid())
    return f"command line of {text.plain(user)}"
