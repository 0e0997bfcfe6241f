"""Sounds are read as they are, at any rate, from anywhere in the file; claims that do not hold are not believed."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tunesmith.data import audio
from tunesmith.data.audio import AUDIO_EXTENSIONS, read_audio, read_audio_header, write_audio
from tunesmith.errors import DataError


def write(path: Path, *, channels=1, width=2, rate=8000, frames=400) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(b"\0" * (frames * channels * width))
    return path


def sine(hertz: float, seconds: float, rate: int, *, level=0.5, channels=1) -> np.ndarray:
    one = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(one[None], channels, axis=0)


def noisy_sweep(seconds: float, rate: int, channels=2) -> np.ndarray:
    """Something that is nowhere like itself, so that a shift shows."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal((channels, len(t)))
    return 0.4 * np.sin(2 * np.pi * (200 + 300 * t) * t) + 0.1 * noise


def whole_in_one(path: Path) -> np.ndarray:
    """The file by one call of soundfile, so without a seek."""
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def refusal(path: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        read_audio(path, **options)
    assert path.name in caught.value.found
    return caught.value.message


# ---------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("channels", "width", "rate", "subtype"),
    [(1, 2, 8000, "PCM_16"), (2, 3, 44_100, "PCM_24"), (6, 4, 48_000, "PCM_32"), (1, 1, 11_025, "PCM_U8")],
)
def test_header(tmp_path, channels, width, rate, subtype):
    path = write(tmp_path / "a.wav", channels=channels, width=width, rate=rate)
    expected = {"seconds": 400 / rate, "rate": rate, "channels": channels, "format": "WAV", "subtype": subtype}
    assert read_audio_header(path) == expected


FILES = [
    ("a.wav", "WAV", "FLOAT", "WAV"),
    ("b.wav", "WAVEX", "PCM_16", "WAV"),
    ("c.wav", "RF64", "PCM_16", "WAV"),
    ("d.wav", "WAV", "ULAW", "WAV"),
    ("a.flac", "FLAC", "PCM_24", "FLAC"),
    ("a.aiff", "AIFF", "PCM_24", "AIFF"),
    ("b.aif", "AIFF", "FLOAT", "AIFF"),
    ("a.ogg", "OGG", "VORBIS", "OGG"),
    ("a.opus", "OGG", "OPUS", "OGG"),
    ("a.mp3", "MP3", "MPEG_LAYER_III", "MP3"),
    ("really_flac.wav", "FLAC", "PCM_16", "FLAC"),
]


@pytest.mark.parametrize(("name", "container", "subtype", "kind"), FILES)
def test_every_format_by_its_content(tmp_path, name, container, subtype, kind):
    sound = noisy_sweep(1.5, 24_000)
    soundfile.write(tmp_path / name, sound.T, 24_000, subtype, format=container)
    expected = {"seconds": 1.5, "rate": 24_000, "channels": 2, "format": kind, "subtype": subtype}
    assert read_audio_header(tmp_path / name) == expected
    samples, rate = read_audio(tmp_path / name)
    assert (samples.shape, samples.dtype, rate) == ((2, 36_000), np.float32, 24_000)
    assert Path(name).suffix in AUDIO_EXTENSIONS
    assert np.corrcoef(samples.ravel(), sound.ravel())[0, 1] > (0.95 if kind in ("OGG", "MP3") else 0.999)


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
        (b"FORM\0\0\0\0AIFFCOMM", "no sound"),
        (bytes(range(256)) * 64, "no sound"),
        (wav_claiming(data_bytes=4_000_000_000), "truncated"),
        (wav_claiming(data_bytes=10), "truncated"),
        (wav_claiming(data_bytes=2**32 - 1), "truncated"),
        (wav_claiming(channels=65_535), "65535 channels"),
        (wav_claiming(channels=33), "33 channels"),
        (wav_claiming(channels=0), "0 channels"),
        (wav_claiming(rate=0), "0 Hz"),
        (wav_claiming(rate=400_000), "400000 Hz"),
        (wav_claiming(data_bytes=0)[:-8], "0 seconds"),
        (wav_claiming(data_bytes=0), "0 seconds"),
    ],
)
def test_refused(tmp_path, data, what):
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(DataError, match=what) as caught:
        read_audio_header(tmp_path / "a.wav")
    assert "a.wav" in caught.value.found
    assert what in refusal(tmp_path / "a.wav")


def test_missing(tmp_path):
    with pytest.raises(DataError, match="no sound"):
        read_audio_header(tmp_path / "a.wav")


def test_folder(tmp_path):
    with pytest.raises(DataError, match="no sound"):
        read_audio_header(tmp_path)


def test_format_we_do_not_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000, format="AU", subtype="PCM_16")
    assert "it is AU" in refusal(tmp_path / "a.wav")


def test_too_long(tmp_path):
    # 5 hours at 1 kHz and 8 bits; the sparse end takes no room
    with (tmp_path / "a.wav").open("wb") as file:
        file.write(wav_claiming(rate=1000, width=1, data_bytes=5 * 3_600_000))
        file.truncate(36 + 8 + 5 * 3_600_000)
    assert "18000 seconds" in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize("kept", [0.5, 0.97])
@pytest.mark.parametrize(("name", "container", "subtype", "kind"), [row for row in FILES if row[0] != "a.mp3"])
def test_truncated_files_are_no_shorter_sounds(tmp_path, name, container, subtype, kind, kept):
    soundfile.write(tmp_path / "whole", noisy_sweep(2, 24_000).T, 24_000, subtype, format=container)
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
    assert "truncated" in refusal(tmp_path / name)


def test_flac_of_unknown_length(tmp_path):
    soundfile.write(tmp_path / "a.flac", noisy_sweep(1, 8000).T, 8000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # the 36 bits of the number of samples in STREAMINFO
    (tmp_path / "a.flac").write_bytes(data)
    assert "how long" in refusal(tmp_path / "a.flac")


def test_flac_damaged_inside(tmp_path):
    soundfile.write(tmp_path / "a.flac", noisy_sweep(4, 8000).T, 8000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.flac").write_bytes(data)
    assert read_audio_header(tmp_path / "a.flac")["seconds"] == 4
    assert "damaged" in refusal(tmp_path / "a.flac")


def test_ogg_streams_one_after_another(tmp_path):
    soundfile.write(tmp_path / "a.ogg", noisy_sweep(0.5, 8000).T, 8000)
    soundfile.write(tmp_path / "b.ogg", noisy_sweep(0.6, 8000).T, 8000)
    (tmp_path / "c.ogg").write_bytes((tmp_path / "a.ogg").read_bytes() + (tmp_path / "b.ogg").read_bytes())
    assert "several streams" in refusal(tmp_path / "c.ogg")


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize("hertz", [50, 1000, 15_000])
def test_resampled_sine_is_the_sine_of_the_other_rate(tmp_path, hertz):
    write_audio(tmp_path / "a.wav", sine(hertz, 0.5, 48_000, channels=2), 48_000, subtype="FLOAT")
    samples, rate = read_audio(tmp_path / "a.wav", rate=44_100)
    assert (samples.shape, rate) == ((2, 22_050), 44_100)
    # Away from the ends, where a filter sees the silence around the file; -94 dB, soxr's HQ promises 100 dB and more.
    inner = slice(1000, -1000)
    np.testing.assert_allclose(samples[:, inner], sine(hertz, 0.5, 44_100, channels=2)[:, inner], atol=2e-5)


def test_what_the_new_rate_cannot_hold_is_gone(tmp_path):
    write_audio(tmp_path / "a.wav", sine(7000, 0.5, 48_000), 48_000, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "a.wav", rate=8000)[0][:, 500:-500]).max() < 1e-4


@pytest.mark.parametrize("rate", [None, 22_050, 44_100, 44_099])
@pytest.mark.parametrize("start", [0.0, 0.001, 0.7, 1.23456, 1.95])
def test_a_piece_is_what_the_whole_gives_there(tmp_path, rate, start):
    write_audio(tmp_path / "a.wav", noisy_sweep(2, 48_000), 48_000, subtype="FLOAT")
    whole, at = read_audio(tmp_path / "a.wav", rate=rate)
    piece, _ = read_audio(tmp_path / "a.wav", rate=rate, start_seconds=start, seconds=0.25)
    first = round(start * at)
    assert piece.shape[1] == min(round(0.25 * at), whole.shape[1] - first)
    # soxr computes in float32, and at 44,099 Hz interpolates its filter
    np.testing.assert_allclose(piece, whole[:, first : first + piece.shape[1]], atol=5e-6)


@pytest.mark.parametrize(("held", "wanted", "rows"), [(1, 2, [0, 0]), (6, 2, [0, 1]), (2, 2, [0, 1]), (1, 3, [0] * 3)])
def test_channels(tmp_path, held, wanted, rows):
    sound = np.random.default_rng(1).uniform(-1, 1, (held, 500))
    write_audio(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", channels=wanted)[0], sound.astype(np.float32)[rows])


def test_mono_is_the_mean(tmp_path):
    sound = np.random.default_rng(1).uniform(-1, 1, (6, 500))
    write_audio(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", channels=1)[0][0], sound.mean(0), atol=1e-6)


@pytest.mark.parametrize(("held", "right"), [(3, 2), (4, 1), (6, 2)])
def test_left_and_right_of_vorbis_surround(tmp_path, held, right):
    """Vorbis orders three channels left, centre, right, and four front left, front right and the rear ones."""
    tones = np.concatenate([sine(400.0 * (1 + row), 1, 16_000, level=0.3) for row in range(held)])
    write_audio(tmp_path / "a.ogg", tones, 16_000, quality=8)
    samples, _ = read_audio(tmp_path / "a.ogg", channels=2)
    loudest = np.abs(np.fft.rfft(samples)).argmax(1)
    assert loudest.tolist() == [400, 400 * (1 + right)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite(tmp_path, bad):
    sound = np.zeros(8000, np.float32)
    sound[4000] = bad
    soundfile.write(tmp_path / "a.wav", sound, 8000, "FLOAT")
    assert "NaN or Inf at 0.5000 seconds" in refusal(tmp_path / "a.wav")
    assert read_audio(tmp_path / "a.wav", seconds=0.5)[0].shape == (1, 4000)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"start_seconds": 0.05}, "nothing is left"),
        ({"start_seconds": -1.0}, "start of 0 or more"),
        ({"start_seconds": math.nan}, "start of 0 or more"),
        ({"seconds": 0.0}, "length above 0"),
        ({"seconds": math.inf}, "length above 0"),
        ({"seconds": 1e-6}, "nothing is left"),
        ({"rate": 500}, "500 Hz"),
        ({"channels": 0}, "cannot become 0"),
        ({"channels": 33}, "cannot become 33"),
    ],
)
def test_pieces_that_are_not_there(tmp_path, options, what):
    assert what in refusal(write(tmp_path / "a.wav"), **options)


def test_channels_are_not_invented(tmp_path):
    assert "cannot become 4" in refusal(write(tmp_path / "a.wav", channels=6), channels=4)


@pytest.mark.parametrize(
    ("rate", "kbps", "delay"),
    # Where no length is stated (frames too small for it), libsndfile alone leaves the decoder's delay in.
    [(44_100, 192, 0), (44_100, 32, 529), (22_050, 8, 529), (8000, 16, 529)],
)
def test_mp3_pieces_have_the_right_samples(tmp_path, rate, kbps, delay, monkeypatch):
    """At low bit rates a frame needs many before it; a plain seek gives errors near full scale."""
    monkeypatch.setattr(audio, "_BLOCK_FRAMES", 20_000)
    write_audio(tmp_path / "a.mp3", noisy_sweep(5, rate, 1), rate, bitrate_kbps=kbps)
    whole, _ = read_audio(tmp_path / "a.mp3")
    plain = whole_in_one(tmp_path / "a.mp3")[:, delay:]
    assert whole.shape[1] >= 5 * rate
    np.testing.assert_allclose(whole[:, : 5 * rate], plain[:, : 5 * rate], atol=1e-6)
    for start in (0.01, 2.3, 3.77, 4.9):
        piece, _ = read_audio(tmp_path / "a.mp3", start_seconds=start, seconds=0.2)
        first = round(start * rate)
        np.testing.assert_allclose(piece, whole[:, first : first + piece.shape[1]], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "seconds"),
    [("a.ogg", 44_100, 2, 3), ("a.ogg", 22_050, 1, 8), ("a.ogg", 8000, 1, 30), ("a.opus", 48_000, 2, 3)],
)
def test_ogg_pieces_have_the_right_samples(tmp_path, name, rate, channels, seconds):
    """A plain seek into the last page of a Vorbis file lands beside its target."""
    write_audio(tmp_path / name, noisy_sweep(seconds, rate, channels), rate)
    whole = whole_in_one(tmp_path / name)
    for start in np.linspace(0, seconds, 40, endpoint=False):
        piece, _ = read_audio(tmp_path / name, start_seconds=float(start), seconds=0.05)
        first = round(start * rate)
        np.testing.assert_allclose(piece, whole[:, first : first + piece.shape[1]], atol=1e-6)


def test_memory_is_that_of_the_piece(tmp_path):
    write_audio(tmp_path / "a.wav", sine(100, 600, 8000), 8000)  # 19 MB as float32
    read_audio(tmp_path / "a.wav", rate=11_025, start_seconds=300, seconds=1)
    tracemalloc.start()
    read_audio(tmp_path / "a.wav", rate=11_025, start_seconds=300, seconds=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_importing_is_cheap():
    code = (
        "import sys, tunesmith.data.audio\n"
        "assert not {'soundfile', 'soxr', 'numpy', 'scipy', 'torch'} & set(sys.modules), 'heavy imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
