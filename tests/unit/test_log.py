"""The line that each session has in the log: written in one piece, as all other lines are."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from noojee_agi import log
from noojee_agi.actions.result import Report, Result
from noojee_agi.config import Config

HEAD = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
RECORDED = Report("start_record", "1.2", Result(200, "OK", "0e5f6b1c", "/srv/a.wav"), 12.4)


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """Afterwards pytest's own handlers have the root logger again."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    yield Config(state_directory=str(tmp_path))
    root.handlers, root.level = before, level


def _lines(config: Config) -> list[str]:
    return Path(config.log_file).read_text(encoding="utf-8").splitlines()


def test_a_session_is_one_line_of_the_same_form_as_all_others(config: Config) -> None:
    log.to_file(config)
    before = time.strftime("%Y-%m-%d %H:%M")

    log.session(RECORDED)
    log.logger.info("another")

    first, second = _lines(config)
    process = first.split(" ")[3]
    assert re.fullmatch(
        f"{HEAD}INFO {process} start_record 200 OK: leg 0e5f6b1c, uniqueid 1.2, file /srv/a.wav, 12 ms", first
    )
    assert re.fullmatch(f"{HEAD}INFO {process} another", second)
    assert before <= first[:16] <= time.strftime("%Y-%m-%d %H:%M")


def test_what_did_not_go_well_is_a_warning_and_nothing_in_its_line_acts(config: Config) -> None:
    log.to_file(config)

    log.session(Report("start_record", "1.2\x1b]0;x\x07", Result(503, "no \u202efile\n200 OK \udc80"), 1.0))

    (line,) = _lines(config)
    assert line.split(" ", 4)[2] == "WARNING"
    assert line.endswith("start_record 503 no ?file?200 OK ?: leg -, uniqueid 1.2??0?x?, file -, 1 ms")


def test_a_level_that_is_not_wanted_is_not_written(config: Config) -> None:
    log.to_file(Config(state_directory=config.state_directory, log_level="warning"))

    log.session(RECORDED)

    assert _lines(config) == []


def test_a_failure_that_nobody_foresaw_has_its_traceback_below_the_line(config: Config) -> None:
    log.to_file(config)

    log.session(Report("start_record", "1.2", Result(500, "unexpected"), 1.0, config, ValueError("boom")))

    lines = _lines(config)
    assert lines[1].endswith("unexpected failure in start_record")
    assert lines[-1] == "ValueError: boom"


def test_a_line_that_cannot_be_written_is_told_on_standard_error(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(config.log_file).symlink_to("/dev/full")
    log.to_file(config)

    log.session(RECORDED)

    assert "No space left on device" in capsys.readouterr().err


def test_after_the_log_was_rotated_the_line_goes_into_the_new_file(config: Config) -> None:
    log.to_file(config)
    log.session(RECORDED)
    old = Path(config.log_file).rename(f"{config.log_file}.1")
    log.session(RECORDED)
    log.to_file(config)

    log.session(RECORDED)

    assert (len(old.read_text().splitlines()), len(_lines(config))) == (2, 1)


def test_without_a_log_file_the_line_is_the_loggers(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger().handlers = [caplog.handler]

    log.session(RECORDED)

    assert caplog.messages == ["start_record 200 OK: leg 0e5f6b1c, uniqueid 1.2, file /srv/a.wav, 12 ms"]
