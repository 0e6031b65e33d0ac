"""The manager interface: what is said, what is believed, and how long it is waited for."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noojee_agi.asterisk import live, manager, other_calls, rights, target, variables
from noojee_agi.asterisk.live_channel import UP, LiveChannel
from noojee_agi.asterisk.manager import Manager
from noojee_agi.config import Config
from noojee_agi.errors import ManagerUnavailable, NoojeeError, NoSuchCall
from unit.fake_manager import SECRET, USER, FakeChannel, FakeManager

BOTH = "PJSIP/410-00000001", "PJSIP/411-00000002"
PATIENCE_SECONDS = manager.PATIENCE_SECONDS  # before a test has changed it
WITHIN_SECONDS = 3.0  # the promise


@pytest.fixture
def asterisk() -> Iterator[FakeManager]:
    fields = {"BridgeID": "b1", "CallerIDNum": "410", "ConnectedLineNum": "411", "Seconds": "7"}
    with FakeManager(
        FakeChannel(BOTH[0], "1.1", {**fields, "Exten": "800", "DNID": "4930800", "Application": "Queue"}),
        FakeChannel(BOTH[1], "1.2", {"Linkedid": "1.1", "CallerIDNum": "<unknown>", "ChannelState": "5"}),
    ) as running:
        yield running
    assert running.complaints == []


@pytest.fixture
def client(asterisk: FakeManager) -> Iterator[Manager]:
    client = Manager(asterisk.config)
    yield client
    client.close()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "PATIENCE_SECONDS", 0.2)


# ---- What is said


def test_channels_are_listed_with_what_a_start_must_know(asterisk: FakeManager, client: Manager) -> None:
    asterisk.channels[0].variables[variables.MEMBERINTERFACE] = "PJSIP/410"

    one, other = other_calls.channels(client)

    assert one == LiveChannel(
        BOTH[0], "1.1", "1.1", 6, 7, "b1", "Queue", "410", "411", "800", "4930800", False,
        {**dict.fromkeys(target.READ, ""), variables.LINKEDID: "1.1", variables.MEMBERINTERFACE: "PJSIP/410"},
    )  # fmt: skip
    assert (other.linkedid, other.state, other.caller, other.bridge) == ("1.1", 5, "", "")


def test_who_is_parked_is_known(asterisk: FakeManager, client: Manager) -> None:
    """Whom somebody else has parked: the application is still the one of the call."""
    asterisk.parked = {BOTH[1]: {}}
    assert [each.is_waiting for each in other_calls.channels(client)] == [False, True]


@pytest.mark.parametrize(
    "number",
    [
        "4\r\nParkeeUniqueid: 1.1",
        f"4\r\nParkeeChannel: {BOTH[0]}",
        f"4\r\n\r\nEvent: ParkedCall\r\nParkeeChannel: {BOTH[0]}\r\nParkeeUniqueid: 1.1",
    ],
    ids=["uniqueid", "channel", "an event"],
)
def test_a_parked_caller_makes_nobody_else_look_parked(
    asterisk: FakeManager, client: Manager, number: str
) -> None:
    """His number stands before ParkeeUniqueid, and chan_pjsip decodes %0d%0a in it."""
    asterisk.parked = {BOTH[1]: {"ParkeeCallerIDNum": number}}
    assert [each.is_waiting for each in other_calls.channels(client)] == [False, True]


@pytest.mark.parametrize("doubtful", [(1,), (0, 1)])
def test_who_writes_into_his_own_event_is_still_in_his_conversation(
    asterisk: FakeManager, client: Manager, doubtful: tuple[int, ...]
) -> None:
    """Asked singly, Asterisk does not say in which bridge he is."""
    for number, channel in enumerate(asterisk.channels):
        channel.fields = {**channel.fields, "ChannelState": "6", "BridgeID": "b1", "Linkedid": "1.1"}
        channel.variables[variables.BRIDGEPEER] = BOTH[1 - number]
        if number in doubtful:
            channel.fields = {**channel.fields, "CallerIDNum": "4\r\nBridgeID: evil"}

    one, other = sorted(other_calls.channels(client), key=lambda channel: channel.name)

    assert one.bridge == other.bridge != "evil"
    assert [each.name for each in live.Switchboard([one, other]).conversation(one)] == list(BOTH)


def test_an_asterisk_without_parking_has_nobody_parked(asterisk: FakeManager, client: Manager) -> None:
    asterisk.has_parking = False
    assert [each.is_waiting for each in other_calls.channels(client)] == [False, False]


def test_a_mixmonitor_that_has_ended_is_no_failure_to_stop(asterisk: FakeManager, client: Manager) -> None:
    client.act("StopMixMonitor", {"Channel": BOTH[0], "MixMonitorID": "0x1"})
    assert client.get(BOTH[0], "CHANNEL(linkedid)") == "1.1"


def test_the_secret_does_not_go_over_the_wire(asterisk: FakeManager, client: Manager) -> None:
    other_calls.channels(client)

    assert SECRET not in str(asterisk.actions)
    assert [action["Action"] for action in asterisk.actions] == [
        "Challenge",
        "Login",
        "ParkedCalls",
        "Status",
    ]
    assert asterisk.actions[1]["Events"] == "off"


def test_one_connection_serves_all_actions(asterisk: FakeManager, client: Manager) -> None:
    client.set(BOTH[0], "A", "b")
    assert client.get(BOTH[0], "A") == "b"
    assert asterisk.connections == 1


@pytest.mark.parametrize(
    "value", ["x\r\nAction: Originate", "x\nVariable: y", "x\r\n\r\nAction: Command", "x\x00y"]
)
def test_no_value_carries_a_line_end(asterisk: FakeManager, client: Manager, value: str) -> None:
    client.set(BOTH[0], "A", value)

    (said,) = asterisk.names("Setvar")
    assert set(said) == {"Channel", "Variable", "Value"}
    assert said["Value"].replace(" ", "") == value.translate({13: None, 10: None, 0: None}).replace(" ", "")
    assert not {"Originate", "Command"} & {action["Action"] for action in asterisk.actions}


def test_a_line_that_asterisk_would_discard_is_not_said(asterisk: FakeManager, client: Manager) -> None:
    with pytest.raises(NoojeeError, match="1000 bytes"):
        client.set(BOTH[0], "A", "ü" * 600)
    assert asterisk.names("Setvar") == []


def test_a_channel_that_is_not_there_is_no_such_call_and_the_connection_goes_on(client: Manager) -> None:
    with pytest.raises(NoSuchCall):
        client.get("PJSIP/499-00000009", "A")
    assert len(other_calls.channels(client)) == 2


# ---- What is believed


def test_events_and_answers_of_others_are_passed_over(asterisk: FakeManager, client: Manager) -> None:
    asterisk.raw_answers["Getvar"] = (
        b"Event: FullyBooted\r\nStatus: Fully Booted\r\n\r\n"
        b"Response: Success\r\nActionID: somebody else's\r\nValue: wrong\r\n\r\n"
        b"Event: Newchannel\r\nChanVariable: FOO=bar\r\nChanVariable: BAR=\r\n\r\n"
        b"Response: Success\r\nActionID: ACTIONID\r\nVariable: A\r\nValue: right\r\n\r\n"
    )
    assert client.get(BOTH[0], "A") == "right"


WRITTEN = [
    pytest.param("x\r\nUniqueid: evil\r\nLinkedid: 1.2", id="other ids"),
    pytest.param("x\r\nActionID: guessed", id="an ActionID"),
    pytest.param("x\r\nBridgeID: b9\r\nVariable: NOOJEE_MIXMONITOR_ID=0x666", id="a bridge"),
    pytest.param("x\r\n\r\nEvent: Status\r\nChannel: PJSIP/666-0", id="an event"),
    pytest.param("x\r\n\r\nEvent: Status\r\nChannel: PJSIP/666-0\r\n\r\n", id="a whole event"),
    pytest.param("x\r\n\r\nEvent: Status\r\n\r\nEvent: Status\r\nChannel: PJSIP/667-0", id="two events"),
    pytest.param("x\r\n\r\nEvent: StatusComplete\r\nActionID: guessed\r\n\r\n", id="the end"),
]


@pytest.mark.parametrize("text", WRITTEN)
@pytest.mark.parametrize("place", ["CallerIDNum", "Exten", "DNID", "ConnectedLineName"])
@pytest.mark.parametrize("number", [0, 1], ids=["the first", "the last"])
def test_who_writes_lines_into_his_channels_event_changes_nothing(
    asterisk: FakeManager, client: Manager, text: str, place: str, number: int
) -> None:
    """A SIP caller can: his number is decoded by chan_pjsip, and Asterisk prints it as it is."""
    told = {each.name: (each.uniqueid, each.linkedid, each.state) for each in other_calls.channels(client)}
    his = asterisk.channels[number]
    asterisk.channels[number] = FakeChannel(
        his.name, his.uniqueid, {**his.fields, place: text}, his.variables
    )

    found = other_calls.channels(client)

    assert {each.name: (each.uniqueid, each.linkedid, each.state == UP) for each in found} == {
        name: (uniqueid, linkedid, state == UP) for name, (uniqueid, linkedid, state) in told.items()
    }
    assert [each.mixmonitor_id for each in found] == ["", ""]


def test_one_who_hangs_up_while_he_is_asked_singly_is_gone(asterisk: FakeManager, client: Manager) -> None:
    asterisk.channels[0] = FakeChannel(BOTH[0], "1.1", {"CallerIDNum": "4\r\nUniqueid: evil"})

    def hang_up(action: dict[str, str]) -> bool:
        if action["Action"] == "Getvar":
            asterisk.channels = asterisk.channels[-1:]
        return True

    asterisk.before = hang_up
    assert [each.name for each in other_calls.channels(client)] == [BOTH[1]]


def test_a_value_with_line_ends_is_cut_off_and_the_next_answer_is_right(
    asterisk: FakeManager, client: Manager
) -> None:
    asterisk.channels[0].variables["A"] = "x\r\n\r\nResponse: Success\r\nValue: evil"
    asterisk.channels[0].variables["B"] = "right"
    assert (client.get(BOTH[0], "A"), client.get(BOTH[0], "B")) == ("x", "right")


def test_text_that_is_no_utf8_breaks_nothing(asterisk: FakeManager, client: Manager) -> None:
    asterisk.raw_answers["Getvar"] = b"Response: Success\r\nActionID: ACTIONID\r\nValue: M\xfcller\r\n\r\n"
    assert client.get(BOTH[0], "A") == "M\ufffdller"


# ---- What goes wrong


def test_a_wrong_secret_is_said_and_never_shown(asterisk: FakeManager) -> None:
    client = Manager(asterisk.config._replace(manager_secret="not-the-secret"))
    with pytest.raises(ManagerUnavailable, match=f"refuses user {USER}") as caught:
        other_calls.channels(client)
    assert "not-the-secret" not in str(caught.value)


@pytest.mark.parametrize("action", ["Status", "MixMonitor", "StopMixMonitor", "Getvar", "Setvar"])
def test_missing_rights_are_said_with_the_line_that_gives_them(asterisk: FakeManager, action: str) -> None:
    asterisk.refused_actions.add(action)
    client = Manager(asterisk.config)

    def use() -> None:
        rights.require_all(client)
        other_calls.channels(client)

    with pytest.raises(ManagerUnavailable, match=rf"may not {action}: give it write = system,call") as caught:
        use()
    assert caught.value.status == 503


def test_where_nobody_listens_is_said(asterisk: FakeManager) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = Manager(asterisk.config._replace(manager_port=taken.getsockname()[1]))
        with pytest.raises(ManagerUnavailable, match=r"127\.0\.0\.1:\d+: Connection refused"):
            other_calls.channels(client)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("silent", ["Challenge", "Login", "Status"])
def test_an_answer_that_never_comes_is_not_waited_for(asterisk: FakeManager, silent: str) -> None:
    asterisk.before = lambda action: action["Action"] != silent
    with pytest.raises(ManagerUnavailable, match="no answer in time"):
        other_calls.channels(Manager(asterisk.config))


@pytest.mark.usefixtures("_impatient")
def test_a_list_that_never_ends_is_not_waited_for(asterisk: FakeManager) -> None:
    asterisk.raw_answers["Status"] = b"Response: Success\r\nActionID: ACTIONID\r\n\r\n"
    with pytest.raises(ManagerUnavailable, match="no answer in time"):
        other_calls.channels(Manager(asterisk.config))


def test_all_waiting_together_takes_less_than_promised() -> None:
    assert PATIENCE_SECONDS < WITHIN_SECONDS


@pytest.mark.usefixtures("_impatient")
def test_answers_that_are_all_late_are_not_each_waited_for(asterisk: FakeManager) -> None:
    """One byte now and then is no answer either."""

    def drip(peer: socket.socket) -> None:
        peer.settimeout(0.01)
        while True:
            peer.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                peer.recv(1)

    with _server(drip) as port, pytest.raises(ManagerUnavailable, match="no answer in time"):
        other_calls.channels(Manager(_config(port)))


def test_after_silence_nothing_more_is_tried(
    asterisk: FakeManager, client: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get(BOTH[0], "A")
    asterisk.before = lambda action: False
    monkeypatch.setattr(manager, "PATIENCE_SECONDS", 0.2)
    client.renew_patience()
    for _ in range(2):
        with pytest.raises(ManagerUnavailable):
            other_calls.channels(client)
    assert [action["Action"] for action in asterisk.actions[3:]] == ["ParkedCalls"]


def test_a_port_of_something_else_is_told_apart() -> None:
    with _server(lambda peer: peer.sendall(b"x" * 3_000_000)) as port:
        client = Manager(_config(port))
        with pytest.raises(ManagerUnavailable, match="what no Asterisk says"):
            other_calls.channels(client)


def test_a_connection_that_breaks_is_made_again_once(asterisk: FakeManager, client: Manager) -> None:
    other_calls.channels(client)
    asterisk.drop_connections()

    assert len(other_calls.channels(client)) == 2
    assert asterisk.connections == 2


def test_one_that_breaks_again_and_again_is_given_up(asterisk: FakeManager, client: Manager) -> None:
    def drop(action: dict[str, str]) -> bool:
        if action["Action"] == "Status":
            asterisk.drop_connections()
        return action["Action"] != "Status"

    asterisk.before = drop
    with pytest.raises(ManagerUnavailable):
        other_calls.channels(client)
    assert asterisk.connections == 2


def test_what_must_not_be_done_twice_is_not_said_twice(
    asterisk: FakeManager, client: Manager, tmp_path: Path
) -> None:
    """A start whose answer was lost may have been carried out."""
    other_calls.channels(client)

    def drop(action: dict[str, str]) -> bool:
        if action["Action"] == "MixMonitor":
            asterisk.drop_connections()
        return action["Action"] != "MixMonitor"

    asterisk.before = drop
    fields = {"Channel": BOTH[0], "File": str(tmp_path / "a.wav"), "Options": "", "Command": ""}
    with pytest.raises(ManagerUnavailable):
        client.act("MixMonitor", fields, is_repeatable=False)
    assert len(asterisk.names("MixMonitor")) == 1


class _Asker:
    """A channel that asks for another."""

    host = ""

    def __init__(self, uniqueid: str) -> None:
        self.uniqueid = uniqueid

    def sees_file(self, path: str) -> bool:
        return Path(path).exists()


def test_a_manager_interface_of_another_asterisk_is_told_apart(client: Manager) -> None:
    """There, 410 is somebody else."""
    with pytest.raises(ManagerUnavailable, match="another Asterisk"):
        other_calls.find(client, "410", _Asker("9.9"))  # type: ignore[arg-type]


def test_a_call_is_described_as_its_first_channel_is(client: Manager) -> None:
    target = other_calls.find(client, "411", _Asker("1.1"))  # type: ignore[arg-type]
    channel = target.channel
    assert (channel.name, channel.uniqueid, target.extension) == (BOTH[1], "1.2", "411")
    assert (channel.caller, channel.extension, channel.did) == ("410", "800", "4930800")


def test_the_command_line_without_a_user_is_503(asterisk: FakeManager) -> None:
    client = Manager(asterisk.config._replace(manager_username=""))
    with pytest.raises(ManagerUnavailable, match=r"\[manager\] username"):
        other_calls.find(client, "410", target.CommandLine("key"))


def test_without_a_user_nobody_is_asked(asterisk: FakeManager) -> None:
    with pytest.raises(NoSuchCall, match=r"\[manager\] username"):
        other_calls.find(Manager(asterisk.config._replace(manager_username="")), "410", _Asker("1.1"))  # type: ignore[arg-type]
    assert asterisk.connections == 0


def _config(port: int) -> Config:
    return Config(manager_port=port, manager_username=USER, manager_secret=SECRET)


class _server:
    """The port of something that is no Asterisk."""

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._behave = behave
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with (
            contextlib.suppress(OSError),
            self._listener.accept()[0] as peer,
        ):  # the client may go at any time
            self._behave(peer)
