"""What the headers of WAV and AIFF files claim, beside what the files hold. No torch.

libsndfile reads a shortened file as a shorter sound and says nothing, so the claims are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_HEAD_BYTES = 12
_IN_DS64 = 0xFFFFFFFF


@dataclass(frozen=True)
class Claim:
    """A header's word. `rate` is in Hz (None: left to the decoder), a `frame` is one sample of each channel."""

    rate: int | None
    channels: int
    frame_bytes: int
    data_bytes: int
    held_bytes: int

    @property
    def frames(self) -> int:
        """How many frames are claimed."""
        return self.data_bytes // max(1, self.frame_bytes)


def read_claim(path: Path) -> Claim | None:
    """The claim of a WAV (RIFF, RIFX, RF64) or AIFF file; None for others, and where a needed chunk is missing."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        kind, form = head[:4], head[8:]
        if form == b"WAVE" and kind in (b"RIFF", b"RIFX", b"RF64"):
            return _wav(file, size, ">" if kind == b"RIFX" else "<")
        if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
            return _aiff(file, size)
    return None


def _wav(file: BinaryIO, size: int, order: str) -> Claim | None:
    form: tuple[int, ...] | None = None
    long_bytes = 0
    for name, start, length in _chunks(file, size, order):
        if name == b"fmt " and length >= 16:
            form = struct.unpack(f"{order}HHIIH", _read(file, start, 14))
        elif name == b"ds64" and length >= 16:
            long_bytes = struct.unpack(f"{order}Q", _read(file, start + 8, 8))[0]
        elif name == b"data" and form is not None:
            data_bytes = long_bytes if length == _IN_DS64 and long_bytes else length
            return Claim(form[2], form[1], form[4], data_bytes, size - start)
    return None


def _aiff(file: BinaryIO, size: int) -> Claim | None:
    form: tuple[int, ...] | None = None
    sound: tuple[int, int] | None = None
    for name, start, length in _chunks(file, size, ">"):
        if name == b"COMM" and length >= 18:
            form = struct.unpack(">hIh", _read(file, start, 8))
        elif name == b"SSND" and length >= 8:  # eight bytes of offsets come before the samples
            sound = (length - 8, size - start - 8)
    if form is None or sound is None:
        return None
    return Claim(None, form[0], form[0] * -(-form[2] // 8), *sound)


def _chunks(file: BinaryIO, size: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """(name, first byte, claimed length) of each chunk whose head and first bytes are there."""
    at = _HEAD_BYTES
    while at + 8 <= size:
        name, length = struct.unpack(f"{order}4sI", _read(file, at, 8))
        # A data chunk may claim what is missing; of others at least what is read of them must be there.
        if name not in (b"data", b"SSND") and at + 8 + min(length, 18) > size:
            return
        yield name, at + 8, length
        at += 8 + length + length % 2


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
