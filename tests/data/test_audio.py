"""Sound headers: what is read, and claims that are not believed."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import pytest

from tunesmith.data.audio import read_audio_header
from tunesmith.errors import DataError


def write(path: Path, *, channels=1, width=2, rate=8000, frames=400) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(b"\0" * (frames * channels * width))
    return path


@pytest.mark.parametrize(("channels", "width", "rate"), [(1, 2, 8000), (2, 3, 44_100), (6, 4, 48_000), (1, 1, 11_025)])
def test_header(tmp_path, channels, width, rate):
    path = write(tmp_path / "a.wav", channels=channels, width=width, rate=rate)
    assert read_audio_header(path) == {"seconds": 400 / rate, "rate": rate, "channels": channels, "format": "WAV"}


def wav_claiming(*, channels=1, rate=8000, data_bytes=8, width=2) -> bytes:
    form = struct.pack(
        "<HHIIHH", 1, channels, rate, rate * channels * width % 2**32, channels * width % 2**16, 8 * width
    )
    body = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", data_bytes) + b"\0" * 8
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "no sound"),
        (b"ID3garbage", "no sound"),
        (b"RIFF\0\0\0\0WAVE", "no sound"),
        (wav_claiming(data_bytes=4_000_000_000), "truncated"),
        (wav_claiming(channels=65_535), "65535 channels"),
        (wav_claiming(channels=0), "no sound"),
        (wav_claiming(rate=0), "0 Hz"),
        (wav_claiming(data_bytes=0)[:-8], "0 seconds"),
    ],
)
def test_refused(tmp_path, data, what):
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(DataError, match=what) as caught:
        read_audio_header(tmp_path / "a.wav")
    assert "a.wav" in caught.value.found


def test_missing(tmp_path):
    with pytest.raises(DataError, match="no sound"):
        read_audio_header(tmp_path / "a.wav")
