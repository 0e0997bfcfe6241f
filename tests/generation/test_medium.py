"""Every kind of media: its file reads back as the very same, its cell shows it, and what has no file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tunesmith.data.audio import read_audio
from tunesmith.data.source import KINDS
from tunesmith.engines.protocol import Media
from tunesmith.errors import DataError, NonFinite
from tunesmith.generation.medium import MEDIA, medium_of
from tunesmith.generation.pictures import read_parameters
from tunesmith.jobs.refusals import KEPT_MEDIA

RATE = 8_000
PICTURE = Media("image", Image.effect_noise((24, 16), 80).convert("RGB"), {"prompt": "a dot", "seed": 4})
SAMPLES = 3.0 * np.random.default_rng(1).standard_normal((2, RATE // 2)).astype(np.float32)
SOUND = Media("audio", SAMPLES, {"prompt": "a hiss", "seed": 4, "rate": RATE})


def test_a_picture_keeps_every_pixel_and_how_it_was_made(tmp_path: Path) -> None:
    medium = medium_of(PICTURE)
    path = medium.save(PICTURE, tmp_path / f"a{medium.ending}", {"step": 7})
    with Image.open(path) as read:
        assert read.tobytes() == PICTURE.data.tobytes()
    assert read_parameters(path) == {"prompt": "a dot", "seed": 4, "step": 7}
    assert medium.cell(PICTURE) is PICTURE.data


def test_a_sound_keeps_every_sample_and_how_it_was_made(tmp_path: Path) -> None:
    medium = medium_of(SOUND)
    path = medium.save(SOUND, tmp_path / f"a{medium.ending}", {"step": 7})
    samples, rate = read_audio(path)
    assert rate == RATE
    assert np.array_equal(samples, SAMPLES)
    told = json.loads((tmp_path / "a.wav.credits.json").read_text())
    assert (told["prompt"], told["seed"], told["step"], told["file"]["samples"]) == ("a hiss", 4, 7, RATE // 2)
    assert told["analysis"]["peak"] == pytest.approx(np.abs(SAMPLES).max(), rel=1e-5)
    cell = medium.cell(SOUND)
    assert cell.mode == "RGB"
    assert min(cell.size) > 100


def test_nan_is_neither_kept_nor_shown(tmp_path: Path) -> None:
    broken = Media("audio", np.full((1, 100), np.nan, dtype=np.float32), {"rate": RATE, "seed": 1})
    medium = medium_of(broken)
    with pytest.raises(NonFinite, match="100 of its 100 samples"):
        medium.save(broken, tmp_path / "a.wav", {})
    with pytest.raises(NonFinite):
        medium.cell(broken)
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_file_is_refused() -> None:
    with pytest.raises(DataError, match="the generated chart cannot be kept"):
        medium_of(Media("chart", "notes", {}))


def test_what_is_kept_is_what_can_be_read_as_items() -> None:
    assert set(MEDIA) == set(KINDS) == set(KEPT_MEDIA)
