"""Audio files that stand beside a recording under its name: somebody has converted it."""

import os

# What a recording may be, or be converted to.
_SUFFIXES = frozenset(
    (
        *(".aac", ".alaw", ".amr", ".flac", ".g722", ".g723", ".g729", ".gsm", ".ilbc", ".m4a", ".mp3"),
        *(".ogg", ".opus", ".pcm", ".raw", ".siren7", ".siren14", ".sln", ".sln16", ".sln48", ".spx"),
        *(".ulaw", ".wav", ".webm", ".wma"),
    )
)


def is_audio(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def beside(file: str) -> list[str]:
    """The other ones of its name. Raises OSError."""
    folder, name = os.path.split(file)
    stem = os.path.splitext(name)[0]
    same = [each for each in os.listdir(folder) if os.path.splitext(each)[0] == stem and is_audio(each)]
    return [os.path.join(folder, each) for each in sorted(same) if each != name]
