"""A recordings folder with its spool, as the call path fills it, and what the database says of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import select

from noojee_agi.config import Config
from noojee_agi.database import queries
from noojee_agi.database.queries import Filter
from noojee_agi.database.store import Store
from noojee_agi.database.tables import call_record
from noojee_agi.recordings import files, recording, rejected, sidecar, spool
from noojee_agi.recordings.recording import Ending, Event, Leg
from noojee_agi.sync import drain, housekeeping

CALL_TIME = datetime(2026, 3, 1, 9, 30, 15, 123456, tzinfo=timezone.utc)


def after(seconds: float) -> datetime:
    """So long after the call's start."""
    return CALL_TIME + timedelta(seconds=seconds)


def ended(leg: Leg, **changes: Any) -> Ending:
    """The leg's ending, long enough ago that nobody waits for its start."""
    ending = Ending(leg.id, "completed", leg.started_at + timedelta(seconds=60), 960_044, 60.0)
    return ending._replace(**changes)


class Recorder:
    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self.directory = directory
        self.spool = str(directory / ".spool")
        self._together: list[Event] | None = None
        directory.mkdir()

    def leg(self, **changes: Any) -> Leg:
        """A leg of the call 1700000000.7, in a folder that is there, as start_record makes it."""
        leg_id = recording.new_id()
        started_at = changes.get("started_at", CALL_TIME)
        file = recording.file_path(str(self.directory), "1700000000.7", leg_id, "wav", started_at)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        leg = Leg(
            id=leg_id,
            server="pbx1",
            call_uniqueid="1700000000.7",
            uniqueid="1700000000.9",
            channel="PJSIP/410-00000a1f",
            extension="",
            extensions=("410", "600"),
            agent_login_name="",
            agent_known=None,
            tag="",
            source="01234567",
            destination="600",
            did="0987654",
            file=file,
            started_at=started_at,
        )
        return leg._replace(**changes)

    def put(self, *events: Event) -> list[bytes]:
        """Their lines, as they wait."""
        for event in events:
            spool.put(self.spool, event)
        return [recording.to_json(event).encode("utf-8", "replace") for event in events]

    def put_text(self, text: str) -> bytes:
        """A line that is just this text, whatever it is."""
        line = text.encode()
        spool.append(self.spool, line)
        return line

    def put_changed(self, event: Event, changes: dict[str, Any]) -> bytes:
        """A line of ours whose JSON has been changed."""
        return self.put_text(json.dumps({**json.loads(recording.to_json(event)), **changes}))

    def put_file(self, name: str, text: str) -> str:
        """As versions before the journal did: a file for each event."""
        files.make_folder(self.spool)
        path = os.path.join(self.spool, name)
        files.write(path, text)
        return path

    def drain(self) -> drain.Result:
        return drain.run(self.store, self.spool)

    def close_silent_legs(self, server: str = "pbx1") -> int:
        """As that server does, with a state directory of its own; returns how many."""
        state = self.directory.with_name(f"{self.directory.name}-state")
        state.mkdir(exist_ok=True)
        config = Config(
            recordings_directory=str(self.directory), state_directory=str(state), server_name=server
        )
        return housekeeping.run(self.store, config).closed

    def store_all(self, *events: Event) -> None:
        """Put and drain; nothing may be left."""
        if self._together is not None:
            self._together += events
            return
        self.put(*events)
        assert self.drain().stored == len(events)
        assert self.waiting() == []

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is stored meanwhile is stored at its end, by one drain."""
        self._together = []
        yield
        events, self._together = self._together, None
        self.store_all(*events)

    def waiting(self) -> list[bytes]:
        """The lines."""
        return list(spool.waiting(self.spool))

    def reasons(self) -> list[str]:
        """Why each event was set aside."""
        return [Path(f"{path}.reason").read_text() for path in rejected.paths(self.spool)]

    def legs(self, wanted: Filter | None = None) -> list[dict[str, Any]]:
        with self.store.transaction() as connection:
            return list(queries.legs(connection, wanted or Filter()))

    def the_leg(self, leg: Leg) -> dict[str, Any]:
        """Its row; there must be exactly one."""
        [found] = self.legs(Filter(leg_id=leg.id))
        return found

    def calls(self) -> list[dict[str, Any]]:
        with self.store.transaction() as connection:
            rows = connection.execute(
                select(call_record).order_by(call_record.c.uniqueid, call_record.c.server)
            )
            return [dict(row._mapping) for row in rows]

    def execute(self, statement: Any) -> None:
        with self.store.transaction() as connection:
            connection.execute(statement)

    def assert_side_cars_tell_the_same(self) -> None:
        """Every leg of the database, field by field, with what was done with it."""
        for row in queries.each_leg(self.store, [row["id"] for row in self.legs()]):
            text = Path(sidecar.path_of(row)).read_text(encoding="utf-8")
            assert json.loads(text) == as_json(row)


def as_json(value: object) -> Any:
    """A column's value, or a whole leg, as a side-car says it."""
    return json.loads(json.dumps(value, default=datetime.isoformat))


def forked(work: Callable[[], object]) -> int:
    """Run work in a process of its own, which ends with it: 0, or 1 after an exception. Its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    with contextlib.suppress(BaseException), _traceback_shown():
        work()
        code = 0
    os._exit(code)


@contextlib.contextmanager
def _traceback_shown() -> Iterator[None]:
    try:
        yield
    except BaseException:
        traceback.print_exc()
        raise


def exit_code(child: int) -> int:
    """Wait for the process; -9 when it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_after(seconds: float) -> None:
    """Let the kernel end this process then, wherever it is, without a word to Python."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
