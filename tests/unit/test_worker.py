"""A worker alone: where the Asterisk of a connection runs, and who waits for the database."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from noojee_agi.config import Config
from noojee_agi.recordings import spool
from noojee_agi.server import worker
from noojee_agi.server.counters import Counters
from noojee_agi.server.overflow import Overflow
from noojee_agi.server.worker import Links, Worker
from noojee_agi.session import background

THREADS, ASKERS = 16, 2  # an eighth of them


@pytest.mark.parametrize(
    ("family", "listens", "comes_from", "host"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", ""),
        (socket.AF_INET, "127.0.0.1", "127.0.0.9", "127.0.0.9"),
        (socket.AF_INET6, "::", "127.0.0.1", ""),
        (socket.AF_INET6, "::", "127.0.0.9", "127.0.0.9"),
    ],
)
def test_another_host_is_one_of_another_address_written_as_it_is_known(
    family: socket.AddressFamily, listens: str, comes_from: str, host: str
) -> None:
    with socket.create_server(
        (listens, 0), family=family, dualstack_ipv6=family == socket.AF_INET6
    ) as server:
        address = ("127.0.0.1", server.getsockname()[1])
        with socket.create_connection(address, source_address=(comes_from, 0)):
            connection, _ = server.accept()
            with connection:
                assert worker._other_host(connection) == host


class Asking:
    """A worker's sessions that want the snapshot renewed, each in a thread; we are the drain process."""

    def __init__(self, config: Config, pool: ThreadPoolExecutor, links: Links, questions: int) -> None:
        self._config = config
        self._pool = pool
        self._questions = questions
        self._worker = Worker(0, THREADS, lambda: config, config, "", links)

    def ask(self) -> float:
        """How many seconds a session waits."""
        begun = time.monotonic()
        self._worker._read_database(self._config)
        return time.monotonic() - begun

    def begin(self, count: int) -> list[Future[float]]:
        """So many sessions ask at once."""
        barrier = threading.Barrier(count)

        def together() -> float:
            barrier.wait(10)
            return self.ask()

        return [self._pool.submit(together) for _ in range(count)]

    def await_questions(self, count: int) -> None:
        for _ in range(count):
            os.read(self._questions, 1)

    def answer(self) -> None:
        spool.write(self._config.snapshot_file, "{}")


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    questions, ask = os.pipe()
    config = Config(state_directory=str(tmp_path))
    with contextlib.ExitStack() as stack:
        for end in (questions, ask):
            stack.callback(os.close, end)
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        pool = stack.enter_context(ThreadPoolExecutor(2 * THREADS))
        yield Asking(config, pool, Links(None, local, ask, ask, Counters(1), Overflow()), questions)


def seconds(waits: list[Future[float]]) -> list[float]:
    return sorted(wait.result(10) for wait in waits)


HALF = background.READ_WITHIN_SECONDS / 2
AT_ONCE = worker._SOON_SECONDS / 2


def test_everybody_waits_for_a_database_that_answers(asking: Asking) -> None:
    waits = asking.begin(THREADS)
    asking.await_questions(THREADS)
    assert not any(wait.done() for wait in waits)
    asking.answer()

    assert max(seconds(waits)) < HALF


def test_only_some_wait_for_a_database_that_does_not_answer(asking: Asking) -> None:
    waits = seconds(asking.begin(THREADS))

    assert len([wait for wait in waits if wait > HALF]) == ASKERS


def test_who_comes_later_does_not_wait_anew(asking: Asking) -> None:
    """A queue of wrong keys would hold all threads as long as it lasts."""
    waits = asking.begin(THREADS)
    assert len(futures.wait(waits, HALF).done) == THREADS - ASKERS

    later = sum(asking.ask() for _ in range(10))

    assert later < AT_ONCE
    assert not all(wait.done() for wait in waits), "a question was still without an answer"


def test_nobody_waits_just_after_a_question_without_an_answer(asking: Asking) -> None:
    assert asking.ask() > HALF

    assert sum(asking.ask() for _ in range(10)) < AT_ONCE


def test_beside_a_question_without_an_answer_a_free_asker_asks_its_own(asking: Asking) -> None:
    """Its key may have been changed meanwhile, and the database may answer that."""
    (first,) = asking.begin(1)
    asking.await_questions(1)
    assert not futures.wait([first], HALF).done

    (second,) = asking.begin(1)
    asking.await_questions(1)
    assert not futures.wait([second], HALF / 2).done
    asking.answer()

    assert second.result(10) < background.READ_WITHIN_SECONDS
