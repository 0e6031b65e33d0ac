"""SIGHUP: the configuration is read anew, in each process of the server."""

import logging
import signal
from collections.abc import Callable

from noojee_agi import log
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError

logger = logging.getLogger(__name__)


def on_sighup(load_config: Callable[[], Config], use: Callable[[Config], None]) -> None:
    """Have `use` called with each new configuration, the last one last; one that is wrong is none."""
    is_asked = is_reading = False

    def reload(number: int, frame: object) -> None:
        """Python runs it in the middle of itself when SIGHUP comes again (manual, module signal).

        The inner one only asks the outer one to read once more, or what that has read before would be used
        last. The outer one looks for that once it no longer reads, or one that comes between would be lost.
        """
        nonlocal is_asked, is_reading
        is_asked = True
        if is_reading:
            return
        while is_asked:
            is_reading = True
            try:
                is_asked = False
                _reload(load_config, use)
            finally:
                is_reading = False

    signal.signal(signal.SIGHUP, reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _reload(load_config: Callable[[], Config], use: Callable[[Config], None]) -> None:
    try:
        config = load_config()
    except NoojeeError as exc:
        logger.error("the configuration stays as it was: %s", exc)
        return
    log.to_file(config)  # also after the file was rotated
    use(config)
