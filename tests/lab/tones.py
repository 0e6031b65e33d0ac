"""Finds a tone in a recording, so that a test can tell who is to be heard in it."""

from __future__ import annotations

import array
import math
import sys
import wave
from pathlib import Path

_LOUDEST = 32767


def share(path: Path, frequency: float) -> float:
    """Return how much of a recording's power is at that frequency: 0.0 (none, or no sound) to 1.0 (all).

    Reads 16-bit mono WAV in blocks of 100 ms, so two tones must be 20 Hz apart. A tone that is there half of
    the time has its share then only. Milliwatt() is ten times as strong as Playtones(425).
    """
    samples, rate = _read(path)
    block = rate // 10
    total = sum(sample * sample for sample in samples)
    if total == 0:
        return 0.0
    starts = range(0, len(samples) - block + 1, block)
    found = sum(_tone_power(samples[start : start + block], frequency / rate) for start in starts)
    return min(found / total, 1.0)


def levels(path: Path, frequency: float, milliseconds: int = 100) -> list[float]:
    """How loud that frequency is in each of so many ms: 0.0 to 1.0, which is as loud as 16 bits can say."""
    samples, rate = _read(path)
    block = rate * milliseconds // 1000
    starts = range(0, len(samples) - block + 1, block)
    powers = (_tone_power(samples[start : start + block], frequency / rate) for start in starts)
    return [math.sqrt(max(0.0, 2.0 * power / block)) / _LOUDEST for power in powers]


def duration(path: Path) -> float:
    """Return the length of a WAV file in seconds."""
    with wave.open(str(path), "rb") as file:
        return file.getnframes() / file.getframerate()


def _read(path: Path) -> tuple[array.array[int], int]:
    with wave.open(str(path), "rb") as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise ValueError(f"{path} is not 16-bit mono")
        samples = array.array("h", file.readframes(file.getnframes()))
        rate = file.getframerate()
    if sys.byteorder == "big":
        samples.byteswap()
    return samples, rate


def _tone_power(samples: array.array[int], cycles: float) -> float:
    """Return the power of the tone with that many cycles per sample, by Goertzel's algorithm."""
    factor = 2.0 * math.cos(2.0 * math.pi * cycles)
    last = before = 0.0
    for sample in samples:
        last, before = sample + factor * last - before, last
    power = last * last + before * before - factor * last * before
    return 2.0 * power / len(samples)
