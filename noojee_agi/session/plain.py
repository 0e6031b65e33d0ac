"""The plain transport: one process per call, speaking AGI over its standard input and output."""

import contextlib
import os
import sys

from noojee_agi import paths
from noojee_agi.actions.finish_record import finish_record
from noojee_agi.actions.result import Report
from noojee_agi.asterisk.stream import Stream
from noojee_agi.config import Config
from noojee_agi.errors import BadArgument
from noojee_agi.recordings import disk, spool
from noojee_agi.session import background, session


def run_agi(program: str, environment: bytes = b"", is_continued: bool = False) -> None:
    """Serve this process's one AGI session; then the process ends, since Asterisk waits for that.

    environment: what was already read of it. is_continued: a server had taken the session, and died.
    """
    os.umask(background.UMASK)
    stream = Stream(0, 1, environment)
    words = [os.fsencode(word).decode("utf-8", "replace") for word in sys.argv[1:]]
    surroundings = session.Surroundings(
        os.path.dirname(os.path.realpath(sys.argv[0])),
        lambda: Config.load(paths.configuration(os.environ)),
        background.read_database,
    )
    report = session.run(
        (stream, stream), lambda channel: session.Invocation(program, words), surroundings, is_continued
    )
    if report.config:
        finish_in_background(report, report.config)
    elif report.failure:  # the configuration cannot be read: the dialplan and Asterisk's log say so
        sys.excepthook(type(report.failure), report.failure, report.failure.__traceback__)
    os._exit(0)


def finish_in_background(report: Report, config: Config) -> None:
    """Log the session, and drain what it has spooled: nobody waits for that."""
    try:
        background.fork(lambda: _afterwards(report, config), config.log_file)
    except OSError:  # no process to be had: the caller waits for this, and the event for the next drain
        _log(report, config)


def run_finish() -> None:
    """MixMonitor's end command: finish_record.py <configuration or -> <leg id> <file>."""
    os.umask(background.UMASK)
    path, leg_id, file = sys.argv[1:]
    failure: Exception | None = None
    try:
        finish_record(leg_id, file)
    except (OSError, BadArgument) as exc:
        failure = exc  # such as a full disk: a later drain closes the leg
    config = Config.load("" if path == "-" else path)
    if failure:
        from noojee_agi import log

        log.to_file(config)
        log.logger.error("leg %s has ended, and that cannot be noted now: %s", leg_id, failure)
    background.fork(lambda: _drain(config), config.log_file)


def _afterwards(report: Report, config: Config) -> None:
    _log(report, config)
    if not disk.does_not_answer():  # each call would leave a process that waits for it
        _drain(config)


def _log(report: Report, config: Config) -> None:
    from noojee_agi import log  # 6 ms that no caller has to wait for

    log.to_file(config)
    log.session(report)


def _drain(config: Config) -> None:
    """Force the events to the disk; then become the drain, unless there is one at work."""
    with contextlib.suppress(OSError):  # the drain tells of what cannot be read, and goes on with the rest
        spool.settle(config.spool_directory)
    lock = spool.take_lock(config.spool_directory)
    if lock is not None:  # it goes along: a drain begins with half a second of imports, and one does that
        os.set_inheritable(lock, True)
        background.become("sync", config, str(lock))
