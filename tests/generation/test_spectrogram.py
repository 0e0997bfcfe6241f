"""Pictures of sounds show what is where, on scales that do not move."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from tunesmith.errors import DataError
from tunesmith.generation.sheet import BACKGROUND, contact_sheet
from tunesmith.generation.spectrogram import (
    BETWEEN,
    BOTTOM,
    CLIPPED,
    LEFT,
    PANE,
    RIGHT,
    SMALLEST_HEIGHT,
    SMALLEST_WIDTH,
    TOP,
    WAVE,
    spectrogram_picture,
)

RATE = 44_100
WIDTH, HEIGHT = 300, 190


def _tone(hertz: float, level: float = 0.5, *, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)[None]


def _pane(picture: Image.Image) -> np.ndarray:
    """Brightness of the spectrogram [rows, columns], from the marked layout."""
    room = picture.height - TOP - BETWEEN - BOTTOM
    top = TOP + round(0.22 * room) + BETWEEN
    pixels = np.asarray(picture, dtype=float)[top : picture.height - BOTTOM, LEFT : picture.width - RIGHT]
    return pixels @ np.array([0.2126, 0.7152, 0.0722])


def _strip(picture: Image.Image) -> np.ndarray:
    room = picture.height - TOP - BETWEEN - BOTTOM
    return np.asarray(picture)[TOP : TOP + round(0.22 * room), LEFT : picture.width - RIGHT]


def _ink(strip: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows that are wholly of a colour, per column."""
    return (strip == np.array(colour)).all(-1).sum(0)


@pytest.mark.parametrize("hertz", [200, 1000, 4000, 8000])
@pytest.mark.parametrize("rate", [22_050, 48_000])
def test_a_tone_is_a_line_at_its_frequency(hertz: int, rate: int) -> None:
    pane = _pane(spectrogram_picture(_tone(hertz, rate=rate), rate))
    low, high, here = (2595 * math.log10(1 + f / 700) for f in (40, 11_025, hertz))
    row = (1 - (here - low) / (high - low)) * len(pane)
    assert pane[:, pane.shape[1] // 2].argmax() == pytest.approx(row, abs=2.5)


def test_time_runs_to_the_right() -> None:
    sound = np.concatenate([_tone(3000, seconds=0.5), np.zeros((1, RATE // 2), np.float32)], axis=1)
    pane = _pane(spectrogram_picture(sound, RATE))
    half = pane.shape[1] // 2
    assert pane[:, : half - 5].max(0).min() > 150, "sounding"
    assert pane[:, half + 12 :].max() < 10, "silent"


def test_brightness_means_the_same_in_every_picture() -> None:
    tops = []
    for level in (0.5, 0.05, 0.005):
        alone = _pane(spectrogram_picture(_tone(1000, level), RATE))
        beside = _tone(1000, level)
        beside[:, RATE // 2 :] = _tone(5000, 0.9)[:, RATE // 2 :]
        with_louder = _pane(spectrogram_picture(beside, RATE))
        tops.append(alone[:, 60].max())
        assert with_louder[:, 60].max() == pytest.approx(tops[-1], abs=3), "a louder part elsewhere changes nothing"
    assert tops[0] > tops[1] + 40 > tops[2] + 80


def test_the_waveform_is_drawn_to_scale_and_clipping_is_red() -> None:
    full, half = (_strip(spectrogram_picture(_tone(500, level), RATE)) for level in (0.99, 0.495))
    assert _ink(full, WAVE).max() == pytest.approx(len(full) - 1, abs=1)
    assert _ink(half, WAVE).max() == pytest.approx(len(full) / 2, abs=1.5)
    clipped = np.clip(_tone(500, 2.0), -1, 1)
    clipped[:, RATE // 2 :] *= 0.5
    strip = _strip(spectrogram_picture(clipped, RATE))
    red = _ink(strip, CLIPPED) > 0
    assert red[: red.size // 2 - 1].all()
    assert not red[red.size // 2 + 1 :].any()


def test_both_channels_are_in_the_waveform() -> None:
    up, down = np.zeros((1, RATE), np.float32), np.zeros((1, RATE), np.float32)
    up[:, : RATE // 2], down[:, RATE // 2 :] = 0.8, -0.8
    for channels in ([up, down], [down, up]):
        ink = _ink(_strip(spectrogram_picture(np.concatenate(channels), RATE)), WAVE)
        assert ink.min() > 0.3 * HEIGHT * 0.22 / 2, "from the middle up, then from the middle down"


def test_cells_of_a_sheet_share_a_time_axis() -> None:
    picture = spectrogram_picture(_tone(1000), RATE, seconds=2.0)
    columns = WIDTH - LEFT - RIGHT
    assert (_pane(picture)[:, columns // 2 + 1 :] == np.array(PANE) @ [0.2126, 0.7152, 0.0722]).all(), "no sound there"
    assert (_ink(_strip(picture), WAVE)[: columns // 2 - 1] > 0).all()
    cut = spectrogram_picture(np.concatenate([_tone(1000), _tone(4000)], axis=1), RATE, seconds=1.0)
    np.testing.assert_allclose(_pane(cut)[:, 5:-12], _pane(spectrogram_picture(_tone(1000), RATE))[:, 5:-12], atol=3)


def test_a_sheet_holds_the_pictures_unharmed() -> None:
    picture = spectrogram_picture(_tone(1000), RATE)
    assert (picture.size, picture.mode) == ((WIDTH, HEIGHT), "RGB")
    sheet = contact_sheet([[picture, picture], [picture]], ["base", "real"], ["seed 1", "seed 2"])
    whole, cell = np.asarray(sheet), np.asarray(picture)
    assert (whole[-HEIGHT - 8 : -8, -2 * WIDTH - 16 : -WIDTH - 16] == cell).all()
    corners = [picture.getpixel(place) for place in ((0, 0), (WIDTH - 1, 0))]
    assert corners == [BACKGROUND, BACKGROUND], "the paper of the sheet"


def test_frequencies_and_seconds_are_marked() -> None:
    pixels = np.asarray(spectrogram_picture(_tone(1000), RATE))
    other_length = np.asarray(spectrogram_picture(_tone(1000, seconds=1.7), RATE))
    margin, foot = pixels[TOP:-BOTTOM, : LEFT - 4], pixels[-BOTTOM + 3 :]
    assert (np.abs(margin.astype(int) - np.array(BACKGROUND)).max(-1) > 60).any(1).sum() > 30, "figures in the margin"
    assert (np.abs(foot.astype(int) - np.array(BACKGROUND)).max(-1) > 60).any(0).sum() > 30
    assert (margin == other_length[TOP:-BOTTOM, : LEFT - 4]).all(), "frequencies do not depend on the sound"
    assert (foot != other_length[-BOTTOM + 3 :]).any(), "seconds do"


@pytest.mark.parametrize("sound", [
    pytest.param(np.zeros((2, 9000), np.float32), id="silence"),
    pytest.param(_tone(500)[:, :1], id="one sample"),
    pytest.param(_tone(500, seconds=0.05), id="short"),
    pytest.param(_tone(500, seconds=20.0, rate=8000), id="long"),
    pytest.param(np.repeat(_tone(500).astype(np.float64), 3, axis=0), id="three channels"),
])  # fmt: skip
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (SMALLEST_WIDTH, SMALLEST_HEIGHT), (900, 400)])
def test_any_sound_has_a_picture_of_the_wanted_size(sound: np.ndarray, size: tuple[int, int]) -> None:
    rate = 8000 if sound.shape[1] == 160_000 else RATE
    picture = spectrogram_picture(sound, rate, width=size[0], height=size[1])
    assert picture.size == size
    loud = bool(np.abs(sound).max() > 0.01)
    assert (_pane(picture).max() > 100) == loud


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        spectrogram_picture(np.zeros((1, 0), np.float32), RATE)
    with pytest.raises(DataError, match="not finite"):
        spectrogram_picture(np.full((1, 100), np.inf, np.float32), RATE)
    with pytest.raises(ValueError, match="at least 120 by 80"):
        spectrogram_picture(_tone(500), RATE, width=100)
    with pytest.raises(ValueError, match="time axis"):
        spectrogram_picture(_tone(500), RATE, seconds=0.0)
