"""MP3s are as long as what they hold, whether they say so or not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tunesmith.data.audio import read_audio, read_audio_header, write_audio
from tunesmith.data.mpeg import Stated, read_stream
from tunesmith.errors import DataError

ENCODER_DELAY = 576  # LAME's, which a player only knows from the stated header
DECODER_DELAY = 529


def changing(seconds: float, rate: int, channels: int) -> np.ndarray:
    """Silence, then noise: the bit rate of the first frame says nothing about the others."""
    noise = np.random.default_rng(0).standard_normal((channels, round(seconds * rate)))
    return 0.2 * noise * (np.arange(noise.shape[1]) > noise.shape[1] / 3)


def unstated(path: Path, sound: np.ndarray, rate: int) -> tuple[Path, int]:
    """An MP3 of variable bit rate whose stating frame is cut off, tags around it, and its number of frames."""
    soundfile.write(path, sound.T, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    stream = read_stream(path)
    assert stream is not None
    first = stream.first
    tag = b"ID3\x04\0\0\0\0\x01\x00" + b"\xff\xfb" * 64
    cut = path.with_name(f"unstated_{path.name}")
    cut.write_bytes(tag + path.read_bytes()[first.start + first.length_bytes :] + b"TAG".ljust(128, b"\0"))
    return cut, stream.claimed


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [48_000, 44_100, 22_050, 11_025, 8000])
def test_frames_are_counted_where_no_length_is_stated(tmp_path, rate, channels):
    path, frames = unstated(tmp_path / "a.mp3", changing(4, rate, channels), rate)
    assert (read_stream(path).claimed, read_stream(path).counted) == (None, frames)
    length = frames * (1152 if rate >= 32_000 else 576) - DECODER_DELAY
    assert read_audio_header(path)["seconds"] == pytest.approx(length / rate)
    samples, _ = read_audio(path)
    stated, _ = read_audio(tmp_path / "a.mp3")
    assert samples.shape == (channels, length)
    assert stated.shape == (channels, 4 * rate)
    same = min(stated.shape[1], length - ENCODER_DELAY) - 2000  # the end of the last frames is cut in one only
    np.testing.assert_allclose(samples[:, ENCODER_DELAY:][:, :same], stated[:, :same], atol=1e-6)


def test_libsndfile_alone_would_lose_sound(tmp_path):
    """Why frames are counted; if this ever fails, the counting may go."""
    path, _ = unstated(tmp_path / "a.mp3", changing(4, 44_100, 2), 44_100)
    assert abs(soundfile.info(path).frames / 44_100 - 4) > 0.5


def test_truncated(tmp_path):
    write_audio(tmp_path / "a.mp3", changing(3, 44_100, 2), 44_100)
    data = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "b.mp3").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"b\.mp3 is truncated: it claims 1\d\d MP3 frames"):
        read_audio_header(tmp_path / "b.mp3")


def test_the_last_frame_may_lack(tmp_path):
    write_audio(tmp_path / "a.mp3", changing(3, 44_100, 1), 44_100)
    (tmp_path / "b.mp3").write_bytes((tmp_path / "a.mp3").read_bytes()[:-100])
    samples, _ = read_audio(tmp_path / "b.mp3")
    assert 3 * 44_100 - 2 * 1152 <= samples.shape[1] < 3 * 44_100


def test_damage_between_frames_is_skipped(tmp_path):
    # 32 kbit/s at 48 kHz: 96 bytes a frame, none stating the length
    path = write_audio(tmp_path / "a.mp3", changing(2, 48_000, 1), 48_000, bitrate_kbps=32)
    frames = read_stream(path).counted
    data = path.read_bytes()
    path.write_bytes(data[:960] + b"\0junk\xff\xfb\x14\0" * 20 + data[960:])
    assert read_stream(path).counted == frames == len(data) // 96


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xfb\x90\x64", b"ID3\x04\0\0\0\0\0\x05", bytes(1000)])
def test_no_mp3(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    assert read_stream(tmp_path / "a") is None


def test_noise_is_no_mp3(tmp_path):
    (tmp_path / "a").write_bytes(np.random.default_rng(0).bytes(1 << 20))
    assert read_stream(tmp_path / "a") is None


def test_stated_file_reads_and_seeks_as_files_do(tmp_path):
    path, _ = unstated(tmp_path / "a.mp3", changing(1, 44_100, 1), 44_100)
    stream = read_stream(path)
    with path.open("rb") as file:
        stated = Stated(file, stream)
        every = stated.read()
        assert every.endswith(path.read_bytes()[stream.first.start :])
        plain = io.BytesIO(every)
        for offset, whence, count in [(0, 0, 10), (5, 1, 300), (-50, 2, 100), (100, 0, 0), (-10, 1, 7), (50, 2, 4)]:
            assert stated.seek(offset, whence) == plain.seek(offset, whence)
            assert stated.read(count) == plain.read(count)
            assert stated.tell() == plain.tell()
