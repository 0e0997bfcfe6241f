"""Sound files become float samples of the wanted rate and channels. No torch.

soundfile (libsndfile) decodes, soxr resamples; both are imported when a file is opened. Samples are float32
[channels, samples], full scale 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.audio_formats import EXTENSIONS, FORMATS, MOST_CHANNELS, MOST_SECONDS, RATES, opened, truncated
from tunesmith.data.audio_writing import write_audio
from tunesmith.data.ogg import ending
from tunesmith.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

__all__ = [
    "AUDIO_EXTENSIONS", "MOST_CHANNELS", "MOST_SECONDS", "RATES", "read_audio", "read_audio_header", "write_audio",
]  # fmt: skip

AUDIO_EXTENSIONS = EXTENSIONS

_BLOCK_FRAMES = 1 << 19
# What a coder may owe at the end: four frames of an MP3, one long block of Vorbis.
_PADDING_FRAMES = {"MP3": 4 * 1152, "OGG": 8192}
# An MP3 frame uses up to 511 bytes of those before it: 22 frames at 8 kbit/s.
_MP3_LEAD_FRAMES = 64 * 1152
_VORBIS_BLOCK_FRAMES = 8192
_MARGIN_SAMPLES = 512  # longer than soxr's filter, at the lower of two rates
# Vorbis and Opus put the centre between left and right (Vorbis I specification, section 4.3.9; RFC 7845, 5.1.1.2).
_CENTRE_SECOND = (3, 5, 6, 7, 8)


def read_audio_header(path: Path) -> dict[str, Any]:
    """`seconds`, `rate` in Hz, `channels`, `format` (WAV, FLAC, OGG, MP3, AIFF) and libsndfile's `subtype`.

    From headers; of a FLAC file the last sample is decoded too, since only that shows that it is whole. The length is
    what decodes: an MP3 that states none has its frames counted.
    Raises DataError: no sound (by content, not by name), truncated, several streams in one file; a rate, number of
    channels or length outside the limits.
    """
    with opened(path) as file:
        return {
            "seconds": file.frames / file.samplerate,
            "rate": int(file.samplerate),
            "channels": int(file.channels),
            "format": FORMATS[file.format],
            "subtype": str(file.subtype),
        }


def read_audio(
    path: Path,
    *,
    rate: int | None = None,
    channels: int | None = None,
    start_seconds: float = 0.0,
    seconds: float | None = None,
) -> tuple[Samples, int]:
    """(samples float32 [channels, samples], rate in Hz) of a file, or of `seconds` of it from `start_seconds` on.

    A piece is cut on the grid of the samples that come out, and is what the whole file gives there; near the end it is
    shorter than asked. Memory is that of the piece and of one block of 2^19 frames. Lossy formats and float files may
    hold samples beyond 1; they are left as they are.
    `rate`: resampled by soxr, quality HQ; n samples become n * rate / source rate, rounded.
    `channels`: mono is duplicated; more become one by their mean, or two by taking left and right (the first two; in
    Vorbis and Opus with a centre the first and third). None keeps the file's.
    Raises DataError as `read_audio_header` does, and for: NaN or Inf, fewer samples than claimed, damage, a start at
    or after the end, a number of channels that the file's cannot become.
    """
    import numpy as np

    with opened(path) as file:
        source, held = int(file.samplerate), int(file.channels)
        target, wanted = source if rate is None else rate, held if channels is None else channels
        picks = _picks(path, held, wanted, FORMATS[file.format])
        piece = _piece(path, file.frames, (source, target), (start_seconds, seconds))
        out = np.empty((wanted, piece.count), dtype=np.float32)
        done = -piece.skip
        for block in _resampled(_mixed(_blocks(path, file, piece), picks), source, target):
            low, high = max(0, -done), min(len(block), piece.count - done)
            if high > low:
                out[:, done + low : done + high] = block[low:high].T  # one channel fills all that are wanted
            done += len(block)
    return out[:, : max(0, done)], target


@dataclass(frozen=True)
class _Piece:
    """Frames `first` to `stop` are decoded; of the samples that come out `skip` are dropped, then `count` kept."""

    first: int
    stop: int
    skip: int
    count: int


def _picks(path: Path, held: int, wanted: int, kind: str) -> list[int] | None:
    """Which of the file's channels become the wanted ones before resampling; None: their mean."""
    if wanted == held:
        return list(range(held))
    if held == 1 and 1 < wanted <= MOST_CHANNELS:
        return [0]
    if wanted == 1:
        return None
    if wanted == 2:
        return [0, 2] if kind == "OGG" and held in _CENTRE_SECOND else [0, 1]
    raise DataError(f"{path} has {held} channels, which cannot become {wanted}", expected=f"1, 2 or {held} channels")


def _piece(path: Path, frames: int, rates: tuple[int, int], span: tuple[float, float | None]) -> _Piece:
    """What to decode for `span` (start, length in seconds), so that resampling has what lies on either side."""
    (source, target), (start, length) = rates, span
    if not RATES[0] <= target <= RATES[1]:
        raise DataError(f"{path} is asked for at {target} Hz", expected=f"{RATES[0]} to {RATES[1]} Hz")
    if not 0 <= start < math.inf or (length is not None and not 0 < length < math.inf):
        raise DataError(
            f"{path} is asked for {length} seconds from {start} on", expected="a start of 0 or more, a length above 0"
        )
    total = (2 * frames * target + source - 1) // (2 * source)  # as soxr rounds
    first = round(start * target)
    count = total - first if length is None else min(round(length * target), total - first)
    if count < 1:
        raise DataError(
            f"{path} lasts {frames / source:.3f} seconds; nothing is left from {start:g} on at {target} Hz",
            expected="a piece with at least one sample",
            do="start earlier, or leave it out",
        )
    if source == target:
        return _Piece(first, first + count, 0, count)
    # Both grids meet every `period` frames; starting there, the piece falls on the samples of the whole.
    divisor = math.gcd(source, target)
    period, period_out = source // divisor, target // divisor
    margin = math.ceil(_MARGIN_SAMPLES * max(1.0, source / target))
    periods = max(0, first * source // target - margin) // period
    stop = min(frames, -(-(first + count) * source // target) + margin)
    return _Piece(periods * period, stop, first - periods * period_out, count)


def _blocks(path: Path, file: Any, piece: _Piece) -> Iterator[Samples]:
    """The piece's frames, [frames, channels] at a time. Raises DataError: NaN, Inf, missing or damaged."""
    import numpy as np
    import soundfile  # type: ignore[import-untyped]

    kind, at = FORMATS[file.format], piece.first
    while at < piece.stop:
        lead = _lead(path, file, at)
        try:
            if file.tell() != at - lead:
                file.seek(at - lead)
            block = file.read(lead + min(_BLOCK_FRAMES, piece.stop - at), dtype="float32", always_2d=True)[lead:]
        except soundfile.LibsndfileError as error:
            raise DataError(
                f"{path} is damaged: it cannot be decoded beyond {at / file.samplerate:.2f} seconds",
                expected="a whole file",
                do="replace or remove it",
            ) from error
        if not len(block):
            break
        broken = ~np.isfinite(block).all(axis=1)
        if broken.any():
            raise DataError(
                f"{path} holds NaN or Inf at {(at + int(broken.argmax())) / file.samplerate:.4f} seconds",
                expected="finite samples",
                do="make it again or remove it",
            )
        yield block
        at += len(block)
    if piece.stop - at > _PADDING_FRAMES.get(kind, 0):
        raise truncated(path, f"it claims {file.frames:,} frames, {piece.stop - at:,} more than decode")


def _lead(path: Path, file: Any, at: int) -> int:
    """How many frames before `at` decoding has to start, to be right at `at`.

    After a seek libsndfile decodes an MP3 from the target on, without the frames that its first ones build on (and
    soundfile seeks between two reads); a target in the last page of a Vorbis file it misses by up to a page.
    """
    if file.format == "MP3":
        return min(at, _MP3_LEAD_FRAMES)
    if file.subtype == "VORBIS" and file.tell() != at:
        end = ending(path)
        last_page: int = file.frames if end is None or end.samples is None else end.samples
        return max(0, at - max(0, int(file.frames) - last_page - _VORBIS_BLOCK_FRAMES))
    return 0


def _mixed(blocks: Iterable[Samples], picks: list[int] | None) -> Iterator[Samples]:
    for block in blocks:
        yield block.mean(axis=1, keepdims=True) if picks is None else block[:, picks]


def _resampled(blocks: Iterator[Samples], source: int, target: int) -> Iterator[Samples]:
    if source == target:
        yield from blocks
        return
    import numpy as np
    import soxr  # type: ignore[import-untyped]

    stream, channels = None, 0
    for block in blocks:
        if stream is None:
            channels = block.shape[1]
            stream = soxr.ResampleStream(source, target, channels, dtype="float32", quality="HQ")
        yield stream.resample_chunk(np.ascontiguousarray(block))
    if stream is not None:
        yield stream.resample_chunk(np.empty((0, channels), dtype=np.float32), last=True)
