"""Events of a few calls, in any order and in any batches, some of them twice, give the same rows."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import Connection, select
from unit import fakes

from integration.recorder import after
from noojee_agi.database import intake, queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.database.tables import call_record
from noojee_agi.recordings.recording import Ending, Event, Leg, leg_id

CALLS = 2
# A busy machine draws its examples slowly.
HEALTHY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
_ENDINGS = ("completed", "empty", "failed", "interrupted")
_BEGINNING = ("started_at", "source", "destination", "did")


class Undone(Exception):
    """The end of a transaction that leaves nothing behind."""


@dataclass(frozen=True)
class Night:
    """What happened, each once, and the batches in which it is brought in."""

    events: list[Event]
    batches: list[list[Event]]


def _leg(number: int, call: int, moment: int, tag: str) -> Leg:
    leg = fakes.leg(agent_login_name="", agent_known=None, started_at=after(moment), tag=tag)
    return leg._replace(
        id=f"{number:08x}-0000-4000-8000-000000000000",
        call_uniqueid=f"17.{call}",
        source=f"source {number}",
        destination=f"destination {number}",
        did=f"did {number}",
        file=f"/r/{number}.wav",
    )


@some.composite
def nights(draw: some.DrawFn) -> Night:
    legs = [
        _leg(
            number,
            draw(some.integers(1, CALLS)),
            draw(some.integers(0, 5)),  # two may have started at the same moment
            draw(some.sampled_from(["", "INV-1", "INV-2"])),
        )
        for number in range(draw(some.integers(1, 7)))
    ]
    endings = [
        Ending(leg.id, status, after(moment), moment, float(moment))
        for leg in legs
        for status, moment in draw(
            some.lists(some.tuples(some.sampled_from(_ENDINGS), some.integers(10, 12)), max_size=2)
        )
    ]
    events: list[Event] = [*legs, *endings]
    again = draw(some.lists(some.sampled_from(events), max_size=4))
    order = draw(some.permutations([*events, *again]))
    ends = sorted(draw(some.sets(some.integers(0, len(order)), max_size=5)) | {0, len(order)})
    return Night(events, [order[begin:end] for begin, end in itertools.pairwise(ends)])


def bring_in(connection: Connection, batches: Iterable[Sequence[Event]]) -> None:
    """As a drain does: an ending waits for its start; the side-cars are always as the rows."""
    side_cars: dict[str, dict[str, Any]] = {}
    known: set[str] = set()
    waiting: list[Event] = []
    for batch in batches:
        known |= {event.id for event in batch if isinstance(event, Leg)}
        here = [event for event in [*waiting, *batch] if leg_id(event) in known]
        waiting = [event for event in [*waiting, *batch] if leg_id(event) not in known]
        others = intake.store(connection, here)
        written = others | {leg_id(event) for event in here}
        rows = {row["id"]: row for row in queries.legs(connection, Filter())}
        side_cars |= {each: rows[each] for each in written}
        assert side_cars == rows
    assert waiting == []


def assert_rows_are_what_happened(connection: Connection, events: list[Event]) -> None:
    legs = [event for event in events if isinstance(event, Leg)]
    endings = [event for event in events if isinstance(event, Ending)]
    rows = {row["id"]: row for row in queries.legs(connection, Filter())}
    assert rows.keys() == {leg.id for leg in legs}
    for leg in legs:
        assert_has_ended(rows[leg.id], [ending for ending in endings if ending.leg_id == leg.id])
    for call in connection.execute(select(call_record)):
        own = sorted(
            (leg for leg in legs if leg.call_uniqueid == call.uniqueid),
            key=lambda leg: (leg.started_at, leg.id),
        )
        assert [rows[leg.id]["leg"] for leg in own] == list(range(1, len(own) + 1))
        assert call.external_reference == ([""] + [leg.tag for leg in own if leg.tag])[-1]
        began = [tuple(getattr(each, name) for name in _BEGINNING) for each in (call, *own)]
        assert began[0] == min(began[1:])
        ends = [rows[leg.id]["ended_at"] for leg in own]
        assert call.ended_at == (None if None in ends else max(ends))


def assert_has_ended(row: dict[str, Any], endings: list[Ending]) -> None:
    """As the latest ending says that is not just a missing file."""
    seen = [ending for ending in endings if ending.status != "failed"] or endings
    expected = max(((each.ended_at, each.status) for each in seen), default=(None, "recording"))
    assert (row["ended_at"], row["status"]) == expected


def check(store: Store, night: Night) -> None:
    with contextlib.suppress(Undone), store.transaction() as connection:
        bring_in(connection, night.batches)
        assert_rows_are_what_happened(connection, night.events)
        raise Undone


@pytest.mark.parametrize("backend", ["sqlite"])
@settings(max_examples=80, deadline=None, suppress_health_check=HEALTHY)
@given(night=nights())
def test_events_in_any_order_give_the_same_rows(store: Store, night: Night) -> None:
    check(store, night)


@pytest.mark.postgresql
@pytest.mark.parametrize("backend", ["postgresql"])
@settings(max_examples=8, deadline=None, suppress_health_check=HEALTHY)
@given(night=nights())
def test_events_in_any_order_give_the_same_rows_in_postgresql(store: Store, night: Night) -> None:
    check(store, night)


# Three legs of one call, and every order in which they may come.
_CALL = [_leg(1, 1, 0, "INV-1"), _leg(2, 1, 10, "INV-2"), _leg(3, 1, 20, "")]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_an_older_leg_that_arrives_later_changes_nothing_but_what_is_older(
    store: Store, order: tuple[int, ...]
) -> None:
    check(store, Night([*_CALL], [[_CALL[number]] for number in order]))
