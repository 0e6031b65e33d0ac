"""The two directions of a session: whole lines in, all of a text out, and never longer than the limits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from noojee_agi.asterisk import stream
from noojee_agi.asterisk.stream import Stream

LIMIT_SECONDS = 0.2


class Pipes:
    """A stream, and Asterisk's ends of it."""

    def __init__(self, read_already: bytes = b"") -> None:
        self._theirs, self.send_to = os.pipe()
        self.read_from, self._ours = os.pipe()
        self.stream = Stream(self._theirs, self._ours, read_already)

    def send(self, data: bytes) -> None:
        assert os.write(self.send_to, data) == len(data)

    def end(self) -> None:
        """Asterisk has closed its ends."""
        for descriptor in (self.send_to, self.read_from):
            if descriptor >= 0:
                os.close(descriptor)
        self.send_to = self.read_from = -1

    def close(self) -> None:
        self.end()
        os.close(self._theirs)
        os.close(self._ours)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    both = Pipes()
    yield both
    both.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply may take so long only."""
    monkeypatch.setattr(stream, "REPLY_SECONDS", LIMIT_SECONDS)


def test_lines_come_one_by_one_however_they_were_sent(pipes: Pipes) -> None:
    pipes.send(b"200 result=0\n200 result=1 (two")
    assert pipes.stream.readline() == "200 result=0\n"
    pipes.send(b" words)\n\nHANG")
    assert pipes.stream.readline() == "200 result=1 (two words)\n"
    assert pipes.stream.readline() == "\n"
    pipes.send(b"UP\n")
    assert pipes.stream.readline() == "HANGUP\n"


def test_what_somebody_else_has_read_comes_first() -> None:
    pipes = Pipes(b"agi_request: x\n\n200 resu")
    try:
        pipes.send(b"lt=0\n")

        assert [pipes.stream.readline() for _ in range(3)] == ["agi_request: x\n", "\n", "200 result=0\n"]
    finally:
        pipes.close()


def test_at_the_end_the_rest_comes_and_then_nothing(pipes: Pipes) -> None:
    pipes.send(b"200 result=0\n200 res")
    pipes.end()

    assert [pipes.stream.readline() for _ in range(4)] == ["200 result=0\n", "200 res", "", ""]


def test_bytes_that_are_no_utf8_are_replaced_and_a_character_may_come_in_two_parts(pipes: Pipes) -> None:
    pipes.send(b"J\xf6rg\nGr\xc3")
    assert pipes.stream.readline() == "J\ufffdrg\n"
    pipes.send(b"\xbc\xc3\x9fe\n")
    assert pipes.stream.readline() == "Grüße\n"


@pytest.mark.parametrize("separator", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_newline_alone_ends_a_line(pipes: Pipes, separator: str) -> None:
    pipes.send(f"one{separator}two\n".encode())

    assert pipes.stream.readline() == f"one{separator}two\n"


def test_a_line_without_end_is_cut_off_beyond_the_size(pipes: Pipes) -> None:
    pipes.send(b"x" * 5000)

    line = pipes.stream.readline(1000)

    assert set(line) == {"x"}
    assert 1000 < len(line) <= 5000


def test_an_answer_that_does_not_come_is_a_time_out(pipes: Pipes, soon: None) -> None:
    begun = time.monotonic()

    with pytest.raises(TimeoutError):
        pipes.stream.readline()

    assert LIMIT_SECONDS <= time.monotonic() - begun < 20 * LIMIT_SECONDS


def test_half_a_line_is_no_answer(pipes: Pipes, soon: None) -> None:
    pipes.send(b"200 resu")

    with pytest.raises(TimeoutError):
        pipes.stream.readline()


def answer_for_ever(pipes: Pipes) -> None:
    while True:
        pipes.send(b"200 result=0\n")
        pipes.stream.readline()


def test_a_session_has_a_limit_although_each_answer_comes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SESSION_SECONDS", LIMIT_SECONDS)
    pipes = Pipes()
    try:
        with pytest.raises(TimeoutError):
            answer_for_ever(pipes)
    finally:
        pipes.close()


def test_after_its_time_nothing_is_written_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SESSION_SECONDS", 0.0)
    pipes = Pipes()
    try:
        with pytest.raises(TimeoutError):
            pipes.stream.write("VERBOSE\n")
    finally:
        pipes.close()


def test_a_text_larger_than_a_pipe_is_written_in_parts(pipes: Pipes) -> None:
    text = "Grüße " * 50_000
    received = bytearray()

    def receive() -> None:
        while len(received) < len(text.encode()):
            received.extend(os.read(pipes.read_from, 4096))

    reader = threading.Thread(target=receive)
    reader.start()
    assert pipes.stream.write(text) == len(text)
    pipes.stream.flush()
    reader.join(20)

    assert received.decode() == text


def test_where_no_write_blocks_it_is_waited_for_only_without_room(pipes: Pipes) -> None:
    os.set_blocking(pipes._ours, False)
    waited = []

    def wait(descriptor: int, event: int, seconds: float) -> bool:
        waited.append(os.read(pipes.read_from, 1_000_000))
        return True

    quick = Stream(pipes._theirs, pipes._ours, wait=wait, blocks=False)
    quick.write("one")
    assert waited == []

    quick.write("x" * 200_000)

    assert b"".join(waited).startswith(b"onexxx")


def test_nobody_who_reads_is_a_time_out(pipes: Pipes, soon: None) -> None:
    os.set_blocking(pipes._ours, False)

    with pytest.raises(TimeoutError):
        pipes.stream.write("x" * 1_000_000)


def test_an_end_that_was_closed_is_an_os_error(pipes: Pipes) -> None:
    pipes.end()

    with pytest.raises(OSError, match="Broken pipe"):
        pipes.stream.write("VERBOSE\n")


def test_text_that_is_no_unicode_is_written_all_the_same(pipes: Pipes) -> None:
    pipes.stream.write("caf\udce9\n")

    assert os.read(pipes.read_from, 100) == b"caf?\n"


def test_more_bytes_than_it_may_read_are_an_os_error_until_it_is_extended() -> None:
    reading, said = os.pipe()
    try:
        limited = Stream(reading, said, most_bytes=10)
        os.write(said, b"1234567\n")
        assert limited.readline() == "1234567\n"
        os.write(said, b"1234567\n")
        with pytest.raises(OSError, match="too much"):
            limited.readline()

        limited.extend(20.0)
        os.write(said, b"89\n")
        assert limited.readline() == "89\n"
    finally:
        os.close(reading)
        os.close(said)
