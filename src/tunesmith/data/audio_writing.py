"""Float samples become sound files, whole or not at all; the same samples give the same bytes. No torch."""

from __future__ import annotations

import errno
import io
import os
import struct
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.ogg import settle_serial
from tunesmith.errors import DataError, DiskFull

if TYPE_CHECKING:
    from numpy.typing import NDArray

# libsndfile takes its room for a block of Vorbis from the stack: a whole minute at once is a crash, this much is fine
# in a thread of 256 KiB. A fixed size, since the bytes depend on it.
_BLOCK_FRAMES = 16_384
_SUBTYPES: Mapping[str, tuple[str, ...]] = {
    ".wav": ("PCM_16", "PCM_24", "FLOAT"),
    ".flac": ("PCM_16", "PCM_24"),
    ".ogg": ("VORBIS", "OPUS"),
    ".oga": ("VORBIS", "OPUS"),
    ".opus": ("OPUS",),
    ".mp3": ("MPEG_LAYER_III",),
}
_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".mp3": "MP3"}
_BITS = {"PCM_16": 16, "PCM_24": 24}
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
# By the lowest rate in Hz they serve: what MPEG 1, 2 and 2.5 know and LAME writes.
_MP3_KILOBITS = {
    32_000: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    16_000: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    8_000: (8, 16, 24, 32, 40, 48, 56, 64),
}
_MP3_USUAL_KILOBITS = 192
_OPUS_KILOBITS = (6, 256)  # per channel
_PCM_RATES = (1_000, 384_000)
_VORBIS_RATES = (1_000, 200_000)  # above, libvorbis refuses and libsndfile crashes
_MOST_CHANNELS = {"WAV": 32, "FLAC": 8, "OGG": 8, "MP3": 2}
_VORBIS_QUALITY = 5.0


@dataclass(frozen=True)
class _Coding:
    """How a file is coded: libsndfile's names, and its compression (0 to 1, least to most) and bit rate mode."""

    kind: str
    subtype: str
    compression: float | None = None
    mode: str | None = None


def write_audio(
    path: Path,
    samples: NDArray[Any],
    rate: int,
    *,
    subtype: str | None = None,
    bitrate_kbps: int | None = None,
    quality: float | None = None,
) -> Path:
    """Write float samples [channels, samples], full scale 1, as what `path`'s extension says; returns `path`.

    | extension | subtypes, the first by default | set by |
    |---|---|---|
    | .wav | PCM_16, PCM_24, FLOAT | |
    | .flac | PCM_16, PCM_24 | |
    | .ogg, .oga | VORBIS, OPUS | `quality` 0 to 10 as oggenc counts, 5 by default; `bitrate_kbps` for Opus |
    | .opus | OPUS | `bitrate_kbps` of all channels; the coder's own choice by default |
    | .mp3 | MPEG_LAYER_III | `bitrate_kbps`, constant; 192 by default, or the most the rate allows |

    PCM: value * 2^(bits-1) rounded to the nearest integer (halves to the even one), no dither, limited to what the bits
    hold, so integers that were read come back as they were. All but FLOAT is limited to ±1. Rates are never changed.
    The same samples give the same bytes with the same libraries: an OGG stream's serial number and a float WAV's time
    stamp, which libsndfile takes from the clock, are replaced. Written aside and renamed.
    Raises DataError: a name, rate, number of channels or setting that the format cannot take; no samples, NaN or Inf; a
    path that cannot be written. DiskFull. ValueError: samples that are not float [channels, samples].
    """
    path = Path(path)
    _replace(
        path,
        encode_audio(path, samples, rate, subtype=subtype, bitrate_kbps=bitrate_kbps, quality=quality),
    )
    return path


def encode_audio(
    path: Path,
    samples: NDArray[Any],
    rate: int,
    *,
    subtype: str | None = None,
    bitrate_kbps: int | None = None,
    quality: float | None = None,
) -> bytearray:
    """The bytes that `write_audio` would write at `path`, whose extension counts; nothing is written.

    Raises what `write_audio` does for names, samples and settings.
    """
    import numpy as np

    values = np.asarray(samples)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"samples are float [channels, samples], not {values.dtype} {values.shape}")
    if not values.size or not np.isfinite(values).all():
        what = "hold NaN or Inf" if values.size else "are none"
        raise DataError(f"the samples for {path} {what}", expected="finite samples", do="generate them again")
    coding = _coding_of(path, subtype, rate, (bitrate_kbps, quality, len(values)))
    data = _encoded(path, values, rate, coding)
    if coding.kind == "OGG":
        settle_serial(data)
    if coding.subtype == "FLOAT":
        _forget_time(data)
    return data


def _coding_of(path: Path, subtype: str | None, rate: int, settings: tuple[int | None, float | None, int]) -> _Coding:
    """What the extension and the settings (bit rate, quality, channels) come to. Raises DataError."""
    bitrate, quality, channels = settings
    end = path.suffix.lower()
    if end not in _SUBTYPES:
        raise DataError(f"{path} names no format we write", expected=f"one of {', '.join(_SUBTYPES)}")
    kind = _FORMATS.get(end, "OGG")
    chosen = subtype or _SUBTYPES[end][0]
    if chosen not in _SUBTYPES[end]:
        raise DataError(f"{path.name} cannot hold {chosen}", expected=f"one of {', '.join(_SUBTYPES[end])}")
    if channels > _MOST_CHANNELS[kind]:
        raise DataError(
            f"{path.name} would have {channels} channels",
            expected=f"at most {_MOST_CHANNELS[kind]} in {kind}",
            do="mix them down, or write a WAV",
        )
    _check_rate(path, chosen, rate)
    if quality is not None and chosen != "VORBIS":
        raise DataError(f"{chosen} has no quality setting", expected="quality with Vorbis alone", do="leave it out")
    if bitrate is not None and chosen not in ("OPUS", "MPEG_LAYER_III"):
        raise DataError(f"{chosen} has no bit rate setting", expected="one with MP3 or Opus", do="leave it out")
    if chosen == "VORBIS":
        return _Coding(kind, chosen, _vorbis_compression(_VORBIS_QUALITY if quality is None else quality))
    if chosen == "MPEG_LAYER_III":
        return _Coding(kind, chosen, _mp3_compression(rate, bitrate), "CONSTANT")
    if chosen == "OPUS" and bitrate is not None:
        return _Coding(kind, chosen, _opus_compression(bitrate, channels))
    return _Coding(kind, chosen)


def _check_rate(path: Path, subtype: str, rate: int) -> None:
    exact = {"OPUS": _OPUS_RATES, "MPEG_LAYER_III": _MP3_RATES}.get(subtype)
    low, high = _VORBIS_RATES if subtype == "VORBIS" else _PCM_RATES
    if (rate not in exact) if exact is not None else (not low <= rate <= high):
        expected = f"one of {', '.join(map(str, exact))} Hz" if exact is not None else f"{low} to {high} Hz"
        raise DataError(
            f"{path.name} cannot hold {subtype} at {rate} Hz", expected=expected, do="resample first, or write a WAV"
        )


def _vorbis_compression(quality: float) -> float:
    if not 0 <= quality <= 10:
        raise DataError(f"Vorbis quality {quality:g} is asked for", expected="0 to 10")
    return 1.0 - quality / 10.0


def _mp3_compression(rate: int, bitrate: int | None) -> float:
    """libsndfile's 0 to 1 for a bit rate: linear from the most the rate allows to the least, rounded down."""
    allowed = next(rates for lowest, rates in _MP3_KILOBITS.items() if rate >= lowest)
    chosen = min(_MP3_USUAL_KILOBITS, allowed[-1]) if bitrate is None else bitrate
    if chosen not in allowed:
        raise DataError(
            f"an MP3 of {chosen} kbit/s at {rate} Hz is asked for", expected=f"one of {', '.join(map(str, allowed))}"
        )
    return max(0.0, (allowed[-1] - chosen - 0.5) / (allowed[-1] - allowed[0]))


def _opus_compression(bitrate: int, channels: int) -> float:
    low, high = _OPUS_KILOBITS
    if not low <= bitrate / channels <= high:
        raise DataError(
            f"Opus at {bitrate} kbit/s for {channels} channels is asked for",
            expected=f"{low * channels} to {high * channels}",
        )
    return (high - bitrate / channels) / (high - low)


def _encoded(path: Path, values: NDArray[Any], rate: int, coding: _Coding) -> bytearray:
    import soundfile  # type: ignore[import-untyped]

    out = io.BytesIO()
    try:
        with soundfile.SoundFile(
            out,
            "w",
            rate,
            len(values),
            coding.subtype,
            format=coding.kind,
            compression_level=coding.compression,
            bitrate_mode=coding.mode,
        ) as file:
            for block in _blocks(values, coding.subtype):
                file.write(block)
    except soundfile.LibsndfileError as error:
        raise DataError(
            f"{path} cannot be coded as {coding.subtype} ({error.error_string})", do="write a WAV, or another rate"
        ) from error
    return bytearray(out.getbuffer())


def _blocks(values: NDArray[Any], subtype: str) -> Iterator[NDArray[Any]]:
    """[frames, channels] as libsndfile is given them: integers already rounded, since it would round down."""
    import numpy as np

    bits = _BITS.get(subtype)
    for at in range(0, values.shape[1], _BLOCK_FRAMES):
        block = np.ascontiguousarray(values[:, at : at + _BLOCK_FRAMES].T)
        if bits is not None:
            top = 1 << bits - 1
            steps = np.rint(block.astype(np.float64) * top).clip(-top, top - 1)
            # 24 bits are the upper ones of 32.
            yield steps.astype(np.int16) if bits == 16 else steps.astype(np.int32) << 8
        else:
            yield block.astype(np.float32) if subtype == "FLOAT" else block.clip(-1.0, 1.0).astype(np.float32)


def _forget_time(data: bytearray) -> None:
    """Zero the time stamp in a float WAV's PEAK chunk, in place."""
    at = 12
    while at + 16 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"PEAK":
            data[at + 12 : at + 16] = bytes(4)
        at += 8 + length + length % 2


def _replace(path: Path, data: bytearray) -> None:
    """Write aside, fsync, rename."""
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room left while writing {path}", do="free some space; nothing half-written is left"
            ) from error
        raise DataError(f"{path} cannot be written ({error.strerror})", do="choose another path") from error
