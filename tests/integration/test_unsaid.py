"""No key has changed without having been shown, whatever is full, closed or away."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from lab.loaded_command import loaded
from lab.postgresql import PrivatePostgreSQL
from lab.site import PROGRAMS, Site
from lab.small_disk import fill, small_disk
from sqlalchemy import text

from integration.conftest import BACKENDS
from noojee_agi.actions import access
from noojee_agi.database import settings
from noojee_agi.database.store import Store
from noojee_agi.recordings import snapshot

OWN_KEY = "a key of some length"
FULL = "/dev/full"


@contextmanager
def full() -> Iterator[int]:
    descriptor = os.open(FULL, os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextmanager
def without_reader() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture(scope="module", params=BACKENDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("unsaid") / "site", url_of(request))


def url_of(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return ""
    server: PrivatePostgreSQL = request.getfixturevalue("postgresql")
    return server.url(server.create_database())


def digests(site: Site) -> tuple[str, str]:
    """The database's, and that of the calls."""
    known = snapshot.load(str(site.snapshot))
    assert known is not None
    with Store(site.database_url).reading() as connection:
        return settings.key_digest(connection), known.key_digest


def assert_key_is(site: Site, key: str) -> None:
    assert [access.matches(key, digest) for digest in digests(site)] == [True, True]
    assert not list(site.state_directory.glob("*.before"))


def run_towards(output: int, site: Site, *words: str) -> tuple[int, str]:
    """`noojee-agi WORDS` with this standard output: its exit code, and what it says on standard error."""
    with open(os.devnull, "rb") as nothing, tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        streams = [nothing.fileno(), output, errors.fileno()]
        with loaded(PROGRAMS / "noojee-agi").start(words, site.environment, streams) as process:
            code = process.wait(60)
        errors.seek(0)
        return code, errors.read()


def assert_nothing_is_said_or_changed(site: Site, code: int, errors: str) -> None:
    assert code == 1
    assert re.fullmatch(
        r"Error: standard output cannot be written \([^\n]+the apiKey is the old one[^\n]+\n", errors
    )
    assert_key_is(site, OWN_KEY)


@pytest.mark.parametrize("output", [full, without_reader], ids=["full", "nobody reads"])
def test_a_key_that_cannot_be_shown_changes_nothing(
    site: Site, output: Callable[[], AbstractContextManager[int]]
) -> None:
    site.cli("apikey", "set", text=OWN_KEY)

    with output() as descriptor:
        code, errors = run_towards(descriptor, site, "apikey", "new")

    assert_nothing_is_said_or_changed(site, code, errors)


def test_a_key_that_is_shown_to_no_output_at_all_changes_nothing(site: Site) -> None:
    """Which a Python finds closed when it begins."""
    site.cli("apikey", "set", text=OWN_KEY)

    done = subprocess.run(
        ["sh", "-c", f"exec {PROGRAMS}/noojee-agi apikey new >&-"],
        env={**os.environ, **site.environment},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert_nothing_is_said_or_changed(site, done.returncode, done.stderr)


def add_ann(site: Site) -> None:
    if "ann" not in site.cli("account", "list"):
        site.cli("account", "add", "ann")


def test_what_cannot_be_said_of_an_attachment_is_said_with_the_error(site: Site) -> None:
    add_ann(site)

    with full() as output:
        code, errors = run_towards(output, site, "attach", "ann", "499")

    assert (code, errors.count("\n")) == (1, 1)
    assert "standard output cannot be written (No space left on device), but 499 is attached" in errors
    assert "499" in site.cli("account", "list")


@pytest.fixture
def refusing(site: Site) -> Iterator[Site]:
    """Its database says no only when it is asked to commit."""
    store = Store(site.database_url)
    with store.transaction() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = '53100'; END $$;"
                " CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON system_variable"
                " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    yield site
    with store.transaction() as connection:
        connection.execute(text("DROP FUNCTION refuse CASCADE"))


@pytest.mark.parametrize("site", [pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True)
@pytest.mark.parametrize("words", [("apikey", "new"), ("apikey", "set")])
def test_a_key_that_was_shown_and_not_stored_is_said_to_be_void(
    refusing: Site, words: tuple[str, str]
) -> None:
    known, _ = digests(refusing)

    done = refusing.run_cli(*words, text="another key of some length")

    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "the apiKey is the old one, a new one is void" in done.stderr
    assert digests(refusing) == (known, known)
    assert bool(done.stdout) is (words[1] == "new")


@pytest.mark.parametrize("site", [pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True)
def test_an_attachment_that_is_not_stored_is_not_said_to_be_made(refusing: Site) -> None:
    add_ann(refusing)
    with Store(refusing.database_url).transaction() as connection:
        connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON extension_attachment"
                " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )

    done = refusing.run_cli("attach", "ann", "498")

    assert (done.returncode, done.stdout) == (1, "")
    assert "the disk is full" in done.stderr
    assert "498" not in refusing.cli("account", "list")


# --- full disks ---


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(2_000_000) as disk:
        yield disk


def test_on_a_full_state_disk_a_key_is_shown_and_valid_or_the_old_one_is(disk: Path) -> None:
    """With SQLite on it. The room that is left is too little for one step or another."""
    site, codes = Site(disk / "site"), set()
    key = site.key

    for but in (0, 4096, 8192, 16384, 32768, 65536):
        fill(disk / "ballast", but)
        done = site.run_cli("apikey", "new")
        (disk / "ballast").unlink()
        if done.returncode:
            assert "the apiKey is the old one" in done.stderr or "may be valid or not" in done.stderr
        else:
            key = done.stdout.strip()
        assert_key_is(site, key)
        codes.add(done.returncode)

    assert codes == {0, 1}


def test_a_full_disk_of_the_recordings_keeps_no_key_back(disk: Path, tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.configure({"recordings.directory": str(disk)})
    fill(disk / "ballast")

    done = site.run_cli("apikey", "new")

    assert done.returncode == 0
    assert "warning" in done.stderr
    assert_key_is(site, done.stdout.strip())


def test_sync_does_all_its_work_although_its_log_is_full(site: Site) -> None:
    (site.recordings_directory / ".settings.json").unlink(missing_ok=True)
    with full() as output:
        done = subprocess.run(
            [PROGRAMS / "noojee-agi", "sync"],
            env={**os.environ, **site.environment},
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert done.returncode != 0
    assert (site.recordings_directory / ".settings.json").exists()
