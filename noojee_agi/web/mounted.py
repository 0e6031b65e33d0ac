"""A file that is not there because its disk is not: then nobody shall hear that nothing was recorded."""

from noojee_agi.config import Config
from noojee_agi.errors import DiskSilent
from noojee_agi.recordings import disk, history


@disk.bounded()
def require(file: str, config: Config) -> None:
    """Raises DiskSilent when the folder of recordings in which the file would lie is away."""
    if directory := history.away(config.state_directory, file):
        raise DiskSilent(f"{directory} is not what it was: mount its disk; noojee-agi check says more")
