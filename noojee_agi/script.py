"""The plain transport: one process per call, speaking AGI over its standard input and output."""

import io
import os
import sys

from noojee_agi import background, config, session, spool
from noojee_agi.actions.finish_record import finish_record
from noojee_agi.config import Config


def run_agi(program: str) -> None:
    """Serve this process's one AGI session; then the process ends, since Asterisk waits for that."""
    report = session.run(
        program,
        [os.fsencode(word).decode("utf-8", "replace") for word in sys.argv[1:]],
        _streams(),
        os.path.dirname(os.path.realpath(sys.argv[0])),
        lambda: config.load(config.find(os.environ)),
        background.read_database,
    )
    try:
        background.fork(lambda: _afterwards(report))
    except OSError:
        _afterwards(report)  # no process to be had: the caller waits for the log line, nothing is lost
    os._exit(0)


def run_finish() -> None:
    """MixMonitor's end command: finish_record.py <configuration or -> <leg id> <file>."""
    path, leg_id, file = sys.argv[1:]
    settings = config.load("" if path == "-" else path)
    try:
        finish_record(leg_id, file, settings)
        background.fork(lambda: _drain(settings, leg_id))
    except OSError as exc:
        from noojee_agi import log

        log.to_file(settings)
        log.logger.error("leg %s has ended, and that cannot be noted: %s; run noojee-agi sync", leg_id, exc)


def _streams() -> tuple[io.TextIOBase, io.TextIOBase]:
    """Standard input and output as UTF-8; a caller's name in another encoding must not stop us."""
    reader = open(0, encoding="utf-8", errors="replace", newline="\n", closefd=False)  # noqa: SIM115
    writer = open(1, "w", encoding="utf-8", errors="replace", newline="\n", closefd=False)  # noqa: SIM115
    return reader, writer


def _afterwards(report: session.Report) -> None:
    """What the caller does not wait for."""
    from noojee_agi import log  # 6 ms that no caller has to wait for

    if report.config is None:
        return  # the configuration cannot be read: the dialplan and Asterisk's log say so
    log.to_file(report.config)
    log.session(report)
    try:
        _drain(report.config, report.answer.leg_id)
    except OSError as exc:
        log.logger.error("no drain: %s; run noojee-agi sync", exc)


def _drain(settings: Config, leg_id: str) -> None:
    waiting = spool.waiting(settings.spool_directory)
    for path in waiting:
        if leg_id and leg_id in path:
            spool.settle(path)
    if waiting:
        background.become_drain(settings)
