"""finish_record: a leg has ended, MixMonitor has closed its file."""

import os

from noojee_agi import recording, spool


def finish_record(leg_id: str, file: str) -> None:
    """Spool how the leg ended. Raises OSError when the spool or the file cannot be used.

    It needs no configuration, which may have changed, or be broken, since the call began: the spool is
    found from the file, <recordings directory>/YYYY/MM/DD/<name>.
    """
    directory = file
    for _ in range(4):
        directory = os.path.dirname(directory)
    spool.put(spool.directory_in(directory), recording.ending(leg_id, file, recording.now()))
