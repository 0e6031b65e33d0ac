"""Our log file: one line a call, one line a failure."""

import contextlib
import logging
import os
import time
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


class _File(logging.StreamHandler):  # type: ignore[type-arg]  # not before Python 3.11
    """The log file; standard error when that cannot be written."""

    _second = (0, "")  # since 1970, and as it is shown

    def put(self, level: int, message: str) -> bool:
        """Write what the formatter makes of a message; whether it was written, all of it.

        For the line that each call has: to make a record and pass it on costs more than twice as much.
        """
        now = time.time()
        second, shown = self._second
        if second != int(now):
            shown = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
            self._second = int(now), shown
        name, process, milliseconds = logging.getLevelName(level), os.getpid(), int(now % 1 * 1000)
        line = f"{shown},{milliseconds:03} {name} {process} {text.printable(message)}\n"
        content = line.encode("utf-8", "replace")
        self.acquire()  # or its descriptor may be another file's by now
        try:
            return os.write(self.stream.fileno(), content) == len(content)
        except (OSError, ValueError):  # the disk is full, say, or it was closed for another
            return False
        finally:
            self.release()


def to_standard_error() -> None:
    """Send warnings and errors there, as long as there is no log file."""
    if logging.lastResort:
        logging.lastResort.setFormatter(_Formatter())


def to_file(config: Config) -> None:
    """Send the log to <state directory>/noojee-agi.log, readable by owner and group.

    When that cannot be written (`noojee-agi check` names it) it goes to standard error.
    """
    handler = _File()
    with contextlib.suppress(OSError):
        descriptor = os.open(config.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        handler.setStream(open(descriptor, "a", encoding="utf-8", errors="replace"))  # noqa: SIM115
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(process)d %(message)s"))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)


def session(report: Report, asked_by: str = "") -> None:
    """The one line of a session; a traceback only for what nobody foresaw."""
    result = report.result
    level = logging.INFO if result.status in (200, 401) else logging.WARNING
    if logger.isEnabledFor(level):
        _write(
            level,
            f"{asked_by}{report.program} {result.status} {result.message}: leg {result.leg_id or '-'},"
            f" uniqueid {text.plain(report.uniqueid) or '-'}, file {result.file or '-'},"
            f" {report.milliseconds:.0f} ms",
        )
    if report.failure:
        logger.error("unexpected failure in %s", report.program, exc_info=report.failure)


def _write(level: int, message: str) -> None:
    handler = next(iter(logging.root.handlers), None)
    if not isinstance(handler, _File) or not handler.put(level, message):
        logger.log(level, "%s", message)  # which says why it cannot be written
