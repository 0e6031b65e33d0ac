"""The command line, as a sysadmin runs it; long tables of cases run in this process, which is quicker."""

from __future__ import annotations

import csv
import grp
import io
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, _NamedTextIOWrapper
from lab.postgresql import PrivatePostgreSQL
from lab.served import Served
from lab.site import PROGRAMS, Site
from lab.umask import kept_umask
from lab.waiting import wait_until
from sqlalchemy import text

from integration.conftest import BACKENDS
from integration.recorder import CALL_TIME, Recorder, after, ended
from noojee_agi import cli
from noojee_agi.actions import access
from noojee_agi.cli import columns, listing
from noojee_agi.config import Config
from noojee_agi.database import settings, store
from noojee_agi.database.store import Store
from noojee_agi.recordings import recording, snapshot
from noojee_agi.recordings.recording import Ending
from noojee_agi.server import server

SECRET = "hunter2-and-more"


# What a test leaves behind, in an order in which it can be deleted.
_TABLES = (
    *("access_log", "recording_event", "recording_leg", "call_record"),
    *("extension_attachment", "account_group", "account"),
)


@pytest.fixture(scope="module", params=BACKENDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One installation per database for the whole module; see `site`."""
    url = ""
    if request.param == "postgresql":
        server: PrivatePostgreSQL = request.getfixturevalue("postgresql")
        url = server.url(server.create_database())
    return Site(tmp_path_factory.mktemp("cli") / "site", url)


def empty(site: Site) -> None:
    with Store(site.database_url).transaction() as connection:
        for table in _TABLES:
            connection.execute(text(f"DELETE FROM {table}"))


@pytest.fixture
def site(shared: Site) -> Site:
    """An installation in working order, with no accounts, no recordings and an empty spool."""
    shared.configure()
    empty(shared)
    shutil.rmtree(shared.recordings_directory / ".spool", ignore_errors=True)
    (shared.recordings_directory / ".settings.json").unlink(missing_ok=True)
    (shared.state_directory / "history").unlink(missing_ok=True)  # or the spool would be missed
    return shared


@pytest.fixture
def recorder(site: Site, tmp_path: Path) -> Recorder:
    """Fills the site's own spool."""
    recorder = Recorder(Store(site.database_url), tmp_path / "recordings")
    recorder.spool = str(site.recordings_directory / ".spool")
    return recorder


def add_account(site: Site, login: str, *groups: str) -> None:
    with Store(site.database_url).transaction() as connection:
        settings.add_account(connection, login, login.title(), groups)


def run_here(site: Site, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """What site.run_cli does, without a process of its own; so it must not change the user."""
    with kept_umask():
        done = CliRunner(env=site.environment).invoke(cli.cli, words, input=text)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def assert_one_line_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert re.fullmatch(r"Error: [^\n]+\n", done.stderr), done.stderr
    for word in words:
        assert word in done.stderr


# --- check ---


def test_check_is_content_with_a_new_installation(site: Site) -> None:
    done = site.run_cli("check")

    assert (done.returncode, done.stderr) == (0, "")
    states = [line.split()[0] for line in done.stdout.splitlines()]
    assert (states.count("ok"), states.count("?"), len(states)) == (17, 7, 24)  # no Asterisk runs here


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
def test_a_passive_check_leaves_no_line_in_the_log_of_a_server(site: Site) -> None:
    with Served(site) as served:
        done = site.run_cli("check", "--json", "--passive")
        states = {stage["name"]: stage["state"] for stage in json.loads(done.stdout)}

        assert (done.returncode, states["programs"], states["server"]) == (0, "not seen", "ok")
        assert served.status()["sessions"] == 0
        site.cli("check")
        wait_until(lambda: served.status()["sessions"] > 0, 10, "the sessions of a check")


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
def test_check_ends_with_1_and_says_what_to_do(site: Site) -> None:
    with Store(site.database_url).transaction() as connection:
        connection.execute(text("DELETE FROM system_variable"))

    done = site.run_cli("check")

    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if not line.startswith(("ok", "?"))]
    new = f"{PROGRAMS}/noojee-agi apikey new"
    assert failed == [f"FAIL  apiKey         none is set, so no call is recorded: {new}"]


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
def test_check_tells_programs_the_same(site: Site) -> None:
    with Store(site.database_url).transaction() as connection:
        connection.execute(text("DELETE FROM system_variable"))

    done = site.run_cli("check", "--json", "--passive")

    stages = {stage["name"]: stage for stage in json.loads(done.stdout)}
    assert done.returncode == 1
    assert stages["apiKey"] == {
        "name": "apiKey",
        "state": "failed",
        "text": f"none is set, so no call is recorded: {PROGRAMS}/noojee-agi apikey new",
        "cure": f"{PROGRAMS}/noojee-agi apikey new",
    }
    assert (stages["database"]["state"], stages["links"]["state"]) == ("ok", "not seen")


# --- serve ---


def test_sighup_finds_a_configuration_that_was_made_after_the_server_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf, read = tmp_path / "noojee_agi.conf", []

    class BegunServer:
        def __init__(self, load_config: Callable[[], Config], programs: str) -> None:
            self._load_config = load_config

        def run(self, say: Callable[[str], None]) -> None:
            read.append(self._load_config().path)
            conf.write_text("")
            read.append(self._load_config().path)

    monkeypatch.setattr(server, "Server", BegunServer)
    environment = {"AST_CONFIG_DIR": str(tmp_path), "NOOJEE_AGI_CONF": None}

    done = CliRunner(env=environment).invoke(cli.serve, obj=Config())

    assert done.exception is None
    assert read[0] != read[1] == str(conf)


# --- apiKey ---


def test_a_new_key_is_printed_once_and_the_calls_know_it(site: Site) -> None:
    done = site.run_cli("apikey", "new")

    key = done.stdout.strip()
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"[0-9a-f]{40}", key)
    known = snapshot.load(str(site.state_directory / "snapshot.json"))
    assert known is not None
    assert access.matches(key, known.key_digest)
    assert not access.matches(site.key, known.key_digest)
    with Store(site.database_url).transaction() as connection:
        assert settings.key_digest(connection) == known.key_digest
    for path in site.folder.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("given", "key"),
    [("a key of some length\n", "a key of some length"), ("☎ schlüssel-schlüssel", "☎ schlüssel-schlüssel")],
)
def test_a_key_is_set_from_standard_input(site: Site, given: str, key: str) -> None:
    done = site.run_cli("apikey", "set", text=given)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with Store(site.database_url).transaction() as connection:
        assert access.matches(key, settings.key_digest(connection))


def test_a_short_key_is_set_with_a_warning(site: Site) -> None:
    done = run_here(site, "apikey", "set", text="short\n")

    assert done.returncode == 0
    assert "warning: under 16 characters" in done.stderr
    assert "short\n" not in done.stdout + done.stderr


@pytest.mark.parametrize("given", ["", "\n", " blank\n", "blank \n", "a\tb\n", "a\0b\n", "a\u200bb\n"])
def test_a_bad_key_is_refused_and_the_old_one_stays(site: Site, given: str) -> None:
    before = (site.state_directory / "snapshot.json").read_text()

    assert_one_line_error(run_here(site, "apikey", "set", text=given), "an apiKey is one line")

    assert (site.state_directory / "snapshot.json").read_text() == before


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
@pytest.mark.parametrize("encoding", ["utf-8:surrogateescape", "utf-8:strict"])
def test_a_key_that_is_not_utf_8_is_refused_in_one_line(site: Site, encoding: str) -> None:
    done = subprocess.run(
        [PROGRAMS / "noojee-agi", "apikey", "set"],
        input=b"a key of some length\xff\n",
        capture_output=True,
        env={**site.environment, "PYTHONIOENCODING": encoding},
        check=False,
    )

    assert done.returncode == 1
    assert re.fullmatch(rb"Error: [^\n]+\n", done.stderr), done.stderr


# --- accounts ---


def test_accounts_are_added_attached_and_detached(site: Site) -> None:
    site.cli(
        "account", "add", "fred", "--name", "Fred O'Neill ☎", "--group", "Agent", "--group", "Team Leader"
    )
    site.cli("attach", "fred", "410")

    assert json.loads(site.cli("account", "list", "--json")) == [
        {
            "login": "fred",
            "name": "Fred O'Neill ☎",
            "enabled": True,
            "groups": ["Agent", "Team Leader"],
            "extensions": ["410"],
        }
    ]
    known = snapshot.load(str(site.state_directory / "snapshot.json"))
    assert known is not None
    assert known.logins == {"fred"}
    [head, row] = run_here(site, "account", "list").stdout.splitlines()
    assert re.split(r" {2,}", head) == ["login", "name", "enabled", "groups", "extensions"]
    assert re.split(r" {2,}", row) == ["fred", "Fred O'Neill ☎", "yes", "Agent, Team Leader", "410"]

    run_here(site, "detach", "410")
    assert_one_line_error(run_here(site, "detach", "410"), "nobody is attached to 410")


def test_an_account_added_twice_is_an_error(site: Site) -> None:
    add_account(site, "fred")

    assert_one_line_error(run_here(site, "account", "add", "fred"), "there is an account fred already")


def test_attaching_an_unknown_account_is_an_error_that_says_what_to_do(site: Site) -> None:
    done = site.run_cli("attach", "nobody", "410")

    assert_one_line_error(done, "no enabled account nobody", "noojee-agi account add nobody")


@pytest.mark.parametrize(
    "words",
    [
        ("account", "add", ""),
        ("account", "add", " fred"),
        ("account", "add", "a\nb"),
        ("account", "add", "x" * 101),
        ("account", "add", "fred", "--name", "x" * 256),
        ("account", "add", "fred", "--group", "x" * 101),
        ("account", "add", "fred", "--group", ""),
        ("attach", "fred", ""),
        ("attach", "fred", "4" * 150),
    ],
)
def test_a_name_that_no_column_or_dialplan_could_hold_is_refused(site: Site, words: tuple[str, ...]) -> None:
    if words[0] == "attach":
        add_account(site, "fred")

    assert_one_line_error(run_here(site, *words))

    known = json.loads(run_here(site, "account", "list", "--json").stdout)
    assert [account["login"] for account in known if account["extensions"] or words[0] == "account"] == []


# --- recordings ---

DESIGN_FIELDS = [
    *("id", "call_record_id", "leg", "uniqueid", "call_uniqueid", "channel", "extension"),
    *("source", "destination", "did", "external_reference", "tag", "owner", "agent_login_name"),
    *("file", "status", "started_at", "ended_at", "duration_seconds", "bytes"),
    *("peer_channel", "peer_uniqueid"),
]


def test_recordings_as_json_have_exactly_the_promised_fields(site: Site, recorder: Recorder) -> None:
    add_account(site, "fred")
    leg = recorder.leg(tag="☎ 'INV' \"22\"", agent_login_name="fred", agent_known=True)
    recorder.store_all(leg, ended(leg))

    [found] = json.loads(site.cli("recordings", "--json"))

    assert list(found) == DESIGN_FIELDS == list(listing.JSON_FIELDS)
    row = recorder.the_leg(leg)
    assert found == {
        **{name: row[name] for name in DESIGN_FIELDS},
        "started_at": CALL_TIME.isoformat(),
        "ended_at": after(60).isoformat(),
    }
    assert found["owner"] == "fred"


def test_recordings_are_filtered(site: Site, recorder: Recorder) -> None:
    add_account(site, "fred")
    legs = [
        recorder.leg(tag="INV-1", agent_login_name="fred", agent_known=True, call_uniqueid="c.1"),
        recorder.leg(
            tag="INV-2",
            uniqueid="ch.2",
            call_uniqueid="c.2",
            started_at=after(86_400),
            source="+49301",
            extension="411",
        ),
    ]
    recorder.store_all(*legs, ended(legs[0]))
    local = after(43_200).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    cases = {
        ("--tag", "INV-1"): ["INV-1"],
        ("--uniqueid", "ch.2"): ["INV-2"],
        ("--owner", "fred"): ["INV-1"],
        ("--status", "recording"): ["INV-2"],
        ("--from", local): ["INV-2"],
        ("--to", local): ["INV-1"],
        ("--as", "fred"): ["INV-1"],
        ("--id", legs[1].id): ["INV-2"],
        ("--id", legs[1].id[:8]): ["INV-2"],
        ("--id", legs[1].id[:8].upper()): ["INV-2"],
        ("--id", recording.new_id()): [],
        ("--number", "01234567"): ["INV-1"],
        ("--number", "600"): ["INV-1", "INV-2"],
        ("--number", "0987654"): ["INV-1", "INV-2"],
        ("--number", "411"): ["INV-2"],
        ("--number", "60"): [],
        ("--limit", "1"): ["INV-2"],
        ("--limit", "2"): ["INV-1", "INV-2"],
    }

    found = {words: json.loads(run_here(site, "recordings", "--json", *words).stdout) for words in cases}

    assert {words: [leg["tag"] for leg in legs] for words, legs in found.items()} == cases


def test_recordings_are_a_table_for_people(site: Site, recorder: Recorder) -> None:
    """Local time, who called whom, how long, and as much of the id as one types."""
    add_account(site, "fred")
    legs = [
        recorder.leg(tag="INV-22", agent_login_name="fred", agent_known=True),
        recorder.leg(call_uniqueid="c.2", started_at=after(60)),
    ]
    recorder.store_all(*legs, ended(legs[0], duration_seconds=65.4))

    rows = [re.split(r" {2,}", line) for line in run_here(site, "recordings").stdout.splitlines()]

    first, second = (moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") for moment in (CALL_TIME, after(60)))
    assert rows == [
        ["started", "from", "to", "owner", "tag", "length", "status", "id"],
        [first, "01234567", "600", "fred", "INV-22", "1:05", "completed", legs[0].id[:8]],
        [second, "01234567", "600", "-", "-", "-", "recording", legs[1].id[:8]],
    ]


def test_the_table_fits_a_hundred_columns_and_shows_what_was_cut(site: Site, recorder: Recorder) -> None:
    """Letters of the far East take two columns each, an accent of its own takes none."""
    long = {"source": "+49" + "123" * 20, "destination": "東京" * 30, "tag": "e\u0301" * 60}
    short = {"source": "+491", "destination": "東京", "tag": "e\u0301-22"}
    legs = [
        recorder.leg(**short, call_uniqueid="c.1"),
        recorder.leg(**long, call_uniqueid="c.2", started_at=after(1)),
    ]
    recorder.store_all(*legs, ended(legs[0], status="interrupted", duration_seconds=6000.0))

    lines = run_here(site, "recordings").stdout.splitlines()

    assert [columns.width(line) for line in lines] == [94, 100, 100]  # the heading of the ids is shorter
    assert [line.count("…") for line in lines] == [0, 0, 3]
    assert all(value in lines[1] for value in (*short.values(), "100:00", "interrupted"))
    starts = [
        columns.width(line[: line.index(leg.id[:8])]) for line, leg in zip(lines[1:], legs, strict=True)
    ]
    assert len({*starts, columns.width(lines[0][: lines[0].index("id", 80)])}) == 1
    assert [leg["source"] for leg in json.loads(run_here(site, "recordings", "--json").stdout)][1] == long[
        "source"
    ]


def test_at_a_terminal_the_newest_fifty_are_shown_and_that_there_are_more(
    site: Site, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    legs = [recorder.leg(call_uniqueid=f"c.{n}", started_at=after(n)) for n in range(51)]
    recorder.store_all(*legs)

    def shown(*words: str) -> tuple[list[str], str]:
        done = run_here(site, "recordings", *words)
        assert done.returncode == 0
        return [line[-8:] for line in done.stdout.splitlines()[1:]], done.stderr

    def at_a_terminal(*words: str) -> tuple[list[str], str]:
        with monkeypatch.context() as patch:
            patch.setattr(_NamedTextIOWrapper, "isatty", lambda self: True)
            return shown(*words)

    ids = [leg.id[:8] for leg in legs]
    more = "there are more: these are the newest 50, --limit shows others\n"
    assert shown() == (ids, "")
    assert at_a_terminal() == (ids[-50:], more)
    assert at_a_terminal("--limit", "51") == (ids, "")
    assert at_a_terminal("--to", after(50).astimezone().strftime("%Y-%m-%dT%H:%M:%S")) == (ids[:50], "")
    assert shown("--limit", "3") == (ids[-3:], more.replace("50", "3"))
    assert at_a_terminal("--json")[1] == ""
    assert len(json.loads(run_here(site, "recordings", "--json", "--limit", "3").stdout)) == 3


def test_recordings_as_csv_hold_the_same_and_nothing_that_a_table_program_runs(
    site: Site, recorder: Recorder
) -> None:
    values = ["=1+1", "@x", "+49 (30) 1-2", "+1+cmd|' /C calc'!A0", "-2+3", "-", 'a "b", c', "x\x1b[2J"]
    legs = [
        recorder.leg(source=value, call_uniqueid=f"c.{n}", started_at=after(n))
        for n, value in enumerate(values)
    ]
    recorder.store_all(*legs, ended(legs[0]))

    text = run_here(site, "recordings", "--csv").stdout

    rows = list(csv.DictReader(io.StringIO(text)))
    found = json.loads(run_here(site, "recordings", "--json").stdout)
    assert list(rows[0]) == DESIGN_FIELDS
    assert [row["source"] for row in rows] == [
        *("'=1+1", "'@x", "+49 (30) 1-2", "'+1+cmd|' /C calc'!A0", "'-2+3", "-", 'a "b", c', "x?[2J")
    ]
    for row, leg in zip(rows, found, strict=True):
        others = {
            name: "" if value is None else str(value) for name, value in leg.items() if name != "source"
        }
        assert {name: row[name] for name in others} == others


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as", "nobody"), "there is no account nobody: see noojee-agi account list"),
        (("--as", "off"), "off is disabled, and hears nothing: noojee-agi account enable off"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",), ("--csv",)])
def test_who_hears_nothing_is_told_so(
    site: Site, words: tuple[str, ...], said: str, form: tuple[str, ...]
) -> None:
    add_account(site, "off")
    run_here(site, "account", "disable", "off")

    assert_one_line_error(run_here(site, "recordings", *words, *form), said)


@pytest.mark.parametrize("leg_id", ["", "1234567", "123456789", "1234567g", "no-uuid"])
def test_what_is_no_id_is_refused(site: Site, leg_id: str) -> None:
    done = run_here(site, "recordings", "--id", leg_id)

    assert (done.returncode, done.stdout) == (2, "")
    assert "its first eight are enough" in done.stderr


def test_no_recordings_are_an_empty_list(site: Site) -> None:
    assert run_here(site, "recordings", "--json").stdout == "[]\n"


def test_what_a_call_brought_cannot_act_on_the_terminal(site: Site, recorder: Recorder) -> None:
    """A dialled extension may hold an escape sequence, a name may turn the text after it."""
    hostile = "4\x1b]0;owned\x07\x9b2J10\u202e\u2066\u2028"
    recorder.store_all(recorder.leg(extensions=(hostile,), source=hostile))
    add_account(site, hostile, hostile)

    for words in (("recordings",), ("account", "list")):
        table, as_json = (run_here(site, *words, *option).stdout for option in ((), ("--json",)))
        assert not set(table + as_json) & set(hostile) - set("4]0;owned2J10")
        assert hostile in json.loads(as_json)[0].values()


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
@pytest.mark.parametrize("words", [("sync",), ("--debug", "sync"), ("check",)], ids=" ".join)
def test_a_files_name_cannot_act_on_the_terminal_either(
    site: Site, recorder: Recorder, words: tuple[str, ...]
) -> None:
    """Neither in a warning of ours, nor in the list of what was refused."""
    hostile = "\x1b]0;owned\x07\x9b2J10\u202e\u2066\u2028"
    recorder.put_text(hostile)
    recorder.put_text(f"{{{hostile}}}")
    recorder.put_file(f"1-started-{hostile}.json", "hello")
    (site.recordings_directory / ".spool/rejected").mkdir()
    recorder.put_file(f"rejected/0-started-{hostile}.json", "hello")

    done = site.run_cli(*words)

    assert "]0;owned" in done.stdout + done.stderr
    assert not set(done.stdout + done.stderr) & set(hostile) - set("]0;owned2J10")


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
def test_sync_stores_what_it_can_when_a_journal_cannot_be_read(site: Site, recorder: Recorder) -> None:
    leg = recorder.leg()
    recorder.put(leg, ended(leg))
    (site.recordings_directory / ".spool/journal.1").mkdir()

    done = site.run_cli("sync")

    assert done.stdout == "2 events stored, 0 set aside, 1 for later\n"
    assert "journal.1 cannot be read: Is a directory" in done.stderr


@pytest.mark.parametrize("words", [("--from", "0001-01-01"), ("--to", "9999-12-31T23:59:59")])
def test_a_far_time_is_no_traceback(site: Site, words: tuple[str, str]) -> None:
    done = run_here(site, "recordings", "--json", *words)

    assert done.stdout == "[]\n" or done.stderr.startswith(("Error: ", "Usage: "))


# --- sync ---


def test_sync_stores_what_waits_and_names_what_was_refused(site: Site, recorder: Recorder) -> None:
    leg = recorder.leg()
    recorder.put(leg, ended(leg))
    recorder.put_text("{hello}")
    orphan = Ending(recorder.leg().id, "completed", after(0), 960_044, 1.0)
    recorder.put(orphan)

    done = site.run_cli("sync")

    refused = done.stderr.splitlines()
    assert done.returncode == 1
    assert done.stdout == "2 events stored, 2 set aside, 0 for later\n"
    assert len(refused) == 5, "the log's two lines, the list's two, and what to do"
    assert sum(".reason" in line for line in refused) == 2
    assert "--retry-rejected" in refused[-1]
    assert [row["status"] for row in recorder.legs()] == ["completed"]
    assert run_here(site, "sync").returncode == 1


def test_what_was_refused_is_tried_again(site: Site, recorder: Recorder) -> None:
    leg = recorder.leg()
    recorder.put(ended(leg))
    assert site.run_cli("sync").returncode == 1
    recorder.put(leg)

    again = site.run_cli("sync", "--retry-rejected")

    assert (again.returncode, again.stdout) == (0, "2 events stored, 0 set aside, 0 for later\n")
    assert [row["status"] for row in recorder.legs()] == ["completed"]


# --- what goes wrong ---


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", ["[database] url"]),
        ("mysql://root:hunter2-and-more@127.0.0.1/noojee", ["[database] url"]),
        ("sqlite:////nonexistent/folder/noojee.db", ["/nonexistent/folder/noojee.db", "unable to open"]),
        ("postgresql+psycopg2://postgres:hunter2-and-more@127.0.0.1:1/noojee", ["127.0.0.1", "refused"]),
        (
            "postgresql+psycopg2://postgres:hunter2-and-more@/noojee?host=127.0.0.1:1&host=nowhere.invalid:2",
            ['"127.0.0.1", port 1 failed', 'could not translate host name "nowhere.invalid"'],
        ),
    ],
    ids=["nonsense", "mysql", "missing folder", "nobody listens", "two hosts"],
)
def test_a_wrong_database_is_an_error_in_one_line_without_the_password(
    site: Site, url: str, words: list[str]
) -> None:
    site.configure({"database.url": url})

    done = run_here(site, "sync")

    assert_one_line_error(done, *words)
    assert SECRET not in done.stderr


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://postgres:hunter2-and-more@127.0.0.1:1/noojee",
        "postgresql+psycopg2://postgres:hunter2-and-more@127.0.0.1:port/noojee",
        "hunter2-and-more",
    ],
)
def test_debug_shows_where_an_error_comes_from_but_not_the_password(site: Site, url: str) -> None:
    site.configure({"database.url": url})

    done = site.run_cli("--debug", "sync")

    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("one", "one"),
        ("", "Exception"),
        ("one\n\tIs the server running?\n", "one"),
        ("one\n\thint\ntwo\n\thint\nthree: no\n\thint", "one; three: no"),
        ("wrong value\nLINE 1: INSERT … 'a caller'\n             ^\n", "wrong value"),
        (
            "not unique\nDETAIL:  Key (id)=(7) already exists.\n",
            "not unique; DETAIL:  Key (id)=(7) already exists.",
        ),
        (f"one: {SECRET}\ntwo: {SECRET}", "one: ***; two: ***"),
    ],
)
def test_of_a_drivers_error_the_first_line_and_the_last_that_tells_more_are_shown(
    said: str, shown: str
) -> None:
    assert store._first_line(Exception(said), SECRET) == shown


@pytest.fixture
def locked_role(postgresql: PrivatePostgreSQL) -> Iterator[str]:
    """A role that must give its password."""
    admin = Store(postgresql.url("postgres"))
    with admin.transaction() as connection:
        file = connection.scalar(text("SHOW hba_file"))
        before = str(connection.scalar(text("SELECT pg_read_file(:file)"), {"file": file}))
    _set_hba(admin, file, "host all locked 127.0.0.1/32 scram-sha-256\n" + before)
    with admin.transaction() as connection:
        connection.execute(text("CREATE ROLE locked LOGIN PASSWORD 'another'"))
    yield "locked"
    _set_hba(admin, file, before)
    with admin.transaction() as connection:
        connection.execute(text("DROP ROLE locked"))


def _set_hba(admin: Store, file: Any, lines: str) -> None:
    rows = " UNION ALL ".join(f"SELECT '{line}'" for line in lines.splitlines() if line and line[0] != "#")
    with admin.transaction() as connection:
        connection.execute(text(f"COPY ({rows}) TO '{file}'"))
        connection.execute(text("SELECT pg_reload_conf()"))


@pytest.mark.postgresql
@pytest.mark.parametrize("shared", [pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True)
def test_a_wrong_password_is_an_error_in_one_line_without_the_password(site: Site, locked_role: str) -> None:
    url = site.database_url.replace("postgres@", f"{locked_role}:{SECRET}@")
    site.configure({"database.url": url})

    done = site.run_cli("recordings")

    assert_one_line_error(done, "password authentication failed", f"{locked_role}:***@")
    assert SECRET not in done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[recordings]\ncolour = blue\n", ["[recordings] colour", "no such option"]),
        ("[recording]\nformat = wav\n", ["[recording]", "no such section"]),
        ("format = wav\n", ["not an INI file"]),
        ("[recordings]\nmin_free_percent = some\n", ["[recordings] min_free_percent", "must be a number"]),
        ("[recordings]\ndirectory = here\n", ["[recordings] directory", "absolute path"]),
    ],
)
@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
def test_a_mistake_in_the_configuration_is_named_by_file_section_and_option(
    site: Site, line: str, words: list[str]
) -> None:
    site.conf.write_text(line)

    assert_one_line_error(run_here(site, "recordings"), str(site.conf), *words)


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
def test_a_configuration_that_is_not_there_is_an_error(site: Site) -> None:
    site.conf.unlink()

    assert_one_line_error(run_here(site, "recordings"), str(site.conf), "cannot be read")


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
def test_a_reader_that_goes_away_is_no_error_message(site: Site, recorder: Recorder) -> None:
    """`noojee-agi recordings | head -1`"""
    recorder.store_all(*(recorder.leg(call_uniqueid=f"c.{number}", tag="x" * 255) for number in range(200)))
    command = f"{PROGRAMS}/noojee-agi recordings --json | head -1"

    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, **site.environment},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("[\n", "")


# --- as root ---


def is_readable_by(user: pwd.struct_passwd) -> bool:
    """Whether that user may use this Python; one in root's own folder it may not."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import sqlite3, importlib.readers, sqlalchemy"],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


@pytest.fixture(scope="module", params=BACKENDS)
def shared_of_nobody(request: pytest.FixtureRequest) -> Iterator[Site]:
    """One installation per database for all tests as root; see `site_of_nobody`."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as the owner of the recordings: run this test as root")
    if not is_readable_by(pwd.getpwnam("nobody")):
        pytest.skip(f"user nobody cannot read {sys.executable}: use a Python outside of root's home")
    url = ""
    if request.param == "postgresql":
        server: PrivatePostgreSQL = request.getfixturevalue("postgresql")
        url = server.url(server.create_database())
    folder = Path(tempfile.mkdtemp(prefix="noojee-agi-", dir="/tmp"))
    folder.chmod(0o755)
    yield Site(folder / "site", url)
    shutil.rmtree(folder)


@pytest.fixture
def site_of_nobody(shared_of_nobody: Site) -> Site:
    """Its folders are new, and belong to another user, as Asterisk's do; PostgreSQL has no rows."""
    site = shared_of_nobody
    user = pwd.getpwnam("nobody")
    for directory in (site.recordings_directory, site.state_directory):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o750)
        os.chown(directory, user.pw_uid, user.pw_gid)
    for name in ("recorder", "to", "root"):
        shutil.rmtree(site.folder / name, ignore_errors=True)
    if site.database_url.startswith("postgresql"):
        empty(site)
    return site


def of_root(site: Site) -> list[str]:
    """What Asterisk's user could not write."""
    found = []
    for directory in (site.recordings_directory, site.state_directory):
        paths = [directory, *directory.rglob("*")]
        found += [str(path) for path in paths if path.lstat().st_uid == 0 or path.lstat().st_gid == 0]
    return found


def open_to_others(site: Site) -> list[str]:
    directories = (site.recordings_directory, site.state_directory)
    paths = [path for directory in directories for path in directory.rglob("*")]
    return [str(path) for path in paths if stat.S_IMODE(path.lstat().st_mode) & stat.S_IRWXO]


def test_root_leaves_no_file_behind_that_asterisks_user_cannot_write(site_of_nobody: Site) -> None:
    site = site_of_nobody
    recorder = Recorder(Store(site.database_url), site.folder / "recorder")
    recorder.spool = str(site.recordings_directory / ".spool")

    for words in [
        ("apikey", "new"),
        ("check",),
        ("db", "upgrade"),
        ("account", "add", "fred"),
        ("attach", "fred", "410"),
        ("sync",),
        ("recordings",),
    ]:
        done = site.run_cli(*words)
        assert done.returncode == 0, done
        assert (words, of_root(site)) == (words, [])
        assert (words, open_to_others(site)) == (words, [])


def test_root_exports_as_asterisks_user(site_of_nobody: Site) -> None:
    site = site_of_nobody
    user = pwd.getpwnam("nobody")
    site.cli("db", "upgrade")
    recorder = Recorder(Store(site.database_url), site.folder / "recorder")
    leg = recorder.leg()
    recorder.store_all(leg, ended(leg))
    Path(leg.file).write_bytes(b"RIFF")
    for path in (recorder.directory, *recorder.directory.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    to, of_root_only = site.folder / "to", site.folder / "root"
    to.mkdir()
    os.chown(to, user.pw_uid, user.pw_gid)
    of_root_only.mkdir(0o755)

    done = site.run_cli("recordings", "export", leg.id, "--to", str(to))

    assert (done.returncode, done.stderr) == (0, "")
    assert len([*to.iterdir()]) == 2
    assert of_root_in(to) == of_root(site) == []
    site.cli("sync")
    again = site.run_cli("recordings", "export", leg.id, "--to", str(of_root_only / "to"))
    assert_one_line_error(again, "install -d -o nobody", str(of_root_only))


def test_root_drains_as_asterisks_user(site_of_nobody: Site) -> None:
    """Side-cars and rejected events belong to it, too."""
    site = site_of_nobody
    user = pwd.getpwnam("nobody")
    site.cli("db", "upgrade")
    year = site.recordings_directory / "2026"
    folder = year / "11/27"
    spool_folder = site.recordings_directory / ".spool"
    for directory in (year, folder.parent, folder, spool_folder):
        directory.mkdir(mode=0o750)
        os.chown(directory, user.pw_uid, user.pw_gid)
    recorder = Recorder(Store(site.database_url), site.folder / "recorder")
    recorder.spool = str(spool_folder)
    leg = recorder.leg(file=str(folder / "17-0e5f6b1c.wav"))
    recorder.put(leg, ended(leg))
    recorder.put_text("{hello}")
    for path in spool_folder.iterdir():
        os.chown(path, user.pw_uid, user.pw_gid)

    done = site.run_cli("sync")

    assert done.stdout.startswith("2 events stored, 1 set aside"), done
    assert (folder / "17-0e5f6b1c.json").exists()
    assert of_root(site) == []


@pytest.mark.parametrize("shared_of_nobody", ["sqlite"], indirect=True)
def test_a_check_by_root_of_missing_recordings_makes_no_file_of_root(site_of_nobody: Site) -> None:
    site = site_of_nobody
    site.recordings_directory.rmdir()

    done = site.run_cli("check")

    assert done.returncode == 1
    made = f"install -d -o nobody -g {grp.getgrgid(pwd.getpwnam('nobody').pw_gid).gr_name} -m 0750"
    assert f"{made} {site.recordings_directory}" in done.stdout
    assert of_root_in(site.state_directory) == []


def of_root_in(directory: Path) -> list[str]:
    return [str(path) for path in directory.rglob("*") if path.lstat().st_uid == 0]


def test_root_refuses_to_work_without_the_recordings_directory(site_of_nobody: Site) -> None:
    site = site_of_nobody
    site.recordings_directory.rmdir()

    for words in [("apikey", "new"), ("db", "upgrade")]:
        assert_one_line_error(site.run_cli(*words), "install -d -o asterisk", str(site.recordings_directory))
    assert of_root_in(site.state_directory) == []


def test_a_user_who_may_not_write_there_is_told_so_in_one_line(site_of_nobody: Site) -> None:
    """A sysadmin's own account, not root: the folders are closed to it."""
    site = site_of_nobody
    site.conf.chmod(0o644)
    daemon = pwd.getpwnam("daemon")

    done = subprocess.run(
        [PROGRAMS / "noojee-agi", "apikey", "new"],
        env=site.environment,
        user=daemon.pw_uid,
        group=daemon.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )

    assert_one_line_error(done)


def test_a_disabled_account_hears_nothing_until_it_is_enabled_again(site: Site, recorder: Recorder) -> None:
    add_account(site, "ann", "Administrator")
    recorder.store_all(recorder.leg())

    assert run_here(site, "account", "disable", "ann").returncode == 0
    heard_disabled = run_here(site, "recordings", "--json", "--as", "ann")
    assert "ann" not in (snapshot.load(str(site.snapshot)) or pytest.fail("no snapshot")).logins
    assert run_here(site, "account", "enable", "ann").returncode == 0

    assert_one_line_error(heard_disabled, "ann is disabled, and hears nothing")
    assert len(json.loads(run_here(site, "recordings", "--json", "--as", "ann").stdout)) == 1
    assert "ann" in (snapshot.load(str(site.snapshot)) or pytest.fail("no snapshot")).logins


@pytest.mark.parametrize("word", ["enable", "disable"])
def test_only_an_account_that_is_there_is_enabled_or_disabled(site: Site, word: str) -> None:
    done = site.run_cli("account", word, "nobody")

    assert (done.returncode, done.stderr) == (
        1,
        "Error: there is no account nobody: see noojee-agi account list\n",
    )
