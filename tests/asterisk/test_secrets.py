"""The apiKey is found nowhere but where it was set.

Asterisk's own debug log is not looked at: it shows every variable that any program reads.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import asterisk, phones
from lab.asterisk import Installation, PrivateAsterisk
from lab.pbx import PARTIES, Pbx
from lab.phones import Lines, Phone
from lab.process_watch import ProcessWatch
from lab.site import Site
from lab.waiting import wait_until

pytestmark = pytest.mark.asterisk

QUIET = """\
[general]
[logfiles]
full => notice,warning,error
console => notice,warning,error
"""
LOUD = QUIET.replace("error\n", "error,verbose(9)\n")

CALL = """
[test]
exten => 500,1,Answer()
 same => n,AGI(start_record.py,,first,Fred)
 same => n,AGI(start_record.py,at/499)
 same => n,AGI(start_record.py,tag=twice,tag=twice)
 same => n,Wait(0.3)
 same => n,AGI(start_record.py,,second)
 same => n,Wait(0.3)
 same => n,Set(apiKey=wrong-key)
 same => n,AGI(start_record.py)
 same => n,Wait(5)
"""
LAST_LINE = "Executing [500@test:10] Wait"


@pytest.fixture(params=[22, 16], ids=["asterisk22", "asterisk16"])
def installation(request: pytest.FixtureRequest) -> Installation:
    return asterisk.find(request.param)


def test_a_global_key_is_found_nowhere(installation: Installation, tmp_path: Path) -> None:
    """Asterisk itself logs every global that it reads, at verbose level 2 (pbx_variables.c
    pbx_builtin_setvar_helper); README says so. From then on nothing may show it.
    """
    site = Site(tmp_path / "site")
    extensions = f"[globals]\napiKey = {site.key}\n{PARTIES}{CALL}"
    with PrivateAsterisk(
        installation,
        tmp_path / "asterisk",
        extensions,
        {"logger.conf": QUIET},
        site.environment,
        site.agi_directory,
        verbose=0,
    ) as running:
        (running.folder / "etc/logger.conf").write_text(LOUD)
        running.rx("logger reload")

        def originate() -> None:
            running.originate("500@test/n", "stays@caller")
            wait_until(lambda: LAST_LINE in running.log(), 60, "the last line")
            running.rx("channel request hangup all")

        assert_a_call_shows_no_key(Pbx(running, site), originate, "extensions.conf")


def test_a_key_from_pjsip_set_var_is_found_nowhere_from_the_start(
    installation: Installation, tmp_path: Path
) -> None:
    site = Site(tmp_path / "site")
    lines = Lines(("411",), variables={"apiKey": site.key})
    with (
        PrivateAsterisk(
            installation,
            tmp_path / "asterisk",
            CALL,
            {"logger.conf": LOUD, "pjsip.conf": lines.configuration()},
            site.environment,
            site.agi_directory,
            modules=phones.MODULES,
        ) as running,
        Phone(lines, "411", 1004, tmp_path / "411") as phone,
    ):

        def dial() -> None:
            phone.dial("500")
            wait_until(lambda: LAST_LINE in running.log(), 60, "the last line")
            phone.hang_up()

        assert_a_call_shows_no_key(Pbx(running, site), dial, "pjsip.conf")


def assert_a_call_shows_no_key(pbx: Pbx, make_call: Callable[[], None], holder: str) -> None:
    key = pbx.site.key.encode()
    watch = ProcessWatch(key)
    with watch:
        make_call()
        pbx.asterisk.wait_quiet(60)
        pbx.wait_until_idle()

    legs = pbx.site.wait_for_legs(count=2)
    assert [leg["tag"] for leg in legs] == ["first", "second"]
    assert {leg["status"] for leg in legs} <= {"completed", "empty"}  # a busy Asterisk may hear nothing
    assert "Executing [500@test:2] AGI" in pbx.asterisk.log(), "the log is not at the level that is tested"
    assert watch.looks > 10  # a look takes longer on a busy machine
    assert watch.found == set()
    files = [path for path in pbx.site.folder.parent.rglob("*") if path.is_file()]
    assert [path.name for path in files if key in path.read_bytes()] == [holder]
    assert_only_the_digest_is_stored(pbx.site)


def assert_only_the_digest_is_stored(site: Site) -> None:
    with sqlite3.connect(site.state_directory / "noojee.db") as database:
        ((value,),) = database.execute("SELECT value FROM system_variable WHERE name = 'apiKey'").fetchall()
    assert value.startswith("hmac-sha256$")
    assert site.key not in value
