"""Sound files: which are read, and what their headers say. WAV so far. No torch."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

from tunesmith.errors import DataError

AUDIO_EXTENSIONS = (".wav",)
RATES = (1_000, 384_000)
MOST_CHANNELS = 32
MOST_SECONDS = 4 * 3600.0


def read_audio_header(path: Path) -> dict[str, Any]:
    """`seconds`, `rate` in Hz, `channels`, `format`; no sample is decoded.

    Raises DataError: no PCM WAV, a header that claims what the file does not hold or what no recording has.
    """
    try:
        size = path.stat().st_size
        with wave.open(str(path), "rb") as file:
            rate, channels, width, frames = (
                file.getframerate(), file.getnchannels(), file.getsampwidth(), file.getnframes()
            )  # fmt: skip
    except (wave.Error, EOFError, OSError, ValueError, ZeroDivisionError, RuntimeError) as error:
        reason = str(error) or "it ends too early"
        raise DataError(
            f"{path} is no sound we read ({reason})", expected="a PCM WAV file", do="convert or remove it"
        ) from error
    if not RATES[0] <= rate <= RATES[1] or not 1 <= channels <= MOST_CHANNELS:
        raise DataError(
            f"{path} claims {channels} channels at {rate} Hz",
            expected=f"1 to {MOST_CHANNELS} channels, {RATES[0]} to {RATES[1]} Hz",
            do="convert or remove it",
        )
    if frames * channels * width > size:
        raise DataError(
            f"{path} is truncated: it claims {frames:,} frames, more than it holds",
            expected="a whole file",
            do="replace or remove it",
        )
    if not 0 < frames <= MOST_SECONDS * rate:
        raise DataError(
            f"{path} lasts {frames / rate:.0f} seconds",
            expected=f"more than 0, at most {MOST_SECONDS:.0f}",
            do="cut or remove it",
        )
    return {"seconds": frames / rate, "rate": rate, "channels": channels, "format": "WAV"}
