"""The header of a WAV file: how long the audio is, and the repair of a header that a crash left behind.

Asterisk writes the lengths when it closes the file (formats/format_wav.c wav_close); until then they are 0.
"""

import os
from typing import NamedTuple

FORMATS = ("wav", "wav16")  # of Asterisk's, whose header says whether the file was closed
_RIFF_HEADER = 12
_RIFF_LENGTH_AT = 4
_CHUNK_HEADER = 8
_BYTES_PER_SECOND_AT = 8  # in the chunk "fmt "
_BLOCK_ALIGN_AT = 12


class Header(NamedTuple):
    """data_at: where the audio begins. riff_bytes, data_bytes: what the header says. size: the file's."""

    riff_bytes: int
    bytes_per_second: int
    block_align: int
    data_at: int
    data_bytes: int
    size: int

    @property
    def audio_bytes(self) -> int:
        """By the file's size, since the header may have been left behind; whole samples only."""
        return max(0, self.size - self.data_at) // self.block_align * self.block_align

    @property
    def seconds(self) -> float:
        return round(self.audio_bytes / self.bytes_per_second, 3)

    @property
    def is_right(self) -> bool:
        return self.data_bytes == self.size - self.data_at and self.riff_bytes > 0

    @property
    def repaired_size(self) -> int:
        return self.data_at + self.audio_bytes


def read(file: str) -> Header | None:
    """The header; None when this is no WAV file. Raises OSError."""
    with open(file, "rb") as audio:
        size = os.fstat(audio.fileno()).st_size
        start = audio.read(512)
    if start[:4] != b"RIFF" or start[8:12] != b"WAVE":
        return None
    return _chunks(start, size)


def repair(file: str) -> None:
    """Write the lengths that the file has into its header, in place; safe to repeat. Raises OSError."""
    header = read(file)
    if header is None or header.is_right:
        return
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, _length(header.repaired_size - _CHUNK_HEADER), _RIFF_LENGTH_AT)
        os.pwrite(descriptor, _length(header.audio_bytes), header.data_at - 4)
        os.ftruncate(descriptor, header.repaired_size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _length(value: int) -> bytes:
    return min(value, 0xFFFFFFFF).to_bytes(4, "little")


def _chunks(start: bytes, size: int) -> Header | None:
    at, bytes_per_second, block_align = _RIFF_HEADER, 0, 1
    while at + _CHUNK_HEADER <= len(start):
        name, length = start[at : at + 4], int.from_bytes(start[at + 4 : at + 8], "little")
        body = at + _CHUNK_HEADER
        if name == b"data":
            riff = _number(start, _RIFF_LENGTH_AT, 4)
            known = bytes_per_second and Header(riff, bytes_per_second, block_align or 1, body, length, size)
            return known or None
        if name == b"fmt ":
            bytes_per_second = _number(start, body + _BYTES_PER_SECOND_AT, 4)
            block_align = _number(start, body + _BLOCK_ALIGN_AT, 2)
        at = body + length
    return None


def _number(start: bytes, at: int, length: int) -> int:
    return int.from_bytes(start[at : at + length], "little")
