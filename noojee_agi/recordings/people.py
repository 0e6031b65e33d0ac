"""Who may hear a leg: the rule as a function; database.hearing has the same one in SQL.

Administrators and Recording Managers hear all. Who leads a team now hears what its members owned while they
were in it, and that of before he led it, too. Everybody else hears the own legs. A leg without an owner is
heard by those alone who hear all, and a disabled or unknown account hears nothing.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

HEAR_ALL = ("Administrator", "Recording Manager")  # groups


class Stay(NamedTuple):
    """A time in a team; left_at, which is no more in it, is None while it lasts."""

    joined_at: datetime
    left_at: datetime | None

    def has(self, moment: datetime) -> bool:
        return self.joined_at <= moment and (self.left_at is None or moment < self.left_at)


class Team(NamedTuple):
    """leaders: logins that lead it now. stays: login -> when it was in the team."""

    leaders: frozenset[str]
    stays: Mapping[str, tuple[Stay, ...]]

    def had(self, login: str, moment: datetime) -> bool:
        return any(stay.has(moment) for stay in self.stays.get(login, ()))


class People(NamedTuple):
    """enabled: logins that may hear anything. hear_all: of the two groups. teams: those with a leader."""

    enabled: frozenset[str]
    hear_all: frozenset[str]
    teams: tuple[Team, ...]


def may_hear(login: str, owner: str | None, moment: datetime, people: People) -> bool:
    """Whether login may hear a leg that began at that moment; owner: None or empty when it has none."""
    if login not in people.enabled:
        return False
    if login in people.hear_all:
        return True
    if not owner:
        return False
    return owner == login or any(login in team.leaders and team.had(owner, moment) for team in people.teams)


def as_json(teams: Iterable[Team]) -> list[dict[str, Any]]:
    """Stays as intervals of ISO 8601: a tenth of the work for whoever reads them and asks for none."""
    return [
        {
            "leaders": sorted(team.leaders),
            "stays": {login: " ".join(map(_interval, stays)) for login, stays in team.stays.items()},
        }
        for team in teams
    ]


def from_json(teams: Iterable[Mapping[str, Any]]) -> tuple[Team, ...]:
    """Raises ValueError, KeyError, TypeError or AttributeError for what as_json has not made."""
    return tuple(
        Team(
            frozenset(team["leaders"]),
            {login: tuple(map(_stay, intervals.split())) for login, intervals in team["stays"].items()},
        )
        for team in teams
    )


def _interval(stay: Stay) -> str:
    return f"{stay.joined_at.isoformat()}/{stay.left_at.isoformat() if stay.left_at else ''}"


def _stay(interval: str) -> Stay:
    joined_at, _, left_at = interval.partition("/")
    return Stay(datetime.fromisoformat(joined_at), datetime.fromisoformat(left_at) if left_at else None)
