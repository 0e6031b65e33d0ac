"""The callers count what a server does wrong, and the servers do their job: else no figure says anything."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.postgresql import free_port

from bench import call, load, servers
from bench.call import Call
from bench.callers import BROKEN, SILENT, Callers
from bench.places import Places

KEY = "f863246a-Key-973e"
ASK_KEY, TELL_200 = "GET VARIABLE apiKey", "SET VARIABLE RECORDING_STATUS 200"
RECORD = "EXEC MixMonitor /nowhere/a.wav"
CALLS = 20


def test_calls_that_are_recorded_are_no_failures(tmp_path: Path) -> None:
    with server(ASK_KEY, f'EXEC MixMonitor "{tmp_path}/a.wav"', TELL_200) as port:
        outcome = Callers(port, KEY).place(CALLS, 4)
    assert (len(outcome.milliseconds), outcome.failures) == (CALLS, {})


@pytest.mark.parametrize(
    ("commands", "failure"),
    [
        ([RECORD, TELL_200], call.KEY_NOT_ASKED),
        ([ASK_KEY, TELL_200], call.NOT_RECORDED),
        ([ASK_KEY, RECORD], call.NOT_TOLD),
        ([ASK_KEY, RECORD, "SET VARIABLE RECORDING_STATUS 401"], call.NOT_TOLD),
        ([ASK_KEY, "EXEC MixMonitor"], call.NOT_RECORDED),
        ([], call.KEY_NOT_ASKED),
    ],
)
def test_a_server_that_leaves_something_out_has_failed(commands: list[str], failure: str) -> None:
    with server(*commands) as port:
        outcome = Callers(port, KEY).place(CALLS, 4)
    assert (outcome.milliseconds, outcome.failures) == ([], {failure: CALLS})


def test_a_port_without_a_server_fails_every_call() -> None:
    outcome = Callers(free_port(), KEY).place(CALLS, 4)
    assert outcome.failures == {BROKEN: CALLS}


def test_a_silent_server_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        outcome = Callers(listener.getsockname()[1], KEY, silent_seconds=0.2).place(CALLS, 4)
    assert outcome.failures == {SILENT: CALLS}


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("GET VARIABLE apiKey", f"200 result=1 ({KEY})"),
        ('GET VARIABLE "apiKey"', f"200 result=1 ({KEY})"),
        ("GET VARIABLE MEMBERINTERFACE", "200 result=0"),
        ('GET FULL VARIABLE "${CHANNEL(linkedid)}+${NONE}+${apiKey}"', f"200 result=1 (7.1++{KEY})"),
        ('SET VARIABLE "A" "a \\"b\\""', "200 result=1"),
        ('EXEC "MSet" "A=1,B=2"', "200 result=0"),
        ('VERBOSE "text" 1', "200 result=1"),
        ('EXEC "StopMixMonitor" "0x1"', "200 result=0"),
        ('EXEC "NoSuch" ""', "200 result=-2"),
        ("GET", "510 Invalid or unknown command"),
    ],
)
def test_the_channel_replies_as_asterisk(command: str, reply: str) -> None:
    assert Call(1, 7, KEY.encode()).reply(command.encode()) == f"{reply}\n".encode()


def test_the_channel_knows_what_was_set_and_what_records(tmp_path: Path) -> None:
    channel = Call(1, 7, KEY.encode())
    for command in (
        'SET VARIABLE "A" "a \\"b\\""',
        'EXEC "MSet" "B=1,C=2"',
        f'EXEC "MixMonitor" "{tmp_path}/a.wav,bi(ID),/bin/true 1"',
    ):
        channel.reply(command.encode())
    known = channel.reply(b'GET FULL VARIABLE "${A}+${B}+${C}+${ID}+${MIXMONITOR_FILENAME}"').decode()
    assert known == f'200 result=1 (a "b"+1+2+0x7f3500000001+{tmp_path}/a.wav)\n'
    assert (tmp_path / "a.wav").stat().st_size == 44


@pytest.mark.parametrize("name", servers.PEERS)
def test_a_peer_does_its_job_in_every_call(name: str, tmp_path: Path) -> None:
    with servers.peer(name, Places(tmp_path, tmp_path)) as peer:
        outcome = Callers(peer.port, peer.key).place(50, 8)
        assert (outcome.failures, peer.stored()) == ({}, 50)
    assert len([*tmp_path.rglob("*.wav")]) == 50


def test_our_server_does_its_job_in_every_call(tmp_path: Path) -> None:
    with servers.ours(Places(tmp_path, tmp_path)) as ours:
        callers = Callers(ours.port, ours.key)
        turns = [load.take_turn(ours, callers, 25, 8) for _ in range(2)]
        assert ([turn.failures for turn in turns], ours.stored()) == ([{}, {}], 50)
    assert all(turn.cpu > 0 for turn in turns)


@pytest.mark.parametrize("name", servers.PEERS)
def test_a_peer_records_nothing_with_a_wrong_key(name: str, tmp_path: Path) -> None:
    with servers.peer(name, Places(tmp_path, tmp_path)) as peer:
        outcome = Callers(peer.port, "wrong").place(5, 1)
        assert (outcome.failures, peer.stored()) == ({call.NOT_RECORDED: 5}, 0)


@contextlib.contextmanager
def server(*commands: str) -> Iterator[int]:
    """The port of a server that sends these commands, waits for each reply, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, commands))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, commands: tuple[str, ...]) -> None:
    with contextlib.suppress(OSError):  # it was shut down
        while True:
            connection = listener.accept()[0]
            with connection, connection.makefile("rwb") as stream:
                while stream.readline().strip():
                    pass
                for command in commands:
                    stream.write(f"{command}\n".encode())
                    stream.flush()
                    stream.readline()
