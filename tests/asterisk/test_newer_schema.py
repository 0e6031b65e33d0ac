"""Another host's newer noojee-agi has upgraded the database that this one uses."""

import pytest
from lab.pbx import Pbx
from lab.waiting import wait_until
from sqlalchemy import text

from noojee_agi.database.store import REVISION, Store
from noojee_agi.recordings import spool

pytestmark = pytest.mark.asterisk


def test_a_newer_schema_is_said_and_the_call_is_recorded_all_the_same(pbx: Pbx) -> None:
    directory = spool.directory_in(str(pbx.site.recordings_directory))
    _set_revision(pbx, "9999")
    try:
        view = pbx.dial("AGI(start_record.py,,newer,Fred)")
        wait_until(lambda: spool.count(directory) == 2, 20, "start and end in the spool")
        pbx.wait_until_idle()

        assert (view.status, view.message) == ("200", "OK")
        assert "newer schema" in pbx.site.log()
        assert "install the newer noojee-agi" in pbx.site.cli("check", may_fail=True)
        assert "install the newer noojee-agi" in pbx.site.cli("sync", may_fail=True)
        assert spool.count(directory) == 2
    finally:
        _set_revision(pbx, REVISION)

    pbx.site.cli("sync")
    leg = pbx.leg(view)
    assert (leg["tag"], leg["owner"]) == ("newer", "Fred")


def _set_revision(pbx: Pbx, revision: str) -> None:
    with Store(pbx.site.database_url).transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": revision})
