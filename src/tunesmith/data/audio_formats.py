"""Which sound files are read, opened with their claims checked; nothing is decoded. No torch.

What was found out about libsndfile, and is guarded against here: it reads a shortened WAV, AIFF or OGG file as a
shorter sound and says nothing, guesses how long an MP3 is, and decodes only the first of several OGG streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tunesmith.data.containers import read_claim
from tunesmith.data.mpeg import Stated, Stream, read_stream
from tunesmith.data.ogg import ending, first_serial
from tunesmith.errors import DataError

EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
READABLE = "WAV, FLAC, OGG (Vorbis, Opus), MP3 or AIFF"
FORMATS = {"WAV": "WAV", "WAVEX": "WAV", "RF64": "WAV", "FLAC": "FLAC", "OGG": "OGG", "MP3": "MP3", "AIFF": "AIFF"}
RATES = (1_000, 384_000)
MOST_CHANNELS = 32
MOST_SECONDS = 4 * 3600.0

_UNKNOWN_FRAMES = 1 << 62


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The soundfile.SoundFile, its claims checked. Raises DataError."""
    import soundfile  # type: ignore[import-untyped]

    with ExitStack() as stack:
        try:
            _check_claim(path)
            stream = read_stream(path)
            _check_stream(path, stream)
            source: Any = str(path)
            if stream is not None and stream.claimed is None:
                source = Stated(stack.enter_context(path.open("rb")), stream)
            file = stack.enter_context(soundfile.SoundFile(source))
        except (soundfile.LibsndfileError, OSError, ValueError, TypeError) as error:
            reason = getattr(error, "error_string", "") or getattr(error, "strerror", "") or str(error)
            raise _no_sound(path, reason.rstrip(".")) from error
        _check_opened(path, file)
        yield file


def _no_sound(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is no sound we read ({reason})", expected=f"a whole {READABLE} file", do="convert or remove it"
    )


def truncated(path: Path, what: str) -> DataError:
    """The one line for a file that holds less than it claims."""
    return DataError(f"{path} is truncated: {what}", expected="a whole file", do="replace or remove it")


def _check_claim(path: Path) -> None:
    claim = read_claim(path)
    if claim is None:
        return
    _check_numbers(path, claim.channels, claim.rate)
    if claim.data_bytes > claim.held_bytes:
        raise truncated(path, f"it claims {claim.frames:,} frames, more than it holds")
    _check_length(path, claim.frames, claim.rate or RATES[1])


def _check_stream(path: Path, stream: Stream | None) -> None:
    if stream is not None and stream.claimed is not None and stream.counted is not None:
        missing = stream.claimed - stream.counted
        if missing > 1:  # the last frame is mostly padding
            raise truncated(path, f"it claims {stream.claimed:,} MP3 frames, {missing:,} more than it holds")


def _check_opened(path: Path, file: Any) -> None:
    if file.format not in FORMATS:
        raise _no_sound(path, f"it is {file.format}")
    _check_numbers(path, file.channels, file.samplerate)
    if file.frames >= _UNKNOWN_FRAMES:
        raise _no_sound(path, "its header does not say how long it is")
    _check_length(path, file.frames, file.samplerate)
    if file.format == "FLAC" and not _last_decodes(file):
        raise truncated(path, f"it claims {file.frames:,} frames, and the last is missing or damaged")
    if file.format == "OGG":
        _check_ogg(path)


def _check_numbers(path: Path, channels: int, rate: int | None) -> None:
    if not 1 <= channels <= MOST_CHANNELS or (rate is not None and not RATES[0] <= rate <= RATES[1]):
        raise DataError(
            f"{path} claims {channels} channels" + ("" if rate is None else f" at {rate} Hz"),
            expected=f"1 to {MOST_CHANNELS} channels, {RATES[0]} to {RATES[1]} Hz",
            do="convert or remove it",
        )


def _check_length(path: Path, frames: int, rate: int) -> None:
    if not 0 < frames <= MOST_SECONDS * rate:
        raise DataError(
            f"{path} lasts {frames / rate:.0f} seconds",
            expected=f"more than 0, at most {MOST_SECONDS:.0f}",
            do="cut or remove it",
        )


def _last_decodes(file: Any) -> bool:
    import soundfile

    try:
        file.seek(file.frames - 1)
        found = len(file.read(1))
        file.seek(0)
    except soundfile.LibsndfileError:
        return False
    return found == 1


def _check_ogg(path: Path) -> None:
    """Only the first stream of a file is decoded, and an interrupted copy decodes as a shorter sound."""
    end = ending(path)
    if end is None or (end.serial == first_serial(path) and not end.ends_stream):
        raise truncated(path, "the last page of its stream is missing")
    if end.serial != first_serial(path):
        raise DataError(
            f"{path} holds several streams", expected="one sound in a file", do="split it, or convert it to WAV"
        )
