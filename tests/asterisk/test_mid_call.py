"""What happens to a leg when something breaks while its call goes on."""

import os
from pathlib import Path
from typing import Any

import pytest
from lab import tones
from lab.pbx import Pbx, View
from lab.small_disk import fill, small_disk
from lab.waiting import wait_until

from noojee_agi.database.store import Store
from noojee_agi.database.tables import recording_leg
from noojee_agi.recordings import recording
from noojee_agi.recordings.recording import EMPTY_FILE_BYTES
from noojee_agi.sync import closing

pytestmark = pytest.mark.asterisk


def sync_until_closed(pbx: Pbx, tag: str) -> dict[str, Any]:
    """The leg, once `noojee-agi sync`, typed once a second, has closed it."""

    def closed() -> dict[str, Any] | None:
        pbx.site.cli("sync", may_fail=True)
        (leg,) = pbx.site.legs("--tag", tag)
        return leg if leg["status"] != "recording" else None

    return wait_until(closed, 60, f"the leg {tag} to be closed", pause=1.0)


def test_a_configuration_that_breaks_during_the_call_costs_nothing(pbx: Pbx) -> None:
    pbx.start_call("AGI(start_record.py,,broken-conf,Fred)", seconds=None)
    file = Path(pbx.view().file)
    pbx.site.wait_for_legs("--tag", "broken-conf")
    pbx.site.configure({"recordings.fromat": "wav"})
    wait_until(lambda: file.stat().st_size > EMPTY_FILE_BYTES, 60, "some audio")
    pbx.hang_up()
    pbx.wait_until_idle()
    pbx.site.configure()

    pbx.site.cli("sync")

    (leg,) = pbx.site.legs("--tag", "broken-conf")
    assert leg["status"] == "completed"
    assert leg["duration_seconds"] == pytest.approx(tones.duration(file), abs=0.01)


def test_a_disk_that_fills_during_the_call_leaves_a_leg_that_tells_the_truth(pbx: Pbx) -> None:
    with small_disk(256 * 1024) as disk:
        pbx.site.configure({"recordings.directory": str(disk)})
        pbx.start_call("AGI(start_record.py,,filled)", seconds=3)  # the first audio is written after two
        pbx.site.wait_for_legs("--tag", "filled")
        fill(disk / "ballast")

        pbx.asterisk.wait_quiet()
        view = pbx.view()
        pbx.wait_until_idle()
        assert "No space left" in pbx.site.log() or pbx.site.legs("--tag", "filled")[0]["bytes"]
        (disk / "ballast").unlink()
        _make_it_long_ago(pbx, view)
        leg = sync_until_closed(pbx, "filled")

        assert (view.status, view.agi_status) == ("200", "SUCCESS")
        assert leg["status"] in ("completed", "interrupted")
        assert leg["bytes"] == Path(leg["file"]).stat().st_size
        assert leg["duration_seconds"] == pytest.approx((leg["bytes"] - 44) / 16000, abs=0.01)
        pbx.site.configure()


def test_a_killed_finish_record_is_made_good_by_sync(pbx: Pbx) -> None:
    view = pbx.dial("AGI(start_record.py,,unfinished)\nWait(0.5)\nStopMixMonitor(${NOOJEE_MIXMONITOR_ID})")
    pbx.leg(view)
    _update(pbx, view, status="recording", ended_at=None, bytes=None, duration_seconds=None)
    _make_it_long_ago(pbx, view)

    leg = sync_until_closed(pbx, "unfinished")

    assert leg["status"] in ("completed", "empty")


def _make_it_long_ago(pbx: Pbx, view: View) -> None:
    """What has only just ended, sync leaves for 15 s to a finish_record.py that may be under way."""
    long_ago = recording.now() - 2 * closing.SETTLED_AFTER
    _update(pbx, view, started_at=long_ago)
    os.utime(view.file, (long_ago.timestamp(), long_ago.timestamp()))


def _update(pbx: Pbx, view: View, **values: object) -> None:
    """The leg's row: as the database would be, had finish_record.py been killed at its first instruction."""
    with Store(pbx.site.database_url).transaction() as connection:
        connection.execute(recording_leg.update().where(recording_leg.c.id == view.leg_id).values(**values))
