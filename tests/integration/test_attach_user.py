"""attach_user and detach_user on all three ways in: noted at once, and in the database soon."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.served import Served
from lab.site import Site
from lab.waiting import wait_until
from sqlalchemy import select
from unit.fakes import FakeAsterisk

from integration import patience
from integration.piped import Piped
from noojee_agi.database.store import Store
from noojee_agi.database.tables import account, extension_attachment
from noojee_agi.recordings import snapshot

# Shorter than the 5 s after which the server looks for events that nobody told it of, and Python's start.
SOON_SECONDS = 4.0
TRIES = 4  # of which one must be soon: a busy machine may take longer


class Desks:
    """A site with one account, and the way on which its calls come in."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder / "site")
        self.environment = {**self.site.environment, **patience.environment(folder / "patience")}
        self.site.cli("account", "add", "Ann")
        self.served: Served | None = None

    def program(self, asterisk: FakeAsterisk, name: str, *words: str) -> None:
        with Piped(asterisk, [str(self.site.agi_directory / f"{name}.py"), *words], self.environment) as run:
            run.run()
        assert run.stderr == ""

    def fastagi(self, asterisk: FakeAsterisk, name: str, *words: str) -> None:
        assert self.served
        arguments = {f"agi_arg_{number}": word for number, word in enumerate(words, 1)}
        asterisk.environment |= {"agi_network": "yes", "agi_network_script": name, **arguments}
        asterisk.streams()
        with socket.create_connection(("127.0.0.1", self.served.port), 10) as connection:
            connection.sendall(asterisk.pending().encode())
            while read := connection.recv(65536):
                asterisk.receive(read.decode())
                connection.sendall(asterisk.pending().encode())

    def open_attachments(self) -> dict[str, str]:
        rows = (
            select(extension_attachment.c.extension, account.c.login)
            .join(account, account.c.id == extension_attachment.c.account_id)
            .where(extension_attachment.c.detached_at.is_(None))
        )
        with Store(self.site.database_url).reading() as connection:
            return {row.extension: row.login for row in connection.execute(rows)}

    def known(self) -> frozenset[str] | None:
        """Where somebody sits, by the snapshot."""
        found = snapshot.load(str(self.site.snapshot))
        return found.attached if found else None


@pytest.fixture(params=["plain", "handed over", "fastagi"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def desks(way: str, tmp_path: Path) -> Iterator[Desks]:
    made = Desks(tmp_path)
    if way == "plain":
        yield made
        return
    with Served(made.site) as made.served:
        yield made


def test_who_sits_down_and_gets_up_is_known_soon(desks: Desks, way: str) -> None:
    run: Callable[..., None] = desks.fastagi if way == "fastagi" else desks.program

    def ask(name: str, *words: str) -> None:
        asterisk = FakeAsterisk(apiKey=desks.site.key)
        run(asterisk, name, *words)
        asterisk.check()
        assert asterisk.answers()["RECORDING_STATUS"] == "200", asterisk.answers()

    def both_are_seen_soon() -> bool:
        ask("attach_user", "Ann", "411")
        sits = is_soon(lambda: desks.open_attachments() == {"411": "Ann"}, "Ann at 411")
        sits &= is_soon(lambda: desks.known() == frozenset({"411"}), "the snapshot to say so")
        ask("detach_user", "411")
        gets_up = is_soon(lambda: desks.open_attachments() == {}, "nobody at 411")
        return gets_up & is_soon(lambda: desks.known() == frozenset(), "the snapshot to say so") & sits

    tries = next((tried for tried in range(1, TRIES + 1) if both_are_seen_soon()), 0)
    assert tries
    if desks.served:
        desks.served.wait_for("sessions", 2 * tries)  # the server has done all


def is_soon(condition: Callable[[], bool], what: str) -> bool:
    begun = time.monotonic()
    wait_until(condition, 30, what)
    return time.monotonic() - begun < SOON_SECONDS
