"""OGG pages: checksums as the format defines them, a serial number that follows from the contents, the file's end."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile

from tunesmith.data.ogg import checksum, ending, first_serial, settle_serial


def bitwise_checksum(page: bytes) -> int:
    """RFC 3533 section 6, bit by bit."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def pages(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        segments = data[at + 26]
        length = 27 + segments + sum(data[at + 27 : at + 27 + segments])
        found.append(data[at : at + length])
        at += length
    return found


@pytest.fixture
def stream(tmp_path):
    noise = np.random.default_rng(0).standard_normal(40_000) * 0.1
    soundfile.write(tmp_path / "a.ogg", noise, 8000)
    return tmp_path / "a.ogg"


def test_checksum():
    data = np.random.default_rng(0).bytes(500)
    assert [checksum(data[:count]) for count in (0, 1, 7, 500)] == [
        bitwise_checksum(data[:count]) for count in (0, 1, 7, 500)
    ]


def test_settled_pages_are_whole_and_still_the_same_sound(stream):
    before = soundfile.read(stream)[0]
    data = bytearray(stream.read_bytes())
    settle_serial(data)
    stream.write_bytes(data)
    for page in pages(bytes(data)):
        assert struct.unpack_from("<I", page, 22)[0] == bitwise_checksum(page[:22] + bytes(4) + page[26:])
    assert len({page[14:18] for page in pages(bytes(data))}) == 1
    np.testing.assert_array_equal(soundfile.read(stream)[0], before)


def test_settling_forgets_the_old_number_and_happens_once(stream):
    data = bytearray(stream.read_bytes())
    other = bytearray(data)
    at = 0
    for page in pages(bytes(data)):
        other[at + 14 : at + 18] = b"abcd"
        at += len(page)
    settle_serial(data)
    settle_serial(other)
    assert data == other
    again = bytearray(data)
    settle_serial(again)
    assert again == data


def test_other_contents_have_another_number(stream, tmp_path):
    soundfile.write(tmp_path / "b.ogg", np.zeros(8000), 8000)
    numbers = []
    for path in (stream, tmp_path / "b.ogg"):
        data = bytearray(path.read_bytes())
        settle_serial(data)
        numbers.append(bytes(data[14:18]))
    assert numbers[0] != numbers[1]


def test_only_whole_pages_are_settled(stream):
    with pytest.raises(ValueError, match="no whole OGG page"):
        settle_serial(bytearray(stream.read_bytes()[:-1]))


def test_ending(stream, tmp_path):
    data = stream.read_bytes()
    serial = struct.unpack_from("<I", data, 14)[0]
    granules = [struct.unpack_from("<q", page, 6)[0] for page in pages(data)]
    end = ending(stream)
    assert (end.serial, end.ends_stream, end.samples) == (serial, True, granules[-1] - granules[-2])
    assert first_serial(stream) == serial
    for name, contents, ends in (("tail", data + b"OggS\0junk", True), ("cut", data[:-1], False)):
        (tmp_path / name).write_bytes(contents)
        assert ending(tmp_path / name).ends_stream is ends


def test_no_pages(tmp_path):
    (tmp_path / "a").write_bytes(b"OggS but no page")
    assert ending(tmp_path / "a") is None
    assert first_serial(tmp_path / "a") is None
