"""The lab's telephones are real ones: their calls are bridged, each hears the other, a recording has both."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab import asterisk, phones, processes, tones
from lab.asterisk import Installation, PrivateAsterisk
from lab.phones import Lines, Phone
from lab.waiting import wait_until

pytestmark = pytest.mark.asterisk

DIALPLAN = """
[test]
exten => _4XX,1,Dial(PJSIP/${EXTEN})
"""
TONES = {"410": 425, "411": 1004, "412": 700}


@pytest.fixture(params=[22, 16], ids=["asterisk22", "asterisk16"])
def installation(request: pytest.FixtureRequest) -> Installation:
    return asterisk.find(request.param)


class Exchange:
    """One Asterisk and the telephones that a test has plugged in."""

    def __init__(self, installation: Installation, folder: Path, stack: ExitStack) -> None:
        self.lines = Lines(tuple(TONES))
        self._stack = stack
        self.folder = folder
        self.asterisk = stack.enter_context(
            PrivateAsterisk(
                installation,
                folder / "asterisk",
                DIALPLAN,
                {"pjsip.conf": self.lines.configuration()},
                modules=phones.MODULES,
            )
        )

    def phone(self, extension: str, answers: bool = True) -> Phone:
        phone = Phone(self.lines, extension, TONES[extension], self.folder / extension, answers)
        return self._stack.enter_context(phone)

    def channels(self) -> dict[str, str]:
        """The state of each channel by its name."""
        lines = self.asterisk.rx("core show channels concise").splitlines()
        return {line.split("!")[0]: line.split("!")[4] for line in lines if "!" in line}


@pytest.fixture
def exchange(installation: Installation, tmp_path: Path) -> Iterator[Exchange]:
    with ExitStack() as stack:
        yield Exchange(installation, tmp_path, stack)


def test_two_telephones_talk_and_a_recording_has_both(exchange: Exchange, tmp_path: Path) -> None:
    called, caller = exchange.phone("410"), exchange.phone("411")

    caller.dial("410")
    caller.wait_up()
    called.wait_up()
    assert exchange.channels() == {"PJSIP/411-00000000": "Up", "PJSIP/410-00000001": "Up"}
    recording = tmp_path / "recording.wav"
    exchange.asterisk.rx(f"mixmonitor start PJSIP/410-00000001 {recording}")
    wait_until(seconds_are_written(recording, 2.0))
    called.hang_up()
    caller.wait_idle()
    called.wait_idle()
    exchange.asterisk.wait_quiet()

    assert tones.duration(recording) > 1.9
    assert min(tones.share(recording, TONES["410"]), tones.share(recording, TONES["411"])) > 0.3
    assert_heard(caller, "410")
    assert_heard(called, "411")


def test_one_telephone_has_two_calls_at_once(exchange: Exchange) -> None:
    called, first, second = exchange.phone("410"), exchange.phone("411"), exchange.phone("412")

    first.dial("410")
    called.wait_up()
    second.dial("410")
    called.wait_up(2)
    assert [name[:9] for name in exchange.channels()].count("PJSIP/410") == 2
    called.hang_up("411")
    first.wait_idle()

    assert [call.peer for call in called.calls()] == ["412"]
    left = {"PJSIP/412-00000002", "PJSIP/410-00000003"}
    # Asterisk has done with a call after it has told the telephone.
    wait_until(lambda: set(exchange.channels()) == left, 20, "the other call to be over", exchange.channels)


def test_a_telephone_only_rings_until_it_is_answered(exchange: Exchange) -> None:
    called, caller = exchange.phone("410", answers=False), exchange.phone("411")

    caller.dial("410")
    called.wait_ringing()
    caller.wait_ringing()
    assert exchange.channels() == {"PJSIP/411-00000000": "Ring", "PJSIP/410-00000001": "Ringing"}
    called.answer()
    caller.wait_up()
    assert set(exchange.channels().values()) == {"Up"}
    caller.hang_up()
    called.wait_idle()


def test_a_call_is_given_up_while_it_rings(exchange: Exchange) -> None:
    called, caller = exchange.phone("410", answers=False), exchange.phone("411")

    caller.dial("410")
    called.wait_ringing()
    caller.hang_up()
    called.wait_idle()
    exchange.asterisk.wait_quiet()


def test_a_telephone_is_gone_after_a_failure_in_its_call(exchange: Exchange) -> None:
    exchange.phone("410")
    caller = Phone(exchange.lines, "411", TONES["411"], exchange.folder / "411")
    sessions = []

    def fail_in_the_call() -> None:
        with caller:
            sessions.append(caller.pid)
            caller.dial("410")
            caller.wait_up()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_call()

    assert processes.members(sessions[0]) == []
    exchange.asterisk.wait_quiet()


def seconds_are_written(recording: Path, seconds: float) -> Callable[[], bool]:
    """Whether the file holds so much audio; its header tells its length only at the end."""
    return lambda: recording.exists() and recording.stat().st_size >= seconds * 16000


def assert_heard(phone: Phone, other: str) -> None:
    (heard,) = phone.heard()
    assert tones.share(heard, TONES[other]) > 0.9
    assert tones.share(heard, TONES[phone.extension]) < 0.05
