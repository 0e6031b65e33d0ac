"""Our log file: one line a call, one line a failure."""

import contextlib
import logging
import os
from typing import Any

from noojee_agi import text
from noojee_agi.actions.result import Report
from noojee_agi.config import Config

logger = logging.getLogger("noojee_agi")


class _Formatter(logging.Formatter):
    """One line a message, and nothing that acts on the terminal of whoever reads it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return text.printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return text.printable_lines(super().formatException(ei))


def to_standard_error() -> None:
    """Send warnings and errors there, as long as there is no log file."""
    if logging.lastResort:
        logging.lastResort.setFormatter(_Formatter())


def to_file(config: Config) -> None:
    """Send the log to <state directory>/noojee-agi.log, readable by owner and group.

    When that cannot be written (`noojee-agi check` names it) it goes to standard error.
    """
    handler = logging.StreamHandler()
    with contextlib.suppress(OSError):
        descriptor = os.open(config.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        handler.setStream(open(descriptor, "a", encoding="utf-8", errors="replace"))  # noqa: SIM115
    # What our lines do not show need not be found out for each (Python's logging HOWTO, "Optimization").
    logging.logThreads = logging.logMultiprocessing = False
    logging._srcfile = None
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(process)d %(message)s"))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)


def session(report: Report) -> None:
    """The one line of an AGI session; a traceback only for what nobody foresaw."""
    result = report.result
    level = logging.INFO if result.status in (200, 401) else logging.WARNING
    logger.log(
        level,
        "%s %d %s: leg %s, uniqueid %s, file %s, %.0f ms",
        report.program,
        result.status,
        result.message,
        result.leg_id or "-",
        text.plain(report.uniqueid) or "-",
        result.file or "-",
        report.milliseconds,
    )
    if report.failure:
        logger.error("unexpected failure in %s", report.program, exc_info=report.failure)
