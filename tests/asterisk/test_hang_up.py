"""The caller may hang up at any moment of the AGI: nothing hangs, and no recording is forgotten."""

from pathlib import Path
from typing import Any

import pytest
from lab.pbx import Pbx

pytestmark = pytest.mark.asterisk

# The program lives for some 60 ms: moments until then cover its start, its middle and some time after it.
LATEST_MS = 202
# On a busy machine it lives longer: calls of twice the time each follow until one is recorded.
MOST_SECONDS = 5.0


def test_hanging_up_at_any_moment_loses_nothing(pbx: Pbx, is_long: bool) -> None:
    moments = [milliseconds / 1000 for milliseconds in range(2, LATEST_MS, 4 if is_long else 16)]
    before = {leg["id"] for leg in pbx.site.legs()}
    files_before = set(pbx.site.audio_files())

    def new() -> list[dict[str, Any]]:
        return [leg for leg in pbx.site.legs() if leg["id"] not in before]

    for moment in moments:
        pbx.start_call("AGI(start_record.py,,hung-up,Fred)", seconds=moment)
        pbx.asterisk.wait_quiet()
        if moment == moments[-1] and moment < MOST_SECONDS:
            pbx.wait_until_idle()
            pbx.site.cli("sync")
            moments += [] if new() else [2 * moment]

    legs = new()
    files = set(pbx.site.audio_files()) - files_before
    assert {leg["status"] for leg in legs} <= {"completed", "empty", "failed"}
    assert sorted(leg["file"] for leg in legs if leg["status"] != "failed") == sorted(map(str, files))
    assert [leg for leg in legs if leg["status"] == "failed" and Path(leg["file"]).exists()] == []
    assert legs, "no call lived long enough to be recorded"
    assert len(legs) < len(moments), "no call was hung up before it was recorded"
