"""Sessions on an event loop: while one waits, others go on; each is woken by what it waits for alone."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from noojee_agi.server import waiting
from noojee_agi.server.waiting import Sessions, Waiting

LIMIT_SECONDS = 30.0


class Loop:
    """An event loop, and what its sessions have done, in order."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.sessions = Sessions(self.loop, 2)
        self.done: list[object] = []

    def run_until(self, is_over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS

        def look() -> None:
            if is_over() or time.monotonic() > deadline:
                self.loop.stop()
            else:
                self.loop.call_soon(look)

        self.loop.call_soon(look)
        self.loop.run_forever()
        assert is_over()

    def begin_waiting(self, connection: socket.socket) -> Waiting:
        """A session that waits for what nobody says."""
        begun = []

        def waits() -> None:
            begun.append(waiting.current())
            self.done.append(waiting.wait_for_event(connection.fileno(), select.POLLIN, LIMIT_SECONDS))

        self.sessions.begin(waits)
        return begun[0]

    def run(self, *works: Callable[[], None]) -> None:
        """All of these sessions, to their end."""
        for work in works:
            self.sessions.begin(work)
        self.run_until(lambda: not self.sessions)


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def test_while_one_waits_for_an_answer_another_goes_on(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair

    def waits() -> None:
        assert waiting.wait_for_event(ours.fileno(), select.POLLIN, LIMIT_SECONDS)
        loop.done.append(ours.recv(10))

    def says() -> None:
        loop.done.append("another")
        theirs.send(b"answer")

    loop.run(waits, says)

    assert loop.done == ["another", b"answer"]


def test_an_answer_that_does_not_come_in_time_is_false(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop.run(lambda: loop.done.append(waiting.wait_for_event(pair[0].fileno(), select.POLLIN, 0.01)))

    assert loop.done == [False]


def test_a_pause_is_as_long_as_was_asked_for_whatever_comes_meanwhile(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """What is said during a pause is there afterwards."""
    ours, theirs = pair
    pauses = [0.0002, 0.002, 0.03]
    slept: list[float] = []

    def pauses_then_reads() -> None:
        theirs.send(b"x")
        assert waiting.wait_for_event(ours.fileno(), select.POLLIN, LIMIT_SECONDS)
        for seconds in pauses:
            theirs.send(b"y")
            begun = time.monotonic()
            loop.sessions.pause(seconds)
            slept.append(time.monotonic() - begun)
        assert waiting.wait_for_event(ours.fileno(), select.POLLIN, LIMIT_SECONDS)
        loop.done.append(ours.recv(10))

    loop.run(pauses_then_reads)

    assert loop.done == [b"xyyy"]
    assert all(real >= seconds for real, seconds in zip(slept, pauses, strict=True))


def test_what_blocks_is_done_in_a_thread_and_others_go_on(loop: Loop) -> None:
    gate = threading.Event()

    def blocks() -> None:
        loop.done.append(loop.sessions.in_thread(lambda: gate.wait(LIMIT_SECONDS)))

    loop.run(blocks, gate.set)

    assert loop.done == [True]


def test_what_a_thread_raises_the_session_raises(loop: Loop) -> None:
    def fails() -> None:
        with pytest.raises(ZeroDivisionError):
            loop.sessions.in_thread(lambda: 1 // 0)
        loop.done.append("raised")

    loop.run(fails)

    assert loop.done == ["raised"]


def test_a_full_pipe_is_waited_for(loop: Loop) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    written = 0
    while select.select([], [writing], [], 0)[1]:
        written += os.write(writing, b"x" * 4096)
    loop.sessions.begin(
        lambda: loop.done.append(waiting.wait_for_event(writing, select.POLLOUT, LIMIT_SECONDS))
    )
    assert loop.done == []

    os.read(reading, written)
    loop.run_until(lambda: bool(loop.done))

    assert loop.done == [True]
    os.close(reading)
    os.close(writing)


def test_a_session_that_is_given_up_waits_no_longer(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop.begin_waiting(pair[0]).give_up()
    loop.run_until(lambda: not loop.sessions)

    assert loop.done == [False]


def test_a_session_that_gives_up_another_goes_on_itself(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    session = loop.begin_waiting(pair[0])

    def gives_up() -> None:
        session.give_up()
        loop.done.append("goes on")

    loop.run(gives_up)

    assert loop.done == ["goes on", False]


def test_one_that_pauses_cannot_be_given_up(loop: Loop) -> None:
    sessions: list[Waiting] = []

    def pauses() -> None:
        sessions.append(waiting.current())
        begun = time.monotonic()
        loop.sessions.pause(0.02)
        loop.done.append(time.monotonic() - begun >= 0.02)

    loop.sessions.begin(pauses)
    sessions[0].give_up()
    loop.run_until(lambda: not loop.sessions)

    assert loop.done == [True]
