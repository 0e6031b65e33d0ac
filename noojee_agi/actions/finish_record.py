"""finish_record: a leg has ended, MixMonitor has closed its file."""

import os

from noojee_agi import text
from noojee_agi.errors import BadArgument
from noojee_agi.recordings import recording, spool


def finish_record(leg_id: str, file: str) -> None:
    """Spool how the leg ended.

    Raises OSError when the spool or the file cannot be used, and BadArgument when leg_id is none.

    It needs no configuration, which may have changed, or be broken, since the call began: the spool is
    found from the file, <recordings directory>/YYYY/MM/DD/<name>.
    """
    if not recording.is_id(leg_id):
        raise BadArgument(f"{text.plain(leg_id)} is no leg's id: start_record.py writes this command")
    directory = file
    for _ in range(4):
        directory = os.path.dirname(directory)
    spool.put(spool.directory_in(directory), recording.ending(leg_id, file, recording.now()))
