"""What is written is read back: exactly where the format can, with the same bytes each time, or not at all."""

from __future__ import annotations

import errno
import os
import struct
import threading
import wave

import numpy as np
import pytest
import soundfile

from tunesmith.data.audio import read_audio, read_audio_header, write_audio
from tunesmith.errors import DataError, DiskFull

NOISE = np.random.default_rng(0).standard_normal((2, 24_000)) * 0.2


def integers(path) -> np.ndarray:
    """A WAV's PCM as [channels, samples] by the standard library."""
    with wave.open(str(path)) as file:
        width, data = file.getsampwidth(), file.readframes(file.getnframes())
        values = np.frombuffer(data, np.uint8).reshape(-1, width).astype(np.int64)
        whole = sum(values[:, at] << 8 * at for at in range(width))
        return np.where(whole >> (8 * width - 1), whole - (1 << 8 * width), whole).reshape(-1, file.getnchannels()).T


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", 16), ("PCM_24", 24)])
@pytest.mark.parametrize("end", [".wav", ".flac"])
def test_every_integer_comes_back(tmp_path, subtype, bits, end):
    top = 1 << bits - 1
    steps = np.concatenate([np.arange(-top, top, 1 if bits == 16 else 509), [top - 1]])
    path = write_audio(tmp_path / f"a{end}", (steps / top)[None].astype(np.float32), 8000, subtype=subtype)
    samples, _ = read_audio(path)
    np.testing.assert_array_equal(samples[0] * np.float32(top), steps)
    if end == ".wav":
        np.testing.assert_array_equal(integers(path)[0], steps)


def test_rounding_and_limits(tmp_path):
    steps = np.array([0.4, 0.6, 0.5, 1.5, -0.4, -0.6, -1.5, 32_766.4])
    sound = np.concatenate([steps / 32_768, [1.0, 1.7, -1.0, -9.0]])
    path = write_audio(tmp_path / "a.wav", sound[None], 8000)
    assert integers(path)[0].tolist() == [0, 1, 0, 2, 0, -1, -2, 32_766, 32_767, 32_767, -32_768, -32_768]


def test_float_is_left_alone(tmp_path):
    sound = np.array([[1e-30, 1.7, -3.0, 0.1]], dtype=np.float32)
    path = write_audio(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(path)[0], sound)


@pytest.mark.parametrize("end", [".ogg", ".opus", ".mp3", ".flac"])
def test_what_is_coded_is_limited(tmp_path, end):
    square = np.sign(np.sin(2 * np.pi * 100 * np.arange(24_000) / 24_000))[None]
    loud, full = (write_audio(tmp_path / f"{name}{end}", gain * square, 24_000) for name, gain in (("a", 9), ("b", 1)))
    assert loud.read_bytes() == full.read_bytes()


CODED = [
    ("a.wav", {}),
    ("a.wav", {"subtype": "FLOAT"}),
    ("a.flac", {"subtype": "PCM_24"}),
    ("a.ogg", {}),
    ("a.oga", {"quality": 2}),
    ("a.ogg", {"subtype": "OPUS"}),
    ("a.opus", {"bitrate_kbps": 96}),
    ("a.mp3", {}),
]


@pytest.mark.parametrize(("name", "options"), CODED)
def test_the_same_sound_gives_the_same_bytes(tmp_path, name, options, monkeypatch):
    first = write_audio(tmp_path / name, NOISE, 24_000, **options).read_bytes()
    assert write_audio(tmp_path / name, NOISE, 24_000, **options).read_bytes() == first
    assert write_audio(tmp_path / f"deep/er/{name}", NOISE.copy(order="F"), 24_000, **options).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "deep"]


def test_no_time_in_a_float_wav(tmp_path):
    data = write_audio(tmp_path / "a.wav", NOISE, 24_000, subtype="FLOAT").read_bytes()
    at = data.index(b"PEAK")
    assert struct.unpack_from("<II", data, at + 8) == (1, 0)  # version, time stamp


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("a.mp3", 0.1), *((f"a{end}", long) for end in (".wav", ".flac", ".ogg") for long in (0.1, 600))],
)
def test_short_and_long(tmp_path, name, seconds):
    t = np.arange(round(seconds * 8000)) / 8000
    sound = 0.5 * np.sin(2 * np.pi * 440 * t)[None]
    path = write_audio(tmp_path / name, sound, 8000)
    assert read_audio_header(path)["seconds"] == pytest.approx(seconds)
    piece, _ = read_audio(path, start_seconds=seconds / 2, seconds=0.04)
    first = round(seconds * 4000)
    assert np.corrcoef(piece[0], sound[0, first : first + 320])[0, 1] > 0.99


def test_a_minute_of_stereo_vorbis(tmp_path):
    """In one call this ends the process; in small blocks it works even in a thread with little room."""
    t = np.arange(60 * 44_100) / 44_100
    sound = np.stack([0.5 * np.sin(2 * np.pi * 440 * t), 0.3 * np.sin(2 * np.pi * (100 + 20 * t) * t)])
    before = threading.stack_size(512 * 1024)
    thread = threading.Thread(target=write_audio, args=(tmp_path / "a.ogg", sound, 44_100))
    thread.start()
    threading.stack_size(before)
    thread.join()
    samples, rate = read_audio(tmp_path / "a.ogg")
    assert (samples.shape, rate) == (sound.shape, 44_100)
    assert np.sqrt(np.mean((samples - sound) ** 2)) < 0.01


@pytest.mark.parametrize(("quality", "kilobits"), [(0, 64), (5, 160), (None, 160), (10, 500)])
def test_vorbis_quality_counts_as_oggenc(tmp_path, quality, kilobits):
    """The nominal bit rates of stereo at 44.1 kHz, as Xiph lists them, stand in the identification header."""
    data = write_audio(tmp_path / "a.ogg", NOISE, 44_100, quality=quality).read_bytes()
    assert struct.unpack_from("<i", data, data.index(b"\x01vorbis") + 20)[0] / 1000 == pytest.approx(kilobits, rel=1e-3)


MP3_STEPS = [(44_100, 32), (48_000, 320), (32_000, 128), (44_100, None), (22_050, 8), (16_000, 160), (24_000, None)]


@pytest.mark.parametrize(("rate", "kilobits"), [*MP3_STEPS, (8000, 64), (11_025, 8), (12_000, 40), (8000, None)])
def test_mp3_bit_rates(tmp_path, rate, kilobits):
    path = write_audio(tmp_path / "a.mp3", np.tile(NOISE, 4)[:, : 2 * rate], rate, bitrate_kbps=kilobits)
    usual = 192 if rate >= 32_000 else 160 if rate >= 16_000 else 64
    frames, per_frame = 2 * rate / (1152 if rate >= 32_000 else 576), 1152 if rate >= 32_000 else 576
    size = (frames + 3) * per_frame / rate * (kilobits or usual) * 125  # silence around, the stating frame
    assert path.stat().st_size == pytest.approx(size, rel=0.03)


def test_opus_bit_rates(tmp_path):
    sizes = [
        write_audio(tmp_path / "a.opus", NOISE, 24_000, bitrate_kbps=rate).stat().st_size for rate in (16, 64, 256)
    ]
    assert np.all(np.array(sizes) < np.array([16, 64, 256]) * 125 * 1.3 + 2000)
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("a.aiff", {}, "names no format we write"),
        ("a", {}, "names no format we write"),
        ("a.flac", {"subtype": "FLOAT"}, "PCM_16, PCM_24"),
        ("a.opus", {"rate": 44_100}, "8000, 12000, 16000, 24000, 48000 Hz. Resample first"),
        ("a.ogg", {"rate": 22_050, "subtype": "OPUS"}, "48000 Hz. Resample first"),
        ("a.ogg", {"rate": 384_000}, "1000 to 200000 Hz"),
        ("a.mp3", {"rate": 96_000}, "48000 Hz. Resample first, or write a WAV"),
        ("a.wav", {"rate": 500}, "1000 to 384000 Hz"),
        ("a.mp3", {"bitrate_kbps": 100, "rate": 44_100}, "96, 112"),
        ("a.mp3", {"bitrate_kbps": 256, "rate": 22_050}, "144, 160"),
        ("a.opus", {"bitrate_kbps": 600, "rate": 48_000}, "12 to 512"),
        ("a.ogg", {"quality": 11}, "0 to 10"),
        ("a.wav", {"quality": 5}, "no quality setting"),
        ("a.ogg", {"bitrate_kbps": 128}, "no bit rate setting"),
        ("a.mp3", {"samples": np.zeros((3, 10))}, "at most 2"),
        ("a.flac", {"samples": np.zeros((9, 10))}, "at most 8"),
        ("a.wav", {"samples": np.zeros((2, 0))}, "are none"),
        ("a.wav", {"samples": np.array([[0.0, np.nan]])}, "NaN or Inf"),
    ],
)
def test_refused(tmp_path, name, options, what):
    samples, rate = options.pop("samples", NOISE), options.pop("rate", 8000)
    with pytest.raises(DataError) as caught:
        write_audio(tmp_path / name, samples, rate, **options)
    assert what in caught.value.message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("samples", [np.zeros(10), np.zeros((1, 10), np.int16)])
def test_samples_of_another_shape_or_kind(tmp_path, samples):
    with pytest.raises(ValueError, match="channels, samples"):
        write_audio(tmp_path / "a.wav", samples, 8000)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EACCES, DataError)])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, number, kind):
    (tmp_path / "a.wav").write_bytes(b"old")

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind):
        write_audio(tmp_path / "a.wav", NOISE, 8000)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_audio(tmp_path / "a.wav", NOISE, 8000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_other_readers_agree(tmp_path):
    path = write_audio(tmp_path / "a.ogg", NOISE, 24_000)
    samples, rate = soundfile.read(path)
    assert (samples.shape, rate) == ((24_000, 2), 24_000)
