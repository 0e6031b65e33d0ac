"""The server is killed and restarted under real calls: each is recorded, and nothing is lost."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from lab import asterisk, audit, processes
from lab.asterisk import PrivateAsterisk
from lab.served import Served
from lab.site import Site
from lab.traffic import LINE, Call, Traffic
from lab.waiting import wait_until

pytestmark = pytest.mark.asterisk

AT_ONCE = 14
ROUNDS_AT_MOST = 4
OVER_SECONDS = 60.0


@pytest.fixture(scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
def traffic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    installation, folder = asterisk.find(request.param), tmp_path_factory.mktemp("chaos")
    site = Site(folder / "site")
    site.cli("account", "add", "Fred")
    calls = Traffic(site, "office")
    with PrivateAsterisk(
        installation, folder / "asterisk", LINE + calls.dialplan, {}, site.environment, site.agi_directory
    ) as running:
        calls.use(running)
        yield calls


def assert_all_recorded(traffic: Traffic, calls: list[Call]) -> Counter[str]:
    """Each call has status 200, and the leg it was told of is right; returns what the others have become.

    A call whose server died in the middle may have one more leg: of a recording that was ended then, and
    does not go on beside the other.
    """
    assert Counter(call.status for call in calls) == {"200": len(calls)}
    traffic.wait_until_idle()
    audit.sync_until_all_is_closed(traffic.site)
    tags = {call.tag for call in traffic.calls()} - {call.tag for call in calls}  # of other tests
    found = audit.assert_nothing_is_lost_or_twice(traffic.site)
    legs = {leg["id"]: leg for leg in found if leg["tag"] not in tags}
    told = [legs.pop(call.leg_id) for call in calls]
    assert {leg["status"] for leg in told} <= {"completed", "empty"}  # a busy Asterisk may hear nothing
    assert [leg["tag"] for leg in told] == [call.tag for call in calls]
    ended_at = {leg["tag"]: leg["ended_at"] for leg in told}
    for leg in legs.values():
        assert leg["status"] == "failed" or leg["ended_at"] < ended_at[leg["tag"]], leg
    return Counter(leg["status"] for leg in legs.values())


def test_workers_killed_under_a_crowd_of_calls_cost_no_recording(
    traffic: Traffic, is_long: bool, tell: Callable[[str], None]
) -> None:
    kills = rounds = 0
    calls: list[Call] = []
    with Served(traffic.site) as served:
        # On a busy machine all programs of a round may wait too long for the server, and go the plain way.
        while rounds < (10 if is_long else 1) or (rounds < ROUNDS_AT_MOST and not by_server(served)):
            rounds += 1
            tags = traffic.start_at_once(AT_ONCE, 3.0)
            for gone in (1, 4, 7, 10):
                traffic.wait_until_held(tags, all_but=AT_ONCE - gone)
                victims = served.workers()[:1]
                processes.send(signal.SIGKILL, victims)
                kills += len(victims)
            calls += traffic.wait_until_held(tags)
            traffic.asterisk.wait_quiet(OVER_SECONDS)
        count = by_server(served)
        further = assert_all_recorded(traffic, calls)

    assert count > 0
    tell(
        f"{kills} workers killed under {len(calls)} calls, of which {count:g} were served to their end:"
        f" all recorded; further legs: {dict(further)}"
    )


def by_server(served: Served) -> float:
    """Sessions that it has served to their end."""
    return served.status()["sessions"]


def test_a_server_that_is_restarted_while_calls_come_costs_none(
    traffic: Traffic, is_long: bool, tell: Callable[[str], None]
) -> None:
    count = 300 if is_long else 12
    restarts, before = 0, len(traffic.calls())
    with Served(traffic.site) as served, traffic.flowing(count) as flow:
        while not flow.done():
            restarts += 1
            assert served.stop() == 0
            wait_for_more(traffic, 3, flow.done)
            served.start()
            wait_for_more(traffic, 3, flow.done)
    traffic.asterisk.wait_quiet(OVER_SECONDS)

    further = assert_all_recorded(traffic, traffic.calls()[before:])

    assert further == {}
    tell(f"{restarts} restarts of the server under {count} calls: all recorded, each once")


def test_a_server_killed_with_all_its_processes_costs_no_recording(
    traffic: Traffic, is_long: bool, tell: Callable[[str], None]
) -> None:
    count = 200 if is_long else 10
    kills, before = 0, len(traffic.calls())
    with Served(traffic.site) as served, traffic.flowing(count) as flow:
        while not flow.done():
            wait_for_more(traffic, random.Random(kills).randint(1, 3), flow.done)
            kills += 1
            served.kill()
            served.start()
    traffic.asterisk.wait_quiet(OVER_SECONDS)

    further = assert_all_recorded(traffic, traffic.calls()[before:])

    tell(f"{kills} kills of the whole server under {count} calls: all recorded; further: {dict(further)}")


def wait_for_more(traffic: Traffic, count: int, is_over: Callable[[], bool]) -> None:
    before = len(traffic.calls())
    wait_until(lambda: is_over() or len(traffic.calls()) >= before + count, 60, f"{count} more calls")
