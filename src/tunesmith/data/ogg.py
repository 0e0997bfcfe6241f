"""Pages of the OGG container (RFC 3533): where a file ends, and a stream serial number that does not change. No torch.

libsndfile draws each file's serial number from the clock, so writing the same sound twice gives other bytes. Here the
number is derived from the contents instead, and the pages' checksums are made again.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CAPTURE = b"OggS"
_HEADER_BYTES = 27
_GRANULE = slice(6, 14)
_SERIAL = slice(14, 18)
_CHECKSUM = slice(22, 26)
_END_OF_STREAM = 0x04
_LARGEST_PAGE_BYTES = _HEADER_BYTES + 255 + 255 * 255
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


@dataclass(frozen=True)
class Ending:
    """A file's last whole page: its stream's serial number, and whether it says that its stream ends.

    `samples` counts from the end of the page before, in the stream's units (Vorbis: samples); None: that is not known.
    """

    serial: int
    ends_stream: bool
    samples: int | None


def checksum(page: bytes | bytearray) -> int:
    """An OGG page's CRC-32: polynomial 0x04C11DB7, highest bit first, start and end 0 (RFC 3533, section 6)."""
    # zlib has the same polynomial with bits reversed, and inverts before and after.
    reflected = zlib.crc32(bytes(page).translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def first_serial(path: Path) -> int | None:
    """The serial number of a file's first page; None where the file starts with no page."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    return _serial_of(head) if len(head) == _HEADER_BYTES and head.startswith(CAPTURE) else None


def ending(path: Path) -> Ending | None:
    """The last page that is whole by its checksum, looked for in the room of the last pages; None: there is none."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 2 * _LARGEST_PAGE_BYTES))
        tail = file.read()
    pages = _pages_backwards(tail)
    last = next(pages, None)
    if last is None:
        return None
    serial = _serial_of(last)
    before = next((_granule_of(page) for page in pages if _serial_of(page) == serial and _granule_of(page) >= 0), None)
    samples = None if before is None else _granule_of(last) - before
    return Ending(serial, bool(last[5] & _END_OF_STREAM), samples)


def _pages_backwards(data: bytes) -> Iterator[bytes]:
    at = data.rfind(CAPTURE)
    while at >= 0:
        page = data[at : at + _page_bytes(data, at)]
        if page and checksum(_blank(page)) == int.from_bytes(page[_CHECKSUM], "little"):
            yield page
        at = data.rfind(CAPTURE, 0, at)


def settle_serial(data: bytearray) -> None:
    """Give the pages of one stream a serial number that follows from their contents, in place.

    The same packets thus give the same bytes, other packets (nearly surely) another number, as chaining needs.
    Raises ValueError where `data` is no row of whole pages.
    """
    pages = list(_pages(data))
    serial = 0
    for start, stop in pages:
        data[start:stop] = _blank(data[start:stop])
        data[start + _SERIAL.start : start + _SERIAL.stop] = bytes(4)
        serial = zlib.crc32(data[start:stop], serial)
    for start, stop in pages:
        data[start + _SERIAL.start : start + _SERIAL.stop] = struct.pack("<I", serial)
        value = checksum(data[start:stop])
        data[start + _CHECKSUM.start : start + _CHECKSUM.stop] = struct.pack("<I", value)


def _pages(data: bytearray) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(data):
        length = _page_bytes(data, at)
        if not length:
            raise ValueError(f"no whole OGG page at byte {at}")
        yield at, at + length
        at += length


def _page_bytes(data: Sequence[int], at: int) -> int:
    """The length of the page that starts at `at`; 0 where none does, or its end is missing."""
    if bytes(data[at : at + 5]) != CAPTURE + b"\0" or at + _HEADER_BYTES > len(data):
        return 0
    segments = data[at + _HEADER_BYTES - 1]
    table = data[at + _HEADER_BYTES : at + _HEADER_BYTES + segments]
    length = _HEADER_BYTES + segments + sum(table)
    return length if at + length <= len(data) else 0


def _serial_of(page: bytes) -> int:
    return int.from_bytes(page[_SERIAL], "little")


def _granule_of(page: bytes) -> int:
    """How many samples the stream has after this page; -1 where no packet ends in it."""
    return int.from_bytes(page[_GRANULE], "little", signed=True)


def _blank(page: bytes | bytearray) -> bytearray:
    """The page with its checksum 0, as the checksum is taken."""
    blank = bytearray(page)
    blank[_CHECKSUM] = bytes(4)
    return blank
