"""How long an MP3 is: its frames are counted, since a stream without a length in front is only guessed at. No torch.

libsndfile takes the length of such a file from the bit rate of its first frame, and stops there: of a file with
changing rates it may lose half. So frames are counted here (headers alone, nothing is decoded), and the file is read
behind a first frame that states the count, as an encoder would have put there ("Xing").
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

# By: MPEG 1; bits in thousands a second (ISO/IEC 11172-3 and 13818-3, layer III).
_KILOBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_RESYNC_BYTES = 1 << 16
_OPENING_FRAMES = 2
_ROOMY_KILOBITS = 64
_MONO = 3
_FRAMES_GIVEN, _BYTES_GIVEN = 1, 2

Bytes = bytes | mmap.mmap


@dataclass(frozen=True)
class Frame:
    """One frame's header: where it starts, its length in bytes, its samples per channel, and its first four bytes."""

    start: int
    length_bytes: int
    samples: int
    header: bytes

    @property
    def tag_offset(self) -> int:
        """Where a stated length stands in the frame: after header and side information."""
        mono = self.header[3] >> 6 == _MONO
        return 4 + ((17 if mono else 32) if _is_first_version(self.header) else (9 if mono else 17))


@dataclass(frozen=True)
class Stream:
    """An MP3's frames: `claimed` by what its first frame states, `counted` in the file; None: nothing stated, no need.

    The stating frame is in neither; where nothing is stated, `counted` is there.
    """

    first: Frame
    claimed: int | None
    counted: int | None


class Stated:
    """A file behind a frame that states its length: what soundfile needs of a file (`read`, `seek`, `tell`)."""

    def __init__(self, file: BinaryIO, stream: Stream) -> None:
        self._file = file
        self._front = _stating(stream)
        self._shift = stream.first.start - len(self._front)  # what lies before the first frame is left out
        self._at = 0

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes; all that are left where it is negative."""
        stop = len(self._front) if count < 0 else self._at + count
        data = self._front[self._at : stop]
        self._at += len(data)
        if count < 0 or self._at < stop:
            self._file.seek(self._at + self._shift)
            more = self._file.read(count if count < 0 else stop - self._at)
            self._at += len(more)
            data += more
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As every file's."""
        ends = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}
        origin = ends[whence] if whence in ends else self._file.seek(0, os.SEEK_END) - self._shift
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at


def read_stream(path: Path) -> Stream | None:
    """What the frames of an MPEG layer III file say; None for any other file, and for free bit rates."""
    with path.open("rb") as file:
        if not file.read(1):
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _stream_of(data)


def _stream_of(data: Bytes) -> Stream | None:
    frames = _frames(data, _after_tags(data))
    opening = list(islice(frames, _OPENING_FRAMES))
    if not opening:
        return None
    first = opening[0]
    at = first.start + first.tag_offset
    flags = int.from_bytes(data[at + 4 : at + 8])
    if data[at : at + 4] not in (b"Xing", b"Info") or not flags & _FRAMES_GIVEN:
        return Stream(first, None, len(opening) + sum(1 for _ in frames))
    claimed = int.from_bytes(data[at + 8 : at + 12])
    claimed_bytes = int.from_bytes(data[at + 12 : at + 16]) if flags & _BYTES_GIVEN else 0
    if 0 < claimed_bytes <= len(data) - first.start:
        return Stream(first, claimed, None)
    return Stream(first, claimed, len(opening) - 1 + sum(1 for _ in frames))


def _after_tags(data: Bytes) -> int:
    """Where sound may begin: after ID3v2 tags, whose sizes are written in seven bits a byte."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        high, upper, lower, low = data[at + 6 : at + 10]
        at += 10 + (high << 21 | upper << 14 | lower << 7 | low)
        while at < len(data) and data[at] == 0:  # padding that some writers leave outside the tag
            at += 1
    return at


def _frames(data: Bytes, at: int) -> Iterator[Frame]:
    """Whole frames in order, the first one at `at`; what lies between others is skipped, as a decoder does."""
    frame = _frame_at(data, at)
    # Four bytes alone may look like a header by chance: another one must follow, or the end.
    if frame is not None and not _goes_on(data, frame):
        return
    while frame is not None:
        yield frame
        at = frame.start + frame.length_bytes
        frame = _frame_at(data, at) or _found(data, at)


def _found(data: Bytes, at: int) -> Frame | None:
    """The next frame after a gap."""
    end = min(len(data), at + _RESYNC_BYTES)
    while (at := data.find(b"\xff", at, end)) >= 0:
        frame = _frame_at(data, at)
        if frame is not None and _goes_on(data, frame):
            return frame
        at += 1
    return None


def _goes_on(data: Bytes, frame: Frame) -> bool:
    after = frame.start + frame.length_bytes
    return after == len(data) or _frame_at(data, after) is not None


def _frame_at(data: Bytes, at: int) -> Frame | None:
    """The whole frame that starts at `at`."""
    frame = _frame_of(data[at : at + 4], at)
    return frame if frame is not None and at + frame.length_bytes <= len(data) else None


def _frame_of(header: bytes, at: int) -> Frame | None:
    """What four bytes say, if they are a layer III header."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, index, rate_index = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version not in _RATES or rate_index == 3 or not 0 < index < 15:
        return None
    samples = 1152 if _is_first_version(header) else 576
    bits = _KILOBITS[_is_first_version(header)][index] * 1000
    length = samples // 8 * bits // _RATES[version][rate_index] + (header[2] >> 1 & 1)
    return Frame(at, length, samples, header)


def _is_first_version(header: bytes) -> bool:
    return header[1] >> 3 & 3 == 3


def _stating(stream: Stream) -> bytes:
    """A silent frame that states how many frames follow: as the stream's first, with room for it and no checksum."""
    like = stream.first.header
    index = _KILOBITS[_is_first_version(like)].index(_ROOMY_KILOBITS)
    header = bytes((like[0], like[1] | 1, index << 4 | like[2] & 0x0C, like[3]))
    frame = _frame_of(header, 0)
    if frame is None or stream.counted is None:
        raise ValueError("only a counted stream can state its length")
    tag = b"Xing" + _FRAMES_GIVEN.to_bytes(4) + stream.counted.to_bytes(4)
    return (header.ljust(frame.tag_offset, b"\0") + tag).ljust(frame.length_bytes, b"\0")
