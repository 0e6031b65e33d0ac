"""A recording's file that somebody has converted: its row follows it."""

import os
from typing import Any

from sqlalchemy import update

from noojee_agi.database import notes, queries
from noojee_agi.database.store import Store
from noojee_agi.database.tables import recording_leg
from noojee_agi.recordings import recording
from noojee_agi.recordings.recording import Note


def follow(store: Store, leg_id: str, former: str, file: str, size: int) -> dict[str, Any]:
    """The leg as it is then, with the event. Raises StoreUnavailable."""
    reason = f"{os.path.basename(former)} is {os.path.basename(file)} now"
    note = Note(leg_id, recording.now(), recording.CONVERTED, None, reason)

    def work(connection: Any) -> dict[str, Any]:
        leg = recording_leg.c
        connection.execute(
            update(recording_leg).where(leg.id == leg_id, leg.file == former).values(file=file, bytes=size)
        )
        notes.store(connection, [note], [], {leg_id})
        return queries.whole_legs(connection, [leg_id])[0]

    return store.in_turn(work)
