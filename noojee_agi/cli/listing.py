"""A list of legs: a table that fits a terminal for people, JSON and CSV for programs."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from noojee_agi.cli import columns, output
from noojee_agi.database import hearing, queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store

JSON_FIELDS = (
    *("id", "call_record_id", "leg", "uniqueid", "call_uniqueid", "channel", "extension"),
    *("source", "destination", "did", "external_reference", "tag", "owner", "agent_login_name"),
    *("file", "status", "started_at", "ended_at", "duration_seconds", "bytes"),
    *("peer_channel", "peer_uniqueid"),
)
_PAGE = 4000  # each of a tag's pages looks up all legs of that tag; a page takes 40 MB
_MOST_COLUMNS = 100
_HEAD = ("started", "from", "to", "owner", "tag", "length", "status", "id")
_MAY_BE_CUT = tuple(name in ("from", "to", "owner", "tag") for name in _HEAD)

Pages = Iterator[list[dict[str, Any]]]


def show(store: Store, wanted: Filter, limit: int | None, print_pages: Callable[[Pages], None]) -> bool:
    """Print those legs, the newest last and no more than limit; whether there are older ones.

    Raises NotAllowed when wanted.heard_by names no enabled account.
    """
    with store.reading() as connection:
        if wanted.heard_by is not None:
            owners = hearing.owners(connection, wanted.heard_by)
            wanted = wanted if _finds_few(wanted) else wanted._replace(owners=owners)
        behind = queries.leg_before_the_newest(connection, wanted, limit) if limit else None
    print_pages(_pages(store, wanted, behind, limit))
    return behind is not None


def _finds_few(wanted: Filter) -> bool:
    """By an index of its own, which knows fewer legs than the owners' does."""
    return any(each is not None for each in (wanted.leg_id, wanted.tag, wanted.uniqueid))


def print_table(pages: Pages) -> None:
    """In 100 columns: long values are cut. The columns become wider with a page that needs it."""
    rows, widths = [list(_HEAD)], [0] * len(_HEAD)
    for page in pages:
        rows += map(_row, page)
        wider = map(max, widths, output.widths(rows)) if rows else widths
        widths = columns.fitted(list(wider), _MAY_BE_CUT, _MOST_COLUMNS)
        output.lines(rows, widths)
        rows = []


def print_json(pages: Pages) -> None:
    output.say_json_list([{name: row[name] for name in JSON_FIELDS} for row in page] for page in pages)


def print_csv(pages: Pages) -> None:
    output.say_csv([JSON_FIELDS])
    for page in pages:
        output.say_csv([row[name] for name in JSON_FIELDS] for row in page)


def length(seconds: float | None) -> str:
    """As m:ss; empty when that is not known."""
    return "" if seconds is None else "{}:{:02}".format(*divmod(round(seconds), 60))


def _pages(store: Store, wanted: Filter, behind: dict[str, Any] | None, limit: int | None) -> Pages:
    """The legs behind that one, some at a time: there may be millions. The first page may be empty."""
    last, left = behind, limit
    while True:
        count = _PAGE if left is None else min(_PAGE, left)
        with store.reading() as connection:
            page = queries.next_legs(connection, wanted, last, count)
        yield page
        left = None if left is None else left - len(page)
        if len(page) < count or left == 0:
            return
        last = page[-1]


def _row(leg: Mapping[str, Any]) -> list[str]:
    shown = (
        *(leg["started_at"], leg["source"], leg["destination"], leg["owner"]),
        *(leg["tag"] or leg["external_reference"], length(leg["duration_seconds"])),
        *(leg["status"], leg["id"][:8]),
    )
    return [output.cell(value) for value in shown]
