"""Pictures of sounds: waveform above, log-mel spectrogram below. Every scale is fixed, so pictures compare.

They are cells for `sheet.contact_sheet`, whose colours they share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tunesmith.generation.sheet import BACKGROUND, Font
from tunesmith.numeric.timbre import ANALYSIS_RATE, LOWEST_HZ, check_sound, log_mel, mel_of

QUIETEST_DB, LOUDEST_DB = -80.0, -15.0  # of a full-scale sine, per mel band: the ends of the colour scale
BANDS = 128
FINEST_HOP, COARSEST_HOP = 32, 512  # samples at ANALYSIS_RATE; the coarsest leaves no gap between frames
SMALLEST_WIDTH, SMALLEST_HEIGHT = 120, 80
KILOHERTZ = (0.2, 0.5, 1, 2, 4, 8)
STEPS_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)
FULL_SCALE = 0.9999  # 16 bits reach 0.99997

MARK_SIZE, MARK_GAP = 9, 34  # pixels: height of the figures, least distance between two marks of time
MARK_INK, TICK = (92, 95, 112), (170, 173, 188)
WAVE, CLIPPED, PANE = (124, 92, 255), (228, 59, 68), (236, 236, 244)
LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 24, 6, 5, 16, 3

Samples = NDArray[Any]


@dataclass(frozen=True)
class _Panes:
    """Where things are in the picture, in pixels; both panes begin at LEFT and are `width` wide."""

    width: int
    wave_height: int
    mel_top: int
    mel_height: int


def spectrogram_picture(
    samples: Samples, rate: int, *, width: int = 300, height: int = 190, seconds: float | None = None
) -> Image.Image:
    """The sound [channels, samples] as an RGB picture, marked in kHz (mel scale) and seconds.

    Colours reach from QUIETEST_DB to LOUDEST_DB, frequencies to half of ANALYSIS_RATE, the waveform from -1 to 1, with
    columns that hold a sample at full scale in red. `seconds` is the length of the time axis, where cells of a sheet
    are to share one; longer sounds are cut. Without it the sound fills the picture. Raises DataError for an empty or
    non-finite sound.
    """
    if width < SMALLEST_WIDTH or height < SMALLEST_HEIGHT:
        raise ValueError(f"{width} by {height} pixels; at least {SMALLEST_WIDTH} by {SMALLEST_HEIGHT} are needed")
    if seconds is not None and seconds <= 0:
        raise ValueError(f"a time axis of {seconds} seconds")
    check_sound(samples)
    panes = _lay_out(width, height)
    length = seconds or samples.shape[1] / rate
    shown = samples[:, : max(1, round(length * rate))]
    share = shown.shape[1] / (length * rate)
    columns = min(panes.width, max(1, round(panes.width * share)))
    levels = _levels(shown, rate, (columns, panes.mel_height))
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for top, tall in ((TOP, panes.wave_height), (panes.mel_top, panes.mel_height)):
        draw.rectangle((LEFT, top, LEFT + panes.width - 1, top + tall - 1), PANE)
    picture.paste(_waveform(shown, columns, panes.wave_height), (LEFT, TOP))
    picture.paste(_coloured(levels), (LEFT, panes.mel_top))
    _mark_kilohertz(draw, panes)
    _mark_seconds(draw, panes, length)
    return picture


def _lay_out(width: int, height: int) -> _Panes:
    room = height - TOP - BETWEEN - BOTTOM
    wave = round(0.22 * room)
    return _Panes(width - LEFT - RIGHT, wave, TOP + wave + BETWEEN, room - wave)


def _levels(samples: Samples, rate: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """dB [rows, columns] for a pane of `size` (width, height), high frequencies on top."""
    hop = round(samples.shape[1] / rate * ANALYSIS_RATE / size[0])
    hop = min(max(hop, FINEST_HOP), COARSEST_HOP)
    levels = log_mel(samples, rate, bands=BANDS, hop=hop).T[::-1]
    # Pillow widens the filter where it shrinks: a pixel of many frames shows their mean in dB.
    image = Image.fromarray(np.ascontiguousarray(levels)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)


def _coloured(levels: NDArray[np.float32]) -> Image.Image:
    place = np.clip((levels - QUIETEST_DB) / (LOUDEST_DB - QUIETEST_DB), 0.0, 1.0)
    return Image.fromarray(_palette()[np.rint(place * 255).astype(np.uint8)])


def _waveform(samples: Samples, columns: int, height: int) -> Image.Image:
    """Least to greatest sample of every column, all channels together, edges smoothed."""
    edges = np.linspace(0, samples.shape[1], columns + 1)
    starts = np.minimum(edges[:-1].astype(int), samples.shape[1] - 1)
    high = np.maximum.reduceat(samples.max(0), starts).clip(-1, 1)
    low = np.minimum.reduceat(samples.min(0), starts).clip(-1, 1)
    middle, reach = height / 2, height / 2 - 0.5
    top, bottom = middle - high * reach - 0.5, middle - low * reach + 0.5
    rows = np.arange(height)[:, None]
    ink = np.clip(np.minimum(bottom, rows + 1) - np.maximum(top, rows), 0.0, 1.0)[..., None]
    full = np.maximum(high, -low) >= FULL_SCALE
    colour = np.where(full[None, :, None], np.array(CLIPPED), np.array(WAVE))
    return Image.fromarray(np.rint(ink * colour + (1.0 - ink) * np.array(PANE)).astype(np.uint8))


def _mark_kilohertz(draw: ImageDraw.ImageDraw, panes: _Panes) -> None:
    lowest, highest = mel_of(LOWEST_HZ), mel_of(ANALYSIS_RATE / 2)
    free = panes.mel_top + panes.mel_height + MARK_SIZE
    for kilohertz in KILOHERTZ:
        place = (mel_of(1000 * kilohertz) - lowest) / (highest - lowest)
        y = panes.mel_top + round((1.0 - place) * (panes.mel_height - 1))
        draw.line((LEFT - 3, y, LEFT - 1, y), TICK)
        if y + MARK_SIZE <= free:
            draw.text((LEFT - 5, y), f"{kilohertz:g}", MARK_INK, _mark_font(), anchor="rm")
            free = y
    draw.text((LEFT - 5, TOP + panes.wave_height), "kHz", MARK_INK, _mark_font(), anchor="rb")


def _mark_seconds(draw: ImageDraw.ImageDraw, panes: _Panes, length: float) -> None:
    most = max(1.0, panes.width / MARK_GAP)
    step = next((step for step in STEPS_SECONDS if length / step <= most), STEPS_SECONDS[-1])
    bottom = panes.mel_top + panes.mel_height
    for count in range(int(length / step + 1e-6) + 1):
        x = LEFT + round(count * step / length * (panes.width - 1))
        draw.line((x, bottom, x, bottom + 2), TICK)
        text = f"{count * step:.6g}" + (" s" if count == 0 else "")
        wide = draw.textlength(text, _mark_font())
        left = min(x - wide / 2, LEFT + panes.width + RIGHT - 1 - wide)
        draw.text((left, bottom + 3), text, MARK_INK, _mark_font(), anchor="la")


@cache
def _palette() -> NDArray[np.uint8]:
    """[256, 3]: matplotlib's magma, even in lightness from black to a pale yellow."""
    import matplotlib

    return np.asarray(matplotlib.colormaps["magma"](np.arange(256), bytes=True)[:, :3], dtype=np.uint8)


@cache
def _mark_font() -> Font:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", MARK_SIZE)
