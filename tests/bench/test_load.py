"""The callers count what a server does wrong, and the servers do their job: else no figure says anything."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from lab.postgresql import free_port
from lab.unavailable import LabUnavailable

from bench import call, load, load_client, servers
from bench.callers import BROKEN, SILENT, Callers
from bench.load_client import Client, CompiledCallers
from bench.places import Places

KEY = "f863246a-Key-973e"
ASK_KEY, TELL_200 = "GET VARIABLE apiKey", "SET VARIABLE RECORDING_STATUS 200"
RECORD = "EXEC MixMonitor /nowhere/a.wav"
CALLS = 20


class Calling(Protocol):
    """Makes who calls a port with a key."""

    def __call__(self, port: int, key: str, silent_seconds: float = 15.0) -> Client: ...


@pytest.fixture(params=["Python", "C"])
def calling(request: pytest.FixtureRequest, tmp_path: Path) -> Calling:
    """Both of those who play Asterisk: they do the same."""
    if request.param == "Python":
        return Callers
    program = load_client.build("load_client")
    if program is None:
        raise LabUnavailable("there is no C compiler: install gcc")
    return functools.partial(CompiledCallers, program)


def test_calls_that_are_recorded_are_no_failures(calling: Calling, tmp_path: Path) -> None:
    with server(ASK_KEY, f'EXEC MixMonitor "{tmp_path}/a.wav"', TELL_200) as port:
        outcome = calling(port, KEY).place(CALLS, 4)
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
def test_a_server_that_leaves_something_out_has_failed(
    calling: Calling, commands: list[str], failure: str
) -> None:
    with server(*commands) as port:
        outcome = calling(port, KEY).place(CALLS, 4)
    assert (outcome.milliseconds, outcome.failures) == ([], {failure: CALLS})


def test_a_port_without_a_server_fails_every_call(calling: Calling) -> None:
    outcome = calling(free_port(), KEY).place(CALLS, 4)
    assert outcome.failures == {BROKEN: CALLS}


def test_a_silent_server_is_not_waited_for_for_ever(calling: Calling) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        outcome = calling(listener.getsockname()[1], KEY, silent_seconds=0.2).place(CALLS, 4)
    assert outcome.failures == {SILENT: CALLS}


def test_the_channel_replies_as_asterisk(calling: Calling, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    expected = {
        "GET VARIABLE apiKey": f"200 result=1 ({KEY})",
        'GET VARIABLE "apiKey"': f"200 result=1 ({KEY})",
        "GET VARIABLE MEMBERINTERFACE": "200 result=0",
        'GET FULL VARIABLE "${NONE}+${apiKey}+!"': f"200 result=1 (+{KEY}+!)",
        'SET VARIABLE "A" "a \\"b\\""': "200 result=1",
        'EXEC "Set" "B=1=2"': "200 result=0",
        'EXEC "MSet" "C=1,D=2"': "200 result=0",
        f'EXEC "MixMonitor" "{file},bi(ID),/bin/true 1"': "200 result=0",
        'GET FULL VARIABLE "${A}+${B}+${C}+${D}+${ID}+${MIXMONITOR_FILENAME}"': (
            f'200 result=1 (a "b"+1=2+1+2+0x7f3500000001+{file})'
        ),
        'VERBOSE "text" 1': "200 result=1",
        'EXEC "StopMixMonitor" "0x1"': "200 result=0",
        'EXEC Log "WARNING,text"': "200 result=0",
        'EXEC "NoSuch" ""': "200 result=-2",
        "GET": "510 Invalid or unknown command",
        "": "510 Invalid or unknown command",
    }
    replies: list[str] = []
    with server(*expected, replies=replies) as port:
        calling(port, KEY).place(1, 1)
    assert replies == [*expected.values()]
    assert file.stat().st_size == 44


def test_no_two_calls_are_the_same(calling: Calling) -> None:
    replies: list[str] = []
    with server("GET VARIABLE CHANNEL(linkedid)", replies=replies) as port:
        client = calling(port, KEY)
        client.place(CALLS, 4)
        client.place(CALLS, 4)
    assert len({*replies}) == 2 * CALLS


@pytest.mark.parametrize("name", servers.PEERS)
def test_a_peer_does_its_job_in_every_call(calling: Calling, name: str, tmp_path: Path) -> None:
    with servers.peer(name, Places(tmp_path, tmp_path)) as peer:
        outcome = calling(peer.port, peer.key).place(50, 8)
        assert (outcome.failures, peer.stored()) == ({}, 50)
    assert len([*tmp_path.rglob("*.wav")]) == 50


def test_our_server_does_its_job_in_every_call(calling: Calling, tmp_path: Path) -> None:
    with servers.ours(Places(tmp_path, tmp_path)) as ours:
        client = calling(ours.port, ours.key)
        turns = [load.take_turn(ours, client, 25, 8) for _ in range(2)]
        assert ([turn.failures for turn in turns], ours.stored()) == ([{}, {}], 50)
    assert all(turn.cpu > 0 for turn in turns)


def test_the_instant_server_has_every_call_recorded(calling: Calling, tmp_path: Path) -> None:
    program = load_client.build("instant_server")
    if program is None:
        raise LabUnavailable("there is no C compiler: install gcc")
    with servers.instant(Places(tmp_path, tmp_path), program) as instant:
        assert calling(instant.port, instant.key).place(50, 8).failures == {}
    assert len([*tmp_path.rglob("*.wav")]) == 50


@pytest.mark.parametrize("name", servers.PEERS)
def test_a_peer_records_nothing_with_a_wrong_key(name: str, tmp_path: Path) -> None:
    with servers.peer(name, Places(tmp_path, tmp_path)) as peer:
        outcome = Callers(peer.port, "wrong").place(5, 1)
        assert (outcome.failures, peer.stored()) == ({call.NOT_RECORDED: 5}, 0)


@contextlib.contextmanager
def server(*commands: str, replies: list[str] | None = None) -> Iterator[int]:
    """The port of a server that sends these commands, waits for each reply, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(
            target=_serve, args=(listener, commands, [] if replies is None else replies)
        )
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, commands: tuple[str, ...], replies: list[str]) -> None:
    with contextlib.suppress(OSError):  # it was shut down
        while True:
            connection = listener.accept()[0]
            with connection, connection.makefile("rwb") as stream:
                while stream.readline().strip():
                    pass
                for command in commands:
                    stream.write(f"{command}\n".encode())
                    stream.flush()
                    replies.append(stream.readline().decode().rstrip("\n"))
