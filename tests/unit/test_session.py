"""One session: whatever happens, the dialplan has its answer and the call goes on."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from noojee_agi.actions.result import Report
from noojee_agi.config import Config
from noojee_agi.errors import BadArgument, ConfigurationError, KeyRefused, NoojeeError, NotStarted
from noojee_agi.session import session
from unit.fakes import DEAD_CHANNEL, HANG_UPS, KEY, PROGRAMS, FakeAsterisk, Site

START = session.Invocation("start_record")


def _run(site: Site, asterisk: FakeAsterisk, load_config: Callable[[], Config]) -> Report:
    surroundings = session.Surroundings(PROGRAMS, load_config, site.database)
    report = session.run(asterisk.streams(), lambda channel: START, surroundings)
    asterisk.check()
    return report


def _raiser(error: Exception) -> Callable[[], Config]:
    def load_config() -> Config:
        raise error

    return load_config


def test_the_report_says_which_call_it_was_and_how_long_it_took(tmp_path: Path) -> None:
    site = Site(tmp_path)

    report = site.run(FakeAsterisk())

    assert (report.program, report.uniqueid, report.result.status) == ("start_record", "1762420501.77", 200)
    assert 0 < report.milliseconds < 10_000
    assert (report.config, report.failure) == (site.config, None)


def test_a_recorded_call_says_nothing_on_the_console(tmp_path: Path) -> None:
    asterisk = FakeAsterisk()

    Site(tmp_path).run(asterisk)

    assert (asterisk.console, asterisk.log) == ([], [])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigurationError("/etc/x: [y] z: no"), 500),
        (BadArgument("tag has 256 characters"), 400),
        (KeyRefused("no key"), 401),
        (NotStarted("no file"), 503),
        (NoojeeError("something"), 500),
    ],
)
def test_an_error_of_ours_is_told_in_all_four_variables_and_in_asterisks_log(
    tmp_path: Path, error: NoojeeError, status: int
) -> None:
    stale = {name: "of the call before" for name in ("RECORDING_ID", "RECORDING_FILE")}
    asterisk = FakeAsterisk(**stale)

    report = _run(Site(tmp_path), asterisk, _raiser(error))

    assert asterisk.answers() == {
        "RECORDING_STATUS": str(status),
        "RECORDING_MESSAGE": str(error),
        "RECORDING_ID": "",
        "RECORDING_FILE": "",
    }
    assert asterisk.log == [f"WARNING noojee-agi: {status} {error}"]
    assert (report.result.status, report.failure) == (status, None)


@pytest.mark.parametrize("error", [RuntimeError(KEY), KeyError(KEY), OSError(5, KEY), UnicodeError(KEY)])
def test_what_nobody_foresaw_is_status_500_without_its_text(tmp_path: Path, error: Exception) -> None:
    asterisk = FakeAsterisk()

    report = _run(Site(tmp_path), asterisk, _raiser(error))

    assert asterisk.answers()["RECORDING_STATUS"] == "500"
    assert "noojee-agi check" in asterisk.answers()["RECORDING_MESSAGE"], "there is no log without a config"
    assert all(KEY not in line for line in asterisk.lines)
    assert report.failure is error


@pytest.mark.parametrize(
    "text",
    [
        "x" * 5000,
        "\u00fc" * 5000,
        '"' * 2000,
        "\\" * 2000,
        "a\nEXEC System id\n",
        "/etc/\udcff.conf: cannot be read",
        "${SHELL(id)}",
        "",
    ],
)
def test_no_message_keeps_the_answer_from_the_dialplan(tmp_path: Path, text: str) -> None:
    asterisk = FakeAsterisk()

    _run(Site(tmp_path), asterisk, _raiser(ConfigurationError(text)))

    assert asterisk.answers()["RECORDING_STATUS"] == "500"
    assert set(asterisk.answers()) == {
        "RECORDING_STATUS",
        "RECORDING_MESSAGE",
        "RECORDING_ID",
        "RECORDING_FILE",
    }


def test_a_message_is_one_line_for_the_dialplan_and_asterisks_log(tmp_path: Path) -> None:
    asterisk = FakeAsterisk()

    _run(Site(tmp_path), asterisk, _raiser(ConfigurationError("a\nb\x00c")))

    assert asterisk.answers()["RECORDING_MESSAGE"] == "a b c"
    assert asterisk.log == ["WARNING noojee-agi: 500 a b c"]


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("a,b,c (d [e", "a,b,c (d [e"),
        ('say "no"\\', "say ?no??"),
        ("${SHELL(id)}", "?{SHELL(id)}"),
        ("WARNING,x", "WARNING,x"),
    ],
)
def test_asterisks_log_acts_on_no_message(tmp_path: Path, text: str, logged: str) -> None:
    asterisk = FakeAsterisk()

    _run(Site(tmp_path), asterisk, _raiser(ConfigurationError(text)))

    assert asterisk.log == [f"WARNING noojee-agi: 500 {logged}"]


def test_an_asterisk_without_log_is_told_on_its_console(tmp_path: Path) -> None:
    asterisk = FakeAsterisk()
    asterisk.has_log = False

    _run(Site(tmp_path), asterisk, _raiser(KeyRefused("no key")))

    assert asterisk.console == ["noojee-agi: 401 no key"]


@pytest.mark.parametrize("style", HANG_UPS)
@pytest.mark.parametrize("error", [KeyRefused("no"), RuntimeError("boom")])
def test_a_hang_up_while_the_answer_is_told_is_no_failure(
    tmp_path: Path, style: str, error: Exception
) -> None:
    for number in range(1, 7):
        asterisk = FakeAsterisk()
        asterisk.hang_up_at, asterisk.hang_up_style = number, style

        report = _run(Site(tmp_path / f"{number}"), asterisk, _raiser(error))

        assert report.result.status in (401, 500)


@pytest.mark.parametrize("text", ["", "agi_channel: SIP/1-1\n", "agi_channel: SIP/1-1\nagi_unique"])
def test_a_call_that_is_gone_before_it_began_is_a_report_and_nothing_else(tmp_path: Path, text: str) -> None:
    site, writer = Site(tmp_path), io.StringIO()

    report = session.run((io.StringIO(text), writer), lambda channel: START, site.surroundings)

    assert (report.uniqueid, report.failure, report.result.leg_id) == ("", None, "")
    assert writer.getvalue() == ""
    assert site.events() == []


def test_streams_that_are_closed_raise_nothing(tmp_path: Path) -> None:
    site, reader, writer = Site(tmp_path), io.StringIO("agi_x: y\n\n"), io.StringIO()
    writer.close()

    session.run((reader, writer), lambda channel: START, site.surroundings)
    reader.close()
    session.run((reader, writer), lambda channel: START, site.surroundings)

    assert site.events() == []


def test_a_program_that_is_not_there_is_status_500(tmp_path: Path) -> None:
    site, asterisk = Site(tmp_path), FakeAsterisk()

    session.run(asterisk.streams(), lambda channel: session.Invocation("fly"), site.surroundings)

    asterisk.check()
    assert asterisk.answers()["RECORDING_STATUS"] == "500"


def test_the_database_is_read_once_in_a_session_at_most(tmp_path: Path) -> None:
    site, asterisk = Site(tmp_path), FakeAsterisk()
    site.configure(recordings_unknown_agent="refuse")
    Path(site.config.snapshot_file).unlink()

    site.run(asterisk, "", "", "nobody")

    assert asterisk.answers()["RECORDING_STATUS"] == "400"
    assert site.database.times_read == 1


# ---- A session that another program has begun


def _go_on(site: Site, asterisk: FakeAsterisk) -> Report:
    report = session.run(asterisk.streams(), lambda channel: START, site.surroundings, is_continued=True)
    asterisk.check()
    return report


@pytest.mark.parametrize(
    "left_unread",
    [
        "",
        "200 result=0\n",
        "200 result=1\n200 result=1 (a value)\n",
        "200 result=1 (a value\nof two lines)\n",
        "200 result=1 (a value\n200 result=0\n)\n",
        "200 result=1 ()\n",
        "sult=1 (half a reply)\n",
        "HANGUP\n",
        "510 Invalid or unknown command\n",
        "520-Invalid command syntax.  Proper usage follows:\nUsage: SET VARIABLE\n520 End of proper usage.\n",
    ],
)
def test_who_goes_on_passes_over_what_was_left_unread(tmp_path: Path, left_unread: str) -> None:
    site, asterisk = Site(tmp_path), FakeAsterisk()
    asterisk.left_unread = left_unread

    report = _go_on(site, asterisk)

    assert (report.result.status, report.failure) == (200, None)
    assert asterisk.answers()["RECORDING_STATUS"] == "200"
    assert asterisk.running() == [report.result.file]


@pytest.mark.parametrize("left_unread", ["", "200 result=0\n", "511 Command Not Permitted\n"])
def test_who_goes_on_after_the_hang_up_records_nothing_and_complains_of_nothing(
    tmp_path: Path, left_unread: str
) -> None:
    site, asterisk = Site(tmp_path), FakeAsterisk()
    asterisk.left_unread = left_unread
    asterisk.hang_up_at, asterisk.hang_up_style = 1, DEAD_CHANNEL

    report = session.run(asterisk.streams(), lambda channel: START, site.surroundings, is_continued=True)

    assert report.failure is None
    assert (asterisk.mixmonitors, site.legs()) == ([], [])
