"""Groups and teams: who may hear whose recordings."""

from datetime import datetime
from typing import Any

import click

from noojee_agi.cli import output
from noojee_agi.cli.settings import changing, require_group, require_name
from noojee_agi.config import Config
from noojee_agi.database import teams
from noojee_agi.sync import opening


@click.group("group")
def account_group() -> None:
    """The groups of an account: Administrator and Recording Manager hear all recordings."""


@account_group.command("add")
@click.argument("login")
@click.argument("group")
@click.pass_obj
def group_add(config: Config, login: str, group: str) -> None:
    """Put LOGIN into GROUP."""
    require_group(group, "GROUP")
    with changing(config) as connection:
        teams.add_group(connection, login, group)


@account_group.command("remove")
@click.argument("login")
@click.argument("group")
@click.pass_obj
def group_remove(config: Config, login: str, group: str) -> None:
    """Take LOGIN out of GROUP."""
    with changing(config) as connection:
        teams.remove_group(connection, login, group)


@click.group()
def team() -> None:
    """Teams: who leads one now hears what its members recorded while they were in it."""


@team.command("add")
@click.argument("name")
@click.pass_obj
def team_add(config: Config, name: str) -> None:
    """Add a team, without members."""
    require_name(name, "NAME", 255)
    with changing(config) as connection:
        teams.add_team(connection, name)


@team.command("remove")
@click.argument("name")
@click.pass_obj
def team_remove(config: Config, name: str) -> None:
    """Remove a team that has never had a member."""
    with changing(config) as connection:
        teams.remove_team(connection, name)


@team.command("join")
@click.argument("team")
@click.argument("login")
@click.pass_obj
def team_join(config: Config, team: str, login: str) -> None:
    """Let LOGIN be in TEAM from now on."""
    with changing(config) as connection:
        teams.join(connection, team, login)


@team.command("leave")
@click.argument("team")
@click.argument("login")
@click.pass_obj
def team_leave(config: Config, team: str, login: str) -> None:
    """Let LOGIN be in TEAM no more; that it was stays known."""
    with changing(config) as connection:
        teams.leave(connection, team, login)


@team.command("lead")
@click.argument("team")
@click.argument("login")
@click.option("--not", "leads_no_more", is_flag=True, help="Lead it no more, and stay a member.")
@click.pass_obj
def team_lead(config: Config, team: str, login: str, leads_no_more: bool) -> None:
    """Let LOGIN, who is in TEAM, lead it from now on: hear what its members record and have recorded."""
    with changing(config) as connection:
        teams.lead(connection, team, login, not leads_no_more)


@team.command("list")
@click.option("--json", "as_json", is_flag=True, help="With all who were in a team before.")
@click.pass_obj
def team_list(config: Config, as_json: bool) -> None:
    """List all teams and who is in them now."""
    with opening.open_database(config).reading() as connection:
        found = teams.teams(connection)
    if as_json:
        output.say_json(found)
        return
    rows = [row for each in found for row in _rows(each["name"], each["members"])]
    output.table(("team", "login", "since", "leads"), [[output.cell(cell) for cell in row] for row in rows])


def _rows(name: str, members: list[dict[str, Any]]) -> list[tuple[str, object, object, object]]:
    """Of who is in it now."""
    rows: list[tuple[str, object, object, object]] = [
        (name, member["login"], _since(members, member), member["is_leader"])
        for member in members
        if member["left_at"] is None
    ]
    return rows or [(name, None, None, None)]


def _since(members: list[dict[str, Any]], member: dict[str, Any]) -> datetime:
    """The beginning of a stay, whether or not one has led all the time: these stays follow at once."""
    since: datetime = member["joined_at"]
    for other in reversed(members):
        if other["login"] == member["login"] and other["left_at"] == since:
            since = other["joined_at"]
    return since
