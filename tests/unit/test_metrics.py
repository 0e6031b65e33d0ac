"""/metrics as Prometheus reads it, and what is in it when something does not answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from noojee_agi.asterisk import manager as manager_interface
from noojee_agi.config import Config
from noojee_agi.errors import StoreUnavailable
from noojee_agi.server.counters import Counters
from noojee_agi.web import gauges, metrics
from noojee_agi.web.gauges import Gauges, Look
from noojee_agi.web.readings import Disk, Readings
from unit.fake_manager import FakeManager

_PATIENCE_SECONDS = 30.0  # by which a test waits that is not about it
DISK = Disk(free_bytes=2_000_000, bytes=5_000_000, waiting=3, oldest_seconds=7.5, rejected=1)


@pytest.fixture(autouse=True)
def _waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "_WAIT_SECONDS", _PATIENCE_SECONDS)
    monkeypatch.setattr(manager_interface, "PATIENCE_SECONDS", _PATIENCE_SECONDS)


def counted() -> Counters:
    numbers = Counters(2)
    numbers.add_session(0, "start_record", 200, 0.002)
    numbers.add_session(1, "start_record", 200, 0.3)
    numbers.add_session(1, "stop_record", 401, 99.0)
    numbers.add_drain(0.02)
    return numbers


def samples(readings: Readings) -> dict[str, float]:
    """Each as it stands in the text, by its name and labels."""
    text, kind = metrics.exposition(readings)
    assert kind.startswith("text/plain; version=")
    families = list(text_string_to_metric_families(text.decode()))
    assert all(family.documentation and family.name.startswith("noojee_agi_") for family in families)
    return {
        " ".join([sample.name.removeprefix("noojee_agi_"), *_values(sample.labels)]): sample.value
        for family in families
        for sample in family.samples
    }


def _values(labels: Mapping[str, str]) -> list[str]:
    return [labels[name] for name in ("program", "status", "le") if name in labels]


def test_all_that_is_known_is_told() -> None:
    told = samples(Readings(counted().counted(), DISK, 4, True, 12.5))

    assert told["sessions_total start_record 200"] == 2
    assert told["sessions_total stop_record 401"] == 1
    assert told["sessions_total other 500"] == 0
    assert told["session_hold_seconds_sum start_record"] == 0.302
    assert told["session_hold_seconds_count start_record"] == 2
    assert told["session_hold_seconds_bucket start_record 0.005"] == 1
    assert told["session_hold_seconds_bucket start_record 0.25"] == 1
    assert told["session_hold_seconds_bucket start_record 0.5"] == 2
    assert told["session_hold_seconds_bucket stop_record 10.0"] == 0
    assert told["session_hold_seconds_bucket stop_record +Inf"] == 1
    assert (told["drain_seconds_sum"], told["drain_seconds_bucket 0.025"]) == (0.02, 1)
    assert {name: told[name] for name in told if " " not in name and not name.startswith("drain")} == {
        "sessions_running": 0,
        "last_drain_timestamp_seconds": 0,
        "recordings_disk_up": 1,
        "recordings_disk_free_bytes": 2_000_000,
        "recordings_disk_size_bytes": 5_000_000,
        "spool_waiting_events": 3,
        "spool_oldest_event_age_seconds": 7.5,
        "spool_rejected_events": 1,
        "database_up": 1,
        "open_legs": 4,
        "manager_up": 1,
        "certificate_days_left": 12.5,
    }


def test_what_does_not_answer_is_left_out_and_hides_nothing() -> None:
    told = samples(Readings(counted().counted(), None, None, False, None))

    assert (told["recordings_disk_up"], told["database_up"], told["manager_up"]) == (0, 0, 0)
    assert told["sessions_total start_record 200"] == 2
    missing = {"recordings_disk_free_bytes", "spool_waiting_events", "open_legs", "certificate_days_left"}
    assert missing & set(told) == set()


def test_without_a_manager_nothing_is_said_of_one() -> None:
    assert "manager_up" not in samples(Readings(counted().counted()))


def test_no_database_is_one_that_has_no_open_leg() -> None:
    told = samples(Readings(counted().counted(), open_legs=0))

    assert (told["database_up"], told["open_legs"]) == (1, 0)


# --- what must be looked for ---


def test_who_asks_while_it_hangs_gets_an_answer_and_begins_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gauges, "_WAIT_SECONDS", 0.05)
    goes_on, begun = threading.Event(), []

    def hang() -> int:
        begun.append(1)
        goes_on.wait(10)
        return 7

    async def ask() -> list[int | None]:
        look = Look(hang, 60.0)
        answers = [await look.value(), await look.value()]
        goes_on.set()
        monkeypatch.setattr(gauges, "_WAIT_SECONDS", 10.0)
        return [*answers, await look.value(), await look.value()]

    assert asyncio.run(ask()) == [None, None, 7, 7]
    assert len(begun) == 1


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), PermissionError(13, "closed")])
def test_a_failure_is_no_answer_and_is_kept_as_long(failure: Exception) -> None:
    tried = []

    def fail() -> int:
        tried.append(1)
        raise failure

    async def ask() -> list[int | None]:
        look = Look(fail, 60.0)
        answers = [await look.value(), await look.value()]
        look._until = 0.0
        return [*answers, await look.value()]

    assert asyncio.run(ask()) == [None, None, None]
    assert len(tried) == 2


def manager_is_up(config: Callable[[], Config], times: int = 1) -> list[bool | None]:
    async def ask() -> list[bool | None]:
        read = Gauges(config, Counters(1).counted)
        return [(await read.read()).manager_is_up for _ in range(times)]

    return asyncio.run(ask())


def test_the_manager_interface_is_asked_once_in_ten_seconds() -> None:
    with FakeManager() as manager:
        assert manager_is_up(lambda: manager.config, 3) == [True] * 3

    assert (manager.connections, len(manager.names("Ping"))) == (1, 1)


def test_its_connection_is_kept_and_made_again_when_it_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "_MANAGER_KEPT_SECONDS", -1.0)
    with FakeManager() as manager:

        async def ask() -> list[bool | None]:
            read = Gauges(lambda: manager.config, Counters(1).counted)
            before = [(await read.read()).manager_is_up for _ in range(2)]
            manager.drop_connections()
            return before + [(await read.read()).manager_is_up for _ in range(2)]

        assert asyncio.run(ask()) == [True] * 4

    assert (manager.connections, len(manager.names("Login"))) == (2, 2)


def test_each_question_has_its_own_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the manager interface's own clock, which goes on while it answers."""
    now = 0.0
    monkeypatch.setattr(gauges, "_MANAGER_KEPT_SECONDS", -1.0)
    monkeypatch.setattr(manager_interface, "time", SimpleNamespace(monotonic=lambda: now))
    with FakeManager() as manager:

        def take_long(action: dict[str, str]) -> bool:
            nonlocal now
            if action["Action"] == "Ping":
                now += 0.6 * _PATIENCE_SECONDS
            return True

        manager.before = take_long

        assert manager_is_up(lambda: manager.config, 4) == [True] * 4

    assert manager.connections == 1


def test_a_manager_interface_that_comes_back_is_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "_MANAGER_KEPT_SECONDS", -1.0)
    monkeypatch.setattr(manager_interface, "PATIENCE_SECONDS", 0.2)
    with FakeManager() as manager:

        def be_silent_once(action: dict[str, str]) -> bool:
            monkeypatch.setattr(manager_interface, "PATIENCE_SECONDS", _PATIENCE_SECONDS)
            return len(manager.actions) > 1

        manager.before = be_silent_once

        assert manager_is_up(lambda: manager.config, 3) == [False, True, True]


def test_a_manager_interface_that_refuses_or_is_not_there_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeManager() as manager:
        config = manager.config
        assert manager_is_up(lambda: config._replace(manager_secret="wrong")) == [False]

    assert manager_is_up(lambda: config) == [False]


def test_a_manager_interface_that_says_nothing_is_down_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "_WAIT_SECONDS", 0.2)
    with FakeManager() as manager:
        manager.before = lambda action: False
        begun = time.monotonic()

        assert manager_is_up(lambda: manager.config) == [False]

    assert time.monotonic() - begun < _PATIENCE_SECONDS / 2


def test_no_manager_interface_is_asked_where_none_is_configured() -> None:
    assert manager_is_up(Config) == [None]
