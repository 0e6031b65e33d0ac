"""`noojee-agi recordings` of very many legs: flat memory, nobody kept waiting, each leg once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lab.site import PROGRAMS
from lab.umask import kept_umask
from lab.waiting import wait_until
from sqlalchemy import text

from integration.recorder import CALL_TIME, after
from noojee_agi import cli
from noojee_agi.cli import listing
from noojee_agi.database import queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.database.tables import call_record, recording_leg

# The command, which then says how many kB it took at most: VmHWM begins anew with each program (proc(5)).
MEASURED = """
import re, sys
from noojee_agi import cli
from noojee_agi.cli import listing
listing._PAGE = 250
try:
    cli.cli(sys.argv[1:], prog_name="noojee-agi")
finally:
    print(*re.findall("VmHWM: *[^0-9]*([0-9]+)", open("/proc/self/status").read()), file=sys.stderr)
"""


def put_legs(
    store: Store, count: int, first: int = 0, each: timedelta = timedelta(seconds=1), at_once: int = 1
) -> list[str]:
    """So many legs of as many calls, straight into the tables; their ids, oldest first.

    So many of them begin in one moment, and the next ones a while after them.
    """
    legs = [
        (number, f"{number:08}-0000-4000-8000-{number:012}", CALL_TIME + each * (number // at_once))
        for number in range(first, first + count)
    ]
    with store.transaction() as connection:
        connection.execute(call_record.insert(), [_call(*leg) for leg in legs])
        connection.execute(recording_leg.insert(), [_leg(*leg) for leg in legs])
    return [leg_id for _, leg_id, _ in legs]


def _call(number: int, leg_id: str, moment: datetime) -> dict[str, Any]:
    named = dict.fromkeys(["source", "destination", "did", "external_reference"], "0123456789")
    return {"id": leg_id, "server": "pbx1", "uniqueid": f"17.{number}", "started_at": moment, **named}


def _leg(number: int, leg_id: str, moment: datetime) -> dict[str, Any]:
    return {
        "id": leg_id,
        "call_record_id": leg_id,
        "leg": 1,
        "uniqueid": f"17.{number}",
        "channel": "PJSIP/410-00000a1f",
        "extension": "410",
        "agent_login_name": "",
        "tag": "INV-22",
        "file": f"/recordings/{moment:%Y/%m/%d}/17.{number}-{leg_id[:8]}.wav",
        "status": "completed",
        "started_at": moment,
    }


def environment(store: Store, folder: Path) -> dict[str, str]:
    conf = folder / "noojee_agi.conf"
    url = store.engine.url.render_as_string(hide_password=False)
    (folder / "recordings").mkdir(exist_ok=True)
    conf.write_text(
        f"[database]\nurl = {url}\n[recordings]\ndirectory = {folder}/recordings\n"
        f"[state]\ndirectory = {folder}\n"
    )
    return {**os.environ, "NOOJEE_AGI_CONF": str(conf)}


def listed(store: Store, folder: Path, *words: str) -> str:
    with kept_umask():
        done = CliRunner(env=environment(store, folder)).invoke(cli.cli, ["recordings", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(params=[False, True], ids=["table", "json"])
def form(request: pytest.FixtureRequest) -> list[str]:
    return ["--json"] * request.param


@pytest.mark.parametrize(
    ("backend", "form"),
    [
        ("sqlite", []),
        ("sqlite", ["--json"]),
        pytest.param("postgresql", ["--json"], marks=pytest.mark.postgresql),
    ],
)
def test_eight_times_the_legs_take_no_more_memory(store: Store, tmp_path: Path, form: list[str]) -> None:
    """7 KB a leg it was: 28 MB more here, two fifths of all of the program."""
    known = environment(store, tmp_path)

    def peak() -> int:
        command = [sys.executable, "-c", MEASURED, "recordings", *form]
        done = subprocess.run(command, env=known, capture_output=True, text=True, check=True)
        assert done.stdout.count("INV-22") >= count
        return int(done.stderr)

    count = 500
    put_legs(store, count)
    few = peak()
    put_legs(store, 3_500, first=count)
    count = 4_000
    many = peak()

    assert many / few < 1.25


@pytest.mark.parametrize("count", [0, 9, 10, 11, 25])
def test_each_leg_comes_once_and_in_order_whatever_a_page_holds(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Also when three legs begin in one moment, and a page ends between them."""
    monkeypatch.setattr(listing, "_PAGE", 10)
    ids = put_legs(store, count, at_once=3) if count else []

    found = json.loads(listed(store, tmp_path, "--json"))
    table = listed(store, tmp_path).splitlines()

    assert [leg["id"] for leg in found] == ids
    assert [line[-8:] for line in table[1:]] == [leg_id[:8] for leg_id in ids]
    with store.reading() as connection:
        assert [row["id"] for row in queries.legs(connection, Filter())] == ids


def test_json_is_what_it_was_in_one_piece(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_legs(store, 25)
    whole = listed(store, tmp_path, "--json")
    monkeypatch.setattr(listing, "_PAGE", 10)

    assert listed(store, tmp_path, "--json") == whole == json.dumps(json.loads(whole), indent=1) + "\n"


def test_filters_count_on_every_page(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_PAGE", 10)
    put_legs(store, 60)
    with store.transaction() as connection:
        connection.execute(text("UPDATE recording_leg SET tag = 'other' WHERE CAST(id AS text) LIKE '%7'"))

    local = after(30).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    assert len(json.loads(listed(store, tmp_path, "--json", "--tag", "INV-22"))) == 54
    assert len(json.loads(listed(store, tmp_path, "--json", "--to", local))) == 30


@pytest.fixture
def paused(store: Store, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A list whose reader has looked at its first line, and then left the room (less)."""
    put_legs(store, 4_500)  # more than a page
    program = subprocess.Popen(
        [PROGRAMS / "noojee-agi", "recordings", "--json"],
        env=environment(store, tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "[\n"
    yield program
    program.kill()
    program.communicate()


def sleeps_at_the_pipe(pid: int) -> bool:
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text()


def is_alone_at(store: Store) -> bool:
    """Whether no other client is connected to this PostgreSQL database."""
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    with store.reading() as connection:
        return not connection.scalar(others)


def test_a_slow_reader_holds_no_transaction_and_gets_the_rest(
    store: Store, paused: subprocess.Popen[str]
) -> None:
    assert paused.stdout is not None
    wait_until(lambda: sleeps_at_the_pipe(paused.pid), 20, "the full pipe")

    if store.engine.dialect.name == "postgresql":
        wait_until(lambda: is_alone_at(store), 20, "the server's end of the connection")
        with store.transaction() as connection:
            connection.execute(text("LOCK TABLE recording_leg"))  # as an upgrade does
    else:
        with store.engine.connect() as plain:
            plain.exec_driver_sql("COMMIT")
            assert (
                plain.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0] == 0
            )  # nobody is in the way

    assert len(json.loads("[" + paused.stdout.read())) == 4_500
    assert paused.wait(20) == 0


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_reader_that_leaves_ends_the_list_without_a_word(
    store: Store, tmp_path: Path, form: list[str]
) -> None:
    put_legs(store, 3_000)
    command = f"{PROGRAMS}/noojee-agi recordings {' '.join(form)} | head -1 >/dev/null"

    done = subprocess.run(
        ["sh", "-c", command], env=environment(store, tmp_path), capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
