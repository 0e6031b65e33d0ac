"""The database is deleted while calls go on, and made again from what lies with the recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.losable import dump
from lab.pbx import Pbx
from lab.waiting import wait_until

from noojee_agi.database.store import Store

pytestmark = pytest.mark.asterisk


@pytest.fixture
def fresh(pbx: Pbx, tmp_path: Path) -> Iterator[Pbx]:
    """The session's Asterisk with a database, recordings and state that no other test has used."""
    for name in ("recordings", "state"):
        (tmp_path / name).mkdir()
    pbx.site.configure(
        {
            "database.url": f"sqlite:///{tmp_path}/state/noojee.db",
            "recordings.directory": f"{tmp_path}/recordings",
            "state.directory": f"{tmp_path}/state",
        }
    )
    pbx.site.cli("apikey", "set", text=pbx.site.key + "\n")
    pbx.site.cli("account", "add", "Fred", "--group", "Agent")
    pbx.site.cli("account", "add", "Ann")
    pbx.site.cli("attach", "Ann", "500")
    yield pbx
    pbx.hang_up()
    pbx.wait_until_idle()


def test_a_database_deleted_during_a_call_comes_back_and_the_call_ends_in_it(
    fresh: Pbx, tmp_path: Path
) -> None:
    pbx, store = fresh, Store(f"sqlite:///{tmp_path}/state/noojee.db")
    pbx.leg(pbx.dial("AGI(start_record.py,,rebuild-1,Fred)"))
    pbx.leg(pbx.dial("AGI(start_record.py,500,rebuild-2)"))
    pbx.start_call("AGI(start_record.py,,rebuild-3,Fred)", seconds=None)
    (running,) = pbx.site.wait_for_legs("--tag", "rebuild-3", status="recording")
    wait_until(lambda: not pbx.site.processes(), 20, "the drain to end")
    pbx.site.cli("sync")
    before = dump(store)
    assert len(before["recording_leg"]) == 3

    for path in (tmp_path / "state").glob("noojee.db*"):
        path.unlink()
    assert pbx.site.cli("sync", "--rebuild").startswith("3 side-cars read, 3 legs and ")
    assert dump(store) == before
    assert [leg["status"] for leg in before["recording_leg"] if leg["id"] == running["id"]] == ["recording"]

    pbx.hang_up()
    (leg,) = pbx.site.wait_for_legs("--tag", "rebuild-3", status="completed")
    assert (leg["id"], leg["owner"], leg["leg"]) == (running["id"], "Fred", 1)
    assert leg["bytes"] == Path(leg["file"]).stat().st_size


def test_calls_after_the_loss_of_the_database_have_their_owners_at_once(fresh: Pbx, tmp_path: Path) -> None:
    pbx = fresh
    for path in (tmp_path / "state").glob("noojee.db*"):
        path.unlink()

    named = pbx.dial("AGI(start_record.py,,lost-1,Fred)")
    attached = pbx.dial("AGI(start_record.py,500,lost-2)")

    assert (named.status, attached.status) == ("200", "200")
    said, log = "noojee-agi sync --rebuild does the rest", tmp_path / "state/noojee-agi.log"
    # Who opens the database first makes it anew, and says so in its own log: that must be the drain.
    wait_until(lambda: log.exists() and said in log.read_text(), 20, "a drain to make the database anew")
    assert [pbx.leg(view)["owner"] for view in (named, attached)] == ["Fred", "Ann"]
