"""SIGHUP comes when it likes: in the middle of the reading that the former one has begun, too."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from noojee_agi import log
from noojee_agi.config import Config
from noojee_agi.errors import ConfigurationError
from noojee_agi.server import sighup

FORMER, NEWER = Config(server_name="former"), Config(server_name="newer")


@pytest.fixture(autouse=True)
def kept_handling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log, "to_file", lambda config: None)
    handler = signal.getsignal(signal.SIGHUP)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.signal(signal.SIGHUP, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def send() -> None:
    """Python runs the handler before this returns, even in a handler."""
    os.kill(os.getpid(), signal.SIGHUP)


def disturbed(load: Callable[[], Config], times: int) -> Callable[[], Config]:
    """Another SIGHUP comes when the file has been read, so many times."""
    left = [times]

    def read() -> Config:
        config = load()
        if left[0]:
            left[0] -= 1
            send()
        return config

    return read


@pytest.mark.parametrize("times", [0, 1, 2])
def test_what_was_read_last_is_used_last(times: int) -> None:
    files = iter([*[FORMER] * times, *[NEWER] * 3])
    used: list[Config] = []
    sighup.on_sighup(disturbed(lambda: next(files), times), used.append)

    send()

    assert used[-1] == NEWER
    assert len(used) <= times + 1


def test_one_that_comes_while_the_configuration_is_put_to_use_counts() -> None:
    file, used = [FORMER], list[Config]()

    def use(config: Config) -> None:
        used.append(config)
        if config == FORMER:
            file[0] = NEWER
            send()

    sighup.on_sighup(lambda: file[0], use)
    send()

    assert used == [FORMER, NEWER]


def test_a_wrong_configuration_is_none_and_the_next_one_counts() -> None:
    file, used = "", list[Config]()

    def load() -> Config:
        if not file:
            raise ConfigurationError("no such option")
        return NEWER

    sighup.on_sighup(load, used.append)

    send()
    assert used == []
    file = "right"
    send()
    assert used == [NEWER]
