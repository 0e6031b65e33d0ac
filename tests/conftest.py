"""What every test knows: in which order, for how long, without which component, and where figures are told.

A component that cannot be had is a skip with its reason, and a failure in CI. No test may run for ever.
"""

import fcntl
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hypothesis
import pytest
from lab import memory
from lab.umask import kept_umask
from lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

ALONE = "alone"
# What takes long begins first, or one worker would be busy with it when all others are done. One of three
# waits more than it works, so that a processor has work meanwhile.
LONGEST = (
    *("integration/test_server_load.py", "asterisk/test_other_call.py", "install/test_readme_commands.py"),
    *("asterisk/test_following.py", "asterisk/test_check_asterisk.py", "asterisk/test_server.py"),
    *("integration/test_rebuild.py", "asterisk/test_chaos_database.py", "asterisk/test_pause.py"),
    *("asterisk/test_chaos_kills.py", "asterisk/test_recording.py", "asterisk/test_examples.py"),
    *("integration/test_handoff.py", "asterisk/test_other_host.py", "integration/test_pythons.py"),
    *("asterisk/test_hostile_text.py", "asterisk/test_right_call.py", "asterisk/test_following_nobody.py"),
    *("integration/test_purge.py", "integration/test_cli.py", "integration/test_kill_drain.py"),
    *("integration/test_pgbouncer.py", "asterisk/test_chaos_server.py", "integration/test_drain.py"),
    *("integration/test_identity.py", "asterisk/test_following_troubles.py", "integration/test_long_list.py"),
    *("integration/test_moved.py", "asterisk/test_refusals.py", "integration/test_schema.py"),
    *("integration/test_http_schema.py", "asterisk/test_http.py", "integration/test_metadata.py"),
    *("integration/test_teams.py", "integration/test_server_life.py", "integration/test_journal.py"),
    *("integration/test_check.py", "integration/test_silence.py", "bench/test_listening.py"),
    *("integration/test_check_programs.py", "integration/test_check_faults.py"),
    *("integration/test_two_hosts.py", "integration/test_concurrency.py"),
    *("integration/test_server_strangers.py", "asterisk/test_many_calls.py", "bench/test_memory.py"),
    *("integration/test_two_versions.py", "asterisk/test_secrets.py"),
)
# Each of their parameters is a piece of work: a machine or a Python of its own.
PIECEMEAL = ("tests/install/test_readme_commands.py", "tests/integration/test_pythons.py")
FOLDERS = ("install", "asterisk", "integration", "bench", "unit")
UNIT_SECONDS = 60.0  # for one test; the longest takes ten, alone
LONG_FACTOR = 20.0

# On a busy machine any example may take longer than hypothesis's 200 ms, and many of them than its second.
_ANY_SPEED: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("any speed", **_ANY_SPEED)
hypothesis.settings.register_profile("few", **_ANY_SPEED, max_examples=10)
hypothesis.settings.load_profile("any speed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="break things hundreds of times, not a few times")


def pytest_configure() -> None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory.folder()))  # of tmp_path


@pytest.fixture(scope="session")
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long run."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Show a figure (so many tries, so many losses) below the test results."""

    def show(figure: str) -> None:
        request.node.user_properties.append(("figure", figure))

    return show


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    figures = [value for report in reports for name, value in report.user_properties if name == "figure"]
    if figures:
        terminalreporter.section("figures")
    for figure in figures:
        terminalreporter.line(figure)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """xdist looks at the groups, pytest puts together what has the same fixture, and then it is sorted."""
    for item in items if config.pluginmanager.has_plugin("xdist") else ():
        if item.get_closest_marker(ALONE):
            item.add_marker(pytest.mark.xdist_group(ALONE))
    result = yield
    items.sort(key=_place)
    _limit(config, items)
    return result


def _place(item: pytest.Item) -> tuple[bool, int, int]:
    """Last the tests that are alone, together, so that few others wait meanwhile."""
    file = "/".join(item.path.parts[-2:])
    longest = LONGEST.index(file) if file in LONGEST else len(LONGEST)
    folder = item.path.parent.name
    return (
        item.get_closest_marker(ALONE) is not None,
        longest,
        FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS),
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> "LoadFileScheduling | None":
    """A worker gets a whole file, in the order above; all that is alone is one piece of work."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.endswith(f"@{ALONE}"):
                return ALONE
            place = str(super()._split_scope(nodeid))
            return f"{place}[{nodeid.rpartition('[')[2]}" if place in PIECEMEAL else place

    if config.getoption("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False
    return Files(config, log)  # type: ignore[arg-type]


def _limit(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test its limit, unless --timeout gives one to all."""
    if config.getoption("timeout") is not None:
        return
    factor = LONG_FACTOR if config.getoption("--long") else 1
    for item in items:
        own = item.get_closest_marker("timeout")
        usual = UNIT_SECONDS if "unit" in item.path.parts else float(config.getini("timeout"))
        seconds = own.args[0] if own else usual
        item.add_marker(pytest.mark.timeout(factor * seconds), append=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # a test's limit begins when it has the lock
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests run beside each other (pytest-xdist), but one that is marked alone has the machine to itself."""
    folder = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX if item.get_closest_marker(ALONE) else fcntl.LOCK_SH)
        return (yield)
    finally:
        os.close(folder)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Or what the next tests make would be closed to the users as whom the lab's servers run."""
    with kept_umask():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    try:
        return (yield)
    except LabUnavailable as reason:
        _cannot_run(reason)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    try:
        return (yield)
    except LabUnavailable as reason:
        _cannot_run(reason)


def _cannot_run(reason: LabUnavailable) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"cannot run here: {reason}", pytrace=False)
    pytest.skip(f"CANNOT RUN HERE: {reason}")
