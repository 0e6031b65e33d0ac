"""SIGHUP: the configuration is read anew, in each process of the server."""

import logging
import signal
from collections.abc import Callable

from noojee_agi import log
from noojee_agi.config import Config
from noojee_agi.errors import NoojeeError

logger = logging.getLogger(__name__)


def on_sighup(load_config: Callable[[], Config], use: Callable[[Config], None]) -> None:
    """Have `use` called with each new configuration; one that is wrong is none."""

    def reload(number: int, frame: object) -> None:
        try:
            config = load_config()
        except NoojeeError as exc:
            logger.error("the configuration stays as it was: %s", exc)
            return
        log.to_file(config)  # also after the file was rotated
        use(config)

    signal.signal(signal.SIGHUP, reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
