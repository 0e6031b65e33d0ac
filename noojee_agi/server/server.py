"""`noojee-agi serve`: looks after the processes that serve.

Workers run the sessions, a drain process has the database; none of them waits for another. Each holds the
reading end of a lifeline, a pipe in which nothing is ever written: when its other end closes, because we end
or were killed, they finish what they have begun and end.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Protocol

from noojee_agi import log
from noojee_agi.asterisk.stream import SESSION_SECONDS
from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError, NoojeeError
from noojee_agi.server import about
from noojee_agi.server.counters import Counters
from noojee_agi.server.drain_process import DrainProcess
from noojee_agi.server.follower import Follower
from noojee_agi.server.listeners import Listeners
from noojee_agi.server.worker import Links, Worker
from noojee_agi.session.session import ACTIONS

logger = logging.getLogger(__name__)

_MAX_WORKERS = 4
_RESTART_SECONDS = 1.0
_FINISH_SECONDS = SESSION_SECONDS + 5
_LAST_DRAIN_SECONDS = 20.0
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_OPEN_FILES = 8192

# In which order they end: sessions bring events, which the drain process has to store.
_FOLLOWER, _SESSIONS, _DRAIN = range(3)


class Process(Protocol):
    def run(self, lifeline: int) -> None: ...
    def use(self, config: Config) -> None: ...


class Server:
    """One `noojee-agi serve`. programs: the folder of finish_record.py."""

    def __init__(self, load_config: Callable[[], Config], programs: str) -> None:
        """Raises ConfigurationError and OSError when it cannot begin."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # and in each child: only we act on them
        self._load_config = load_config
        self._config = load_config()
        self._listeners = Listeners(self._config)
        self._children: dict[int, Process] = {}
        self._lifelines = {stage: os.pipe() for stage in (_FOLLOWER, _SESSIONS, _DRAIN)}
        _allow_open_files()
        log.to_file(self._config)
        try:
            self._make_processes(programs)
        except ConfigurationError:
            self._listeners.close()
            raise

    def run(self, say: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP reads the configuration anew. say is told what is served."""
        gc.freeze()  # what the processes have in common stays in common memory
        for process in self._processes:
            self._start(process)
        served = f"serves {self._listeners.names}: {', '.join(ACTIONS)}"
        logger.info(served)
        say(served)
        while (received := signal.sigwait(_SIGNALS)) not in (signal.SIGTERM, signal.SIGINT):
            if received == signal.SIGHUP:
                self._reload()
            else:
                self._replace_the_dead()
        self._end()

    def _make_processes(self, programs: str) -> None:
        config, listeners = self._config, self._listeners
        count = min(_MAX_WORKERS, len(os.sched_getaffinity(0)), config.server_threads)
        self._counters = numbers = Counters(count + 1)  # the last one is HTTP's
        (events, tell), (questions, ask) = (os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(2))
        self._drain_process = DrainProcess(
            self._load_config, config, events, questions, numbers, listeners.all
        )
        self._follower = Follower(self._load_config, config, programs, numbers, tell, listeners.all)
        links = Links(listeners.network, listeners.local, listeners.http, tell, ask, numbers, about.program())
        self._workers = []
        for number in range(count):
            threads = config.server_threads // count + (number < config.server_threads % count)
            self._workers.append(Worker(number, threads, self._load_config, config, programs, links))
        self._http = [_http(self._load_config, config, programs, links, count)] if listeners.http else []

    @property
    def _processes(self) -> list[Process]:
        followers = [self._follower] if self._follower.is_needed else []
        return [self._drain_process, *followers, *self._workers, *self._http]

    def _start(self, process: Process) -> None:
        child = os.fork()
        if child:
            self._children[child] = process
            return
        try:
            for _, ours in self._lifelines.values():
                os.close(ours)
            process.run(self._lifelines[self._stage(process)][0])
        finally:
            failure = sys.exc_info()
            if failure[0]:
                logger.critical("a process of the server has failed", exc_info=failure)
            os._exit(1 if failure[0] else 0)

    def _replace_the_dead(self) -> None:
        for process in self._buried():
            if process is self._drain_process:
                self._counters.set_sees_ends(False)
            logger.error("a process of the server has died: started again")
            time.sleep(_RESTART_SECONDS)
            self._start(process)

    def _buried(self) -> list[Process]:
        dead = [child for child in self._children if os.waitpid(child, os.WNOHANG)[0]]
        return [self._children.pop(child) for child in dead]

    def _reload(self) -> None:
        try:
            config = self._load_config()
        except NoojeeError as exc:
            logger.error("SIGHUP: the configuration stays as it was: %s", exc)
            return
        if about.fixed(config) != about.fixed(self._config):
            logger.warning("listen, socket, threads, and whether there is TLS, change with a restart only")
        log.to_file(config)
        for process in (self._follower, *self._processes):
            process.use(config)  # for one that must be started again
        for child in self._children:
            os.kill(child, signal.SIGHUP)
        if self._follower.is_needed and self._follower not in self._children.values():
            self._start(self._follower)
        logger.info("SIGHUP: the configuration was read anew")

    def _end(self) -> None:
        """First the sessions, then the last drain, by a new process when the former one has just died."""
        self._listeners.close()
        self._counters.end()
        self._finish(_FOLLOWER, _FINISH_SECONDS)
        self._finish(_SESSIONS, _FINISH_SECONDS)
        self._buried()
        if self._drain_process not in self._children.values():
            self._start(self._drain_process)
        self._finish(_DRAIN, _LAST_DRAIN_SECONDS)
        logger.info("ended")

    def _stage(self, process: Process) -> int:
        of_others = {id(self._follower): _FOLLOWER, id(self._drain_process): _DRAIN}
        return of_others.get(id(process), _SESSIONS)

    def _finish(self, stage: int, seconds: float) -> None:
        """Wait for the end of these; what takes too long is killed, and the spool has what it was about."""
        os.close(self._lifelines.pop(stage)[1])
        deadline = time.monotonic() + seconds
        while left := [child for child, process in self._children.items() if self._stage(process) == stage]:
            rest = deadline - time.monotonic()
            if rest <= 0:
                for child in left:
                    os.kill(child, signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, max(rest, 0.1))
            self._buried()


def _http(
    load_config: Callable[[], Config], config: Config, programs: str, links: Links, number: int
) -> Process:
    """Raises ConfigurationError; its packages are an extra."""
    try:
        from noojee_agi.server.http import Http
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"[http] listen needs {exc.name}, which is not installed: run agi/install --web, or"
            " pip install 'noojee-agi[web]'"
        ) from exc
    return Http(load_config, config, programs, links, number)


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
