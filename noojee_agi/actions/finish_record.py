"""finish_record: a leg has ended, MixMonitor has closed its file."""

from noojee_agi import recording, spool
from noojee_agi.config import Config


def finish_record(leg_id: str, file: str, config: Config) -> None:
    """Spool how the leg ended. Raises OSError when the spool or the file cannot be used."""
    spool.put(config.spool_directory, recording.ending(leg_id, file, recording.now()))
